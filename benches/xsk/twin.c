/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/*
 * What benches/xsk compares with: programs for C libxdp that do what examples/xsk_drop, xsk_tx and xsk_l2fwd do, with the
 * same sizes of rings and frames, the same flags, the same batches, the same budget to send, and the same rules for when to
 * call the kernel and when to sleep.
 *
 * twin drop|tx|l2fwd INTERFACE BATCH SECONDS COUNT [spin]
 * twin open INTERFACE COUNT
 *
 * Ends after so many seconds or packets, whichever is first (0: never), and writes what those examples write.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <net/if.h>
#include <linux/if_link.h>
#include <bpf/bpf.h>
#include <xdp/xsk.h>

enum { RING = 2048, FRAMES = 2 * RING, FRAME_SIZE = 4096, PACKET = 64, REST_US = 200000 };
/* Packets that one call sends at most, and for how long it is slept after a batch; examples/support has the same. */
enum { BUDGET = 256, NAP_US = 150 };

#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9 /* kernel 6.17 */
#endif

struct twin {
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons completion, rx;
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	unsigned char *memory;
	__u32 batch;
	bool spin;
	/* Frames to send that are not under way; how many are. */
	__u64 idle[FRAMES];
	__u32 idle_count, under_way;
	/* Packets since it slept. */
	__u32 since;
	__u64 packets, bytes, limit;
	double opened, first;
	/* What opening took of the processor. */
	long long user, kernel;
};

static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
	(void)signal;
	stop = 1;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void die(const char *what, int error)
{
	fprintf(stderr, "twin: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

static void count(struct twin *twin, __u32 packets, __u64 bytes)
{
	if (!twin->packets && packets)
		twin->first = now();
	twin->packets += packets;
	twin->bytes += bytes;
	if (twin->limit && twin->packets >= twin->limit)
		stop = 1;
}

static void make_memory(struct twin *twin)
{
	size_t length = (size_t)FRAMES * FRAME_SIZE;

	twin->memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (twin->memory == MAP_FAILED)
		die("mmap", errno);
}

static void open_umem(struct twin *twin)
{
	const struct xsk_umem_config config = {
		.fill_size = 2 * RING,
		.comp_size = 2 * RING,
		.frame_size = FRAME_SIZE,
	};
	size_t length = (size_t)FRAMES * FRAME_SIZE;
	int error;

	error = xsk_umem__create(&twin->umem, twin->memory, length, &twin->fill, &twin->completion, &config);
	if (error)
		die("xsk_umem__create", error);
}

static void fill_all(struct twin *twin)
{
	__u32 at;

	if (xsk_ring_prod__reserve(&twin->fill, FRAMES, &at) != FRAMES)
		die("xsk_ring_prod__reserve", ENOSPC);
	for (__u32 i = 0; i < FRAMES; i++)
		*xsk_ring_prod__fill_addr(&twin->fill, at++) = (__u64)i * FRAME_SIZE;
	xsk_ring_prod__submit(&twin->fill, FRAMES);
}

static void open_socket(struct twin *twin, const char *interface, bool receives, bool sends)
{
	const struct xsk_socket_config config = {
		.rx_size = RING,
		.tx_size = RING,
		/* A socket that only sends needs no program. */
		.libbpf_flags = receives ? 0 : XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD,
		.xdp_flags = XDP_FLAGS_DRV_MODE,
		.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP,
	};
	int error = xsk_socket__create(&twin->socket, interface, 0, twin->umem, receives ? &twin->rx : NULL,
				       sends ? &twin->tx : NULL, &config);

	if (error)
		die("xsk_socket__create", error);
	/* xsk.h has no name for it. An older kernel refuses it. */
	if (sends)
		setsockopt(xsk_socket__fd(twin->socket), SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &(int){ BUDGET }, sizeof(int));
}

static void wake_tx(struct twin *twin)
{
	if (!xsk_ring_prod__needs_wakeup(&twin->tx))
		return;
	if (sendto(xsk_socket__fd(twin->socket), NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
		return;
	if (errno != EAGAIN && errno != EBUSY && errno != ENOBUFS && errno != EINTR)
		die("sendto", errno);
}

static void wake_fill(struct twin *twin)
{
	if (xsk_ring_prod__needs_wakeup(&twin->fill))
		recvfrom(xsk_socket__fd(twin->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static void wait_for(struct twin *twin, short events, int milliseconds)
{
	struct pollfd poll_for = { .fd = xsk_socket__fd(twin->socket), .events = events };

	if (poll(&poll_for, 1, milliseconds) < 0 && errno != EINTR)
		die("poll", errno);
}

/* Until something comes, or a moment if a batch has. */
static void sleep_some(struct twin *twin, int milliseconds)
{
	__u32 since = twin->since;

	twin->since = 0;
	if (since >= twin->batch)
		usleep(NAP_US);
	else
		wait_for(twin, POLLIN, milliseconds);
}

static void drop_some(struct twin *twin)
{
	__u32 room = xsk_prod_nb_free(&twin->fill, twin->batch), from = 0, to = 0, got;
	__u64 bytes = 0;

	/* There are as many slots as frames, but the kernel tells of packets before it frees their slots. */
	got = xsk_ring_cons__peek(&twin->rx, room < twin->batch ? room : twin->batch, &from);
	if (!got) {
		if (twin->spin)
			wake_fill(twin);
		else
			sleep_some(twin, 100);
		return;
	}
	if (xsk_ring_prod__reserve(&twin->fill, got, &to) != got)
		die("xsk_ring_prod__reserve", ENOSPC);
	for (__u32 i = 0; i < got; i++) {
		const struct xdp_desc *packet = xsk_ring_cons__rx_desc(&twin->rx, from++);

		*xsk_ring_prod__fill_addr(&twin->fill, to++) = packet->addr;
		bytes += packet->len;
	}
	xsk_ring_prod__submit(&twin->fill, got);
	xsk_ring_cons__release(&twin->rx, got);
	twin->since += got;
	count(twin, got, bytes);
}

static void take_sent(struct twin *twin)
{
	__u32 from = 0, left;

	left = xsk_ring_cons__peek(&twin->completion, 2 * RING, &from);
	for (__u32 i = 0; i < left; i++)
		twin->idle[twin->idle_count++] = *xsk_ring_cons__comp_addr(&twin->completion, from++);
	if (left)
		xsk_ring_cons__release(&twin->completion, left);
	count(twin, left, (__u64)left * PACKET);
}

static void send_some(struct twin *twin)
{
	__u32 wanted = twin->idle_count < twin->batch ? twin->idle_count : twin->batch;
	__u32 free = xsk_prod_nb_free(&twin->tx, wanted), to = 0;

	if (wanted > free)
		wanted = free;
	if (wanted && xsk_ring_prod__reserve(&twin->tx, wanted, &to) == wanted) {
		for (__u32 i = 0; i < wanted; i++) {
			struct xdp_desc *packet = xsk_ring_prod__tx_desc(&twin->tx, to++);

			packet->addr = twin->idle[--twin->idle_count];
			packet->len = PACKET;
			packet->options = 0;
		}
		xsk_ring_prod__submit(&twin->tx, wanted);
	}
	if (!twin->spin && !wanted)
		wait_for(twin, POLLOUT, 1);
	else
		wake_tx(twin);
	take_sent(twin);
}

static void give_back_sent(struct twin *twin)
{
	__u32 from = 0, to = 0, left;

	left = xsk_ring_cons__peek(&twin->completion, twin->batch, &from);
	if (!left)
		return;
	if (xsk_ring_prod__reserve(&twin->fill, left, &to) != left)
		die("xsk_ring_prod__reserve", ENOSPC);
	for (__u32 i = 0; i < left; i++)
		*xsk_ring_prod__fill_addr(&twin->fill, to++) = *xsk_ring_cons__comp_addr(&twin->completion, from++);
	xsk_ring_prod__submit(&twin->fill, left);
	xsk_ring_cons__release(&twin->completion, left);
	twin->under_way -= left;
}

static void swap_macs(unsigned char *packet)
{
	unsigned char mac[6];

	memcpy(mac, packet, 6);
	memcpy(packet, packet + 6, 6);
	memcpy(packet + 6, mac, 6);
}

static __u32 send_back(struct twin *twin)
{
	__u32 room = xsk_prod_nb_free(&twin->tx, twin->batch), from = 0, to = 0, got;
	__u64 bytes = 0;

	got = xsk_ring_cons__peek(&twin->rx, room < twin->batch ? room : twin->batch, &from);
	if (!got)
		return 0;
	if (xsk_ring_prod__reserve(&twin->tx, got, &to) != got)
		die("xsk_ring_prod__reserve", ENOSPC);
	for (__u32 i = 0; i < got; i++) {
		const struct xdp_desc *packet = xsk_ring_cons__rx_desc(&twin->rx, from++);
		struct xdp_desc *out = xsk_ring_prod__tx_desc(&twin->tx, to++);

		swap_macs(xsk_umem__get_data(twin->memory, packet->addr));
		out->addr = packet->addr;
		out->len = packet->len;
		out->options = 0;
		bytes += packet->len;
	}
	xsk_ring_prod__submit(&twin->tx, got);
	xsk_ring_cons__release(&twin->rx, got);
	twin->under_way += got;
	twin->since += got;
	count(twin, got, bytes);
	return got;
}

static void forward_some(struct twin *twin)
{
	__u32 got;

	give_back_sent(twin);
	got = send_back(twin);
	if (twin->under_way)
		wake_tx(twin);
	if (got)
		return;
	if (twin->spin)
		wake_fill(twin);
	else
		sleep_some(twin, twin->under_way ? 1 : 100);
}

/* An Ethernet, IPv4 and UDP header from 198.18.0.1 to 198.18.0.2, port 9, as examples/xsk_tx has them. */
static const unsigned char headers[42] = {
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0,
	0x45, 0, 0, PACKET - 14, 0, 0, 0x40, 0, 64, 17, 0xae, 0x93, 198, 18, 0, 1, 198, 18, 0, 2,
	0, 9, 0, 9, 0, PACKET - 34, 0, 0,
};

static void write_all(struct twin *twin)
{
	for (__u32 i = 0; i < FRAMES; i++) {
		twin->idle[i] = (__u64)i * FRAME_SIZE;
		memcpy(twin->memory + twin->idle[i], headers, sizeof(headers));
	}
	twin->idle_count = FRAMES;
}

static void cpu(long long *user, long long *kernel)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	*user = usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec;
	*kernel = usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec;
}

static void tell(const struct twin *twin, const char *verb)
{
	struct xdp_statistics lost = {};
	socklen_t length = sizeof(lost);
	long long user, kernel;
	double end = now(), took = twin->packets ? end - twin->first : 0;

	cpu(&user, &kernel);
	getsockopt(xsk_socket__fd(twin->socket), SOL_XDP, XDP_STATISTICS, &lost, &length);
	printf("%s %llu packets, %llu bytes in %.6f s\n", verb, twin->packets, twin->bytes, took);
	printf("cpu %lld us in the program, %lld us in the kernel\n", user - twin->user, kernel - twin->kernel);
	if (twin->packets)
		printf("first packet %.3f ms after the start\n", (twin->first - twin->opened) * 1e3);
	printf("lost: %llu dropped, %llu since the RX ring was full, %llu times without a frame, %llu bad to send\n",
	       lost.rx_dropped, lost.rx_ring_full, lost.rx_fill_ring_empty_descs, lost.tx_invalid_descs);
}

/* From the call to the first packet, again and again in one process and over the same memory. */
static void open_again(struct twin *twin, const char *interface, int rounds)
{
	__u32 from;

	make_memory(twin);
	while (rounds--) {
		double begin = now();

		/* libxdp expects rings that nobody has used. */
		memset(&twin->fill, 0, sizeof(twin->fill));
		memset(&twin->completion, 0, sizeof(twin->completion));
		memset(&twin->rx, 0, sizeof(twin->rx));
		open_umem(twin);
		fill_all(twin);
		open_socket(twin, interface, true, false);
		while (!xsk_ring_cons__peek(&twin->rx, 1, &from))
			wait_for(twin, POLLIN, 100);
		printf("opened %.3f ms\n", (now() - begin) * 1e3);
		xsk_socket__delete(twin->socket);
		xsk_umem__delete(twin->umem);
		usleep(REST_US);
	}
}

int main(int argc, char **argv)
{
	static struct twin twin;
	struct sigaction action = { .sa_handler = on_signal };
	void (*work)(struct twin *);
	const char *verb;
	struct itimerval timer = {};

	twin.opened = now();
	if (argc == 4 && !strcmp(argv[1], "open")) {
		open_again(&twin, argv[2], atoi(argv[3]));
		return 0;
	}
	if (argc < 6)
		die("twin drop|tx|l2fwd INTERFACE BATCH SECONDS COUNT [spin]", EINVAL);
	twin.batch = atoi(argv[3]);
	twin.limit = strtoull(argv[5], NULL, 10);
	twin.spin = argc > 6;
	make_memory(&twin);
	open_umem(&twin);
	if (!strcmp(argv[1], "tx")) {
		work = send_some;
		verb = "sent";
		write_all(&twin);
		open_socket(&twin, argv[2], false, true);
	} else {
		work = strcmp(argv[1], "drop") ? forward_some : drop_some;
		verb = work == drop_some ? "received" : "forwarded";
		fill_all(&twin);
		open_socket(&twin, argv[2], true, work == forward_some);
	}
	printf("%s of %s, with copies\n", argv[1], argv[2]);
	fflush(stdout);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	timer.it_value.tv_sec = atoi(argv[4]);
	setitimer(ITIMER_REAL, &timer, NULL);
	cpu(&twin.user, &twin.kernel);
	while (!stop)
		work(&twin);
	tell(&twin, verb);
	xsk_socket__delete(twin.socket);
	xsk_umem__delete(twin.umem);
	return 0;
}
