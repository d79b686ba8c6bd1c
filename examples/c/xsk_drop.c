/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Receives the packets of one queue of an interface by an AF_XDP socket, counts them, and drops them.
 *
 * The way of a frame: we give it to the kernel in the fill ring, the kernel puts a packet into it and gives it back in
 * the RX ring, and having looked at it we give it away again. Nobody copies it here.
 *
 * It uses no more than C libxdp has, and runs with that too.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/xsk.h>

#define FRAMES 4096
#define FRAME_SIZE XSK_UMEM__DEFAULT_FRAME_SIZE
#define BATCH 64

static const char usage[] = "usage: xsk_drop [--skb] [--queue N] [--seconds N] [--count N] INTERFACE\n"
			    "\n"
			    "Receives the packets of a queue of INTERFACE and drops them: nobody else sees them. Counts\n"
			    "them every second, and in all at the end, which comes with Ctrl-C.\n"
			    "\n"
			    "  --skb        in the network stack, for drivers without XDP\n"
			    "  --queue N    the queue; 0 if it is not given\n"
			    "  --seconds N  ends after this time\n"
			    "  --count N    ends after so many packets, or a few more\n"
			    "\n"
			    "Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.\n";

struct options {
	const char *interface;
	bool skb;
	__u32 queue;
	__u64 seconds;
	__u64 count;
};

struct receiver {
	void *area;
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons completion; /* of what is sent: not used, but every UMEM has one */
	struct xsk_ring_cons rx;
	__u64 packets;
	__u64 bytes;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* `err` is a negative errno. Returns -1. */
static int failed(const char *what, int err)
{
	fprintf(stderr, "xsk_drop: %s: %s\n", what, strerror(-err));
	return -1;
}

/* A number up to `most` and nothing else. */
static __u64 number(const char *text, __u64 most)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || value > most) {
		fprintf(stderr, "xsk_drop: not a number, or too large: %s\n", text);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "skb", no_argument, NULL, 's' },
		{ "queue", required_argument, NULL, 'q' },
		{ "seconds", required_argument, NULL, 't' },
		{ "count", required_argument, NULL, 'c' },
		{},
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		switch (option) {
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case 's':
			options->skb = true;
			break;
		case 'q':
			options->queue = number(optarg, UINT32_MAX);
			break;
		case 't':
			options->seconds = number(optarg, 1000000);
			break;
		case 'c':
			options->count = number(optarg, UINT64_MAX);
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		exit(2);
	}
	options->interface = argv[optind];
}

static __u64 milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/* The memory, the socket, and all frames to the kernel. What was made is taken down by shut(), also after a failure. */
static int open_receiver(struct receiver *receiver, const struct options *options)
{
	const size_t size = (size_t)FRAMES * FRAME_SIZE;
	/* The fill ring has room for all frames: giving them back never fails. */
	const struct xsk_umem_config umem = { .fill_size = FRAMES, .comp_size = 64, .frame_size = FRAME_SIZE };
	/* The default program is attached with the socket, to the chain of the interface if it has one. */
	const struct xsk_socket_config socket = {
		.rx_size = 2048,
		.xdp_flags = options->skb ? XDP_FLAGS_SKB_MODE : 0,
		.bind_flags = XDP_USE_NEED_WAKEUP,
	};
	__u32 idx, i;
	int err;

	receiver->area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (receiver->area == MAP_FAILED) {
		receiver->area = NULL;
		return failed("memory for packets", -errno);
	}
	err = xsk_umem__create(&receiver->umem, receiver->area, size, &receiver->fill, &receiver->completion, &umem);
	if (err)
		return failed("register the memory", err);
	if (xsk_ring_prod__reserve(&receiver->fill, FRAMES, &idx) != FRAMES)
		return failed("fill ring", -ENOSPC);
	for (i = 0; i < FRAMES; i++)
		*xsk_ring_prod__fill_addr(&receiver->fill, idx + i) = (__u64)i * FRAME_SIZE;
	xsk_ring_prod__submit(&receiver->fill, FRAMES);
	err = xsk_socket__create(&receiver->socket, options->interface, options->queue, receiver->umem, &receiver->rx,
				 NULL, &socket);
	if (err)
		return failed(options->interface, err);
	return 0;
}

/* The socket before its memory. With the last socket of an interface its default program goes too. */
static void shut(struct receiver *receiver)
{
	if (receiver->socket)
		xsk_socket__delete(receiver->socket);
	if (receiver->umem)
		xsk_umem__delete(receiver->umem);
	if (receiver->area)
		munmap(receiver->area, (size_t)FRAMES * FRAME_SIZE);
}

/* What has come, up to a batch; returns how many packets that were. */
static __u32 receive(struct receiver *receiver)
{
	__u32 from, to, i, count = xsk_ring_cons__peek(&receiver->rx, BATCH, &from);

	if (!count)
		return 0;
	/* There is room: these frames are not in it, and it holds all. */
	if (xsk_ring_prod__reserve(&receiver->fill, count, &to) != count) {
		xsk_ring_cons__cancel(&receiver->rx, count);
		return 0;
	}
	for (i = 0; i < count; i++) {
		const struct xdp_desc *packet = xsk_ring_cons__rx_desc(&receiver->rx, from + i);

		/* Here one would look at xsk_umem__get_data(receiver->area, packet->addr). */
		receiver->bytes += packet->len;
		*xsk_ring_prod__fill_addr(&receiver->fill, to + i) = packet->addr;
	}
	xsk_ring_prod__submit(&receiver->fill, count);
	xsk_ring_cons__release(&receiver->rx, count);
	receiver->packets += count;
	return count;
}

/* Waits for packets, for up to `timeout` milliseconds. The call also wakes a driver that waits for frames. */
static int wait_for_packets(struct receiver *receiver, int timeout)
{
	struct pollfd poller = { .fd = xsk_socket__fd(receiver->socket), .events = POLLIN };

	if (poll(&poller, 1, timeout) < 0 && errno != EINTR)
		return failed("wait", -errno);
	/* The interface is down, or gone. */
	if (poller.revents & (POLLERR | POLLHUP | POLLNVAL))
		return failed("wait", -ENETDOWN);
	return 0;
}

static int run(struct receiver *receiver, const struct options *options)
{
	__u64 start = milliseconds(), told = start, before = 0, now;

	while (!interrupted && (!options->count || receiver->packets < options->count)) {
		now = milliseconds();
		if (options->seconds && now - start >= options->seconds * 1000)
			break;
		if (now - told >= 1000) {
			printf("%llu packets/s\n", (receiver->packets - before) * 1000 / (now - told));
			fflush(stdout);
			before = receiver->packets;
			told = now;
		}
		if (!receive(receiver) && wait_for_packets(receiver, 100))
			return -1;
	}
	return 0;
}

static void summary(const struct receiver *receiver)
{
	struct xdp_statistics lost = {};
	socklen_t size = sizeof(lost);

	printf("received: %llu packets, %llu bytes\n", receiver->packets, receiver->bytes);
	if (getsockopt(xsk_socket__fd(receiver->socket), SOL_XDP, XDP_STATISTICS, &lost, &size))
		return;
	printf("lost: %llu for want of room in the RX ring, %llu for other reasons\n",
	       (unsigned long long)lost.rx_ring_full, (unsigned long long)lost.rx_dropped);
}

int main(int argc, char **argv)
{
	const struct sigaction end = { .sa_handler = interrupt };
	struct options options = {};
	struct receiver receiver = {};
	int err;

	parse(argc, argv, &options);
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	err = open_receiver(&receiver, &options);
	if (!err) {
		printf("receiving on %s, queue %u\n", options.interface, options.queue);
		fflush(stdout);
		err = run(&receiver, &options);
		summary(&receiver);
	}
	shut(&receiver);
	return err ? 1 : 0;
}
