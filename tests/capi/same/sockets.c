/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* AF_XDP: UMEMs, sockets, their rings and the default program, with real packets. Run by tests/capi.rs in the root of the
 * checkout, in a namespace with the interfaces `uplink` (10) and `second` (11), which has one queue only; the second argument is the namespace at the
 * other end of the wire.
 */
#include "say.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#ifndef XDP_UMEM_UNALIGNED_CHUNK_FLAG
#define XDP_UMEM_UNALIGNED_CHUNK_FLAG (1 << 0)
#endif

#define FRAMES 64
#define FRAME 4096
#define SIZE (FRAMES * FRAME)

enum { UPLINK = 10, SECOND = 11 };

#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#define XDP_PKT_CONTD (1 << 0)
#endif

static const char *far, *wire = "wire";
static struct xsk_umem *umem;
static struct xsk_socket *sock;
static struct xsk_ring_prod fill, tx;
static struct xsk_ring_cons comp, rx;
static char *area;

/* What 1.6 has beyond the headers that this is compiled with. */
struct umem_opts {
	size_t sz;
	int fd;
	__u64 size;
	__u32 fill_size, comp_size, frame_size, frame_headroom, flags, tx_metadata_len;
};

struct socket_opts {
	size_t sz;
	struct xsk_ring_cons *rx;
	struct xsk_ring_prod *tx, *fill;
	struct xsk_ring_cons *comp;
	__u32 rx_size, tx_size, libxdp_flags, xdp_flags;
	__u16 bind_flags;
};

static struct xsk_umem *(*umem_create_opts)(void *, struct xsk_ring_prod *, struct xsk_ring_cons *, struct umem_opts *);
static struct xsk_socket *(*socket_create_opts)(const char *, __u32, struct xsk_umem *, struct socket_opts *);
static int (*umem_create_with_fd)(struct xsk_umem **, int, void *, __u64, struct xsk_ring_prod *, struct xsk_ring_cons *,
				  const struct xsk_umem_config *);

static void *memory(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static const struct xsk_umem_config small = {
	.fill_size = 64, .comp_size = 32, .frame_size = FRAME, .frame_headroom = 0, .flags = 0,
};

/* Without the default program, in copy mode. */
static const struct xsk_socket_config plain = {
	.rx_size = 64, .tx_size = 32, .libbpf_flags = XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD, .bind_flags = XDP_COPY,
};

/* With it. */
static const struct xsk_socket_config program = {
	.rx_size = 64, .tx_size = 32, .bind_flags = XDP_COPY, .xdp_flags = XDP_FLAGS_SKB_MODE,
};

/* What a caller sees of a ring; the two kinds have the same members. */
#define RING(r) do { \
		if (r.producer) \
			printf(#r " = cached_prod %u, cached_cons %u, mask %#x, size %u, producer %u, consumer %u, flags %u, %s\n", \
			       r.cached_prod, r.cached_cons, r.mask, r.size, *r.producer, *r.consumer, *r.flags, \
			       r.ring ? "entries" : "no entries"); \
		else \
			printf(#r " = none\n"); \
	} while (0)

static const struct xsk_umem_config *wanted = &small;

static int make_quietly(void)
{
	umem = NULL;
	sock = NULL;
	memset(&fill, 0, sizeof(fill));
	memset(&comp, 0, sizeof(comp));
	memset(&rx, 0, sizeof(rx));
	memset(&tx, 0, sizeof(tx));
	return FRESH(xsk_umem__create(&umem, area, SIZE, &fill, &comp, wanted));
}

static void make(void)
{
	say_int("xsk_umem__create(&umem, area, SIZE, &fill, &comp, wanted)", make_quietly());
}

/* The kernel lets go of a queue a while after the last socket was closed: then a new UMEM tries again. */
static bool is_busy(int result, int *tries)
{
	if (result != -EBUSY || ++*tries > 200)
		return false;
	xsk_umem__delete(umem);
	usleep(20000);
	return !make_quietly();
}

#define BIND(call) do { \
		int result_, tries_ = 0; \
		do \
			result_ = FRESH(call); \
		while (is_busy(result_, &tries_)); \
		say_int(#call, result_); \
	} while (0)

#define DELETE() do { \
		VOID(xsk_socket__delete(sock)); \
		INT(xsk_umem__delete(umem)); \
	} while (0)

/* ---- the memory ---- */

static void with(const char *what, __u64 size, int offset, struct xsk_umem_config config)
{
	printf("-- %s\n", what);
	umem = NULL;
	memset(&fill, 0, sizeof(fill));
	memset(&comp, 0, sizeof(comp));
	INT(xsk_umem__create(&umem, area + offset, size, &fill, &comp, &config));
	RING(fill);
	RING(comp);
	if (umem)
		INT(xsk_umem__delete(umem));
	else
		say("xsk_umem__delete(umem)", "there is none");
}


static void umems(void)
{
	struct xsk_umem_config config = small;

	umem = NULL;
	INT(xsk_umem__create(&umem, area, SIZE, &fill, &comp, NULL));
	RING(fill);
	RING(comp);
	FD(xsk_umem__fd(umem));
	INT(xsk_umem__delete(umem));
	with("sizes of rings", SIZE, 0, config);
	with("one frame", FRAME, 0, config);
	with("no memory", 0, 0, config);
	with("no memory, not at a page", 0, 8, config);
	with("not at a page", FRAME, 8, config);
	with("not a multiple", SIZE - 1, 0, config);
	with("half a frame", FRAME / 2, 0, config);
	with("huge", 1ULL << 62, 0, config);
	config.fill_size = 100;
	with("a fill ring of 100", SIZE, 0, config);
	config.fill_size = 0;
	with("a fill ring of 0", SIZE, 0, config);
	config.fill_size = 1;
	with("a fill ring of 1", SIZE, 0, config);
	config.fill_size = 1U << 20;
	with("a fill ring of 2^20", SIZE, 0, config);
	config.fill_size = 64;
	config.comp_size = 3;
	with("a completion ring of 3", SIZE, 0, config);
	config.comp_size = 0;
	with("a completion ring of 0", SIZE, 0, config);
	config.comp_size = 32;
	config.frame_size = 2048;
	with("frames of 2048", SIZE, 0, config);
	config.frame_size = 1000;
	with("frames of 1000", SIZE, 0, config);
	config.frame_size = 1024;
	with("frames of 1024", SIZE, 0, config);
	config.frame_size = 8192;
	with("frames of 8192", SIZE, 0, config);
	config.frame_size = 3000;
	config.flags = XDP_UMEM_UNALIGNED_CHUNK_FLAG;
	with("unaligned frames of 3000", SIZE, 0, config);
	config.flags = 1 << 30;
	config.frame_size = FRAME;
	with("flags that are not there", SIZE, 0, config);
	config.flags = 0;
	config.frame_headroom = 256;
	with("a headroom of 256", SIZE, 0, config);
	config.frame_headroom = FRAME;
	with("a headroom of a frame", SIZE, 0, config);
	say_part("garbage");
	umem = NULL;
	TRY(INT, xsk_umem__create(NULL, area, SIZE, &fill, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, NULL, SIZE, &fill, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, NULL, 0, &fill, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, area, SIZE, NULL, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, area, SIZE, &fill, NULL, NULL));
	TRY(INT, xsk_umem__create(&umem, ERROR, SIZE, &fill, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, area, SIZE, ERROR, &comp, NULL));
	TRY(INT, xsk_umem__create(&umem, area, SIZE, &fill, ERROR, NULL));
	TRY(INT, xsk_umem__create(&umem, area, SIZE, &fill, &comp, ERROR));
	TRY(INT, xsk_umem__create(ERROR, area, SIZE, &fill, &comp, NULL));
	TRY(INT, xsk_umem__delete(NULL));
	TRY(INT, xsk_umem__delete(ERROR));
	TRY(INT, xsk_umem__fd(NULL));
	TRY(INT, xsk_umem__fd(ERROR));
	say_part("rings that are not zeroed");
	memset(&fill, 0x55, sizeof(fill));
	memset(&comp, 0x55, sizeof(comp));
	INT(xsk_umem__create(&umem, area, SIZE, &fill, &comp, &small));
	RING(fill);
	RING(comp);
	INT(xsk_umem__delete(umem));
}

/* ---- sockets ---- */

static void sockets(void)
{
	struct xsk_socket_config config = plain;

	say_part("both rings");
	make();
	sock = NULL;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	RING(rx);
	RING(tx);
	RING(fill);
	RING(comp);
	FD(xsk_socket__fd(sock));
	BOOL(xsk_socket__fd(sock) == xsk_umem__fd(umem));
	INT(fcntl(xsk_socket__fd(sock), F_GETFD));
	INT(xsk_umem__delete(umem));
	DELETE();
	say_part("RX alone");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, NULL, &config));
	RING(rx);
	DELETE();
	say_part("TX alone");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 1, umem, NULL, &tx, &config));
	RING(tx);
	DELETE();
	say_part("neither");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, NULL, NULL, &config));
	INT(xsk_umem__delete(umem));
	say_part("no such interface");
	make();
	INT(xsk_socket__create(&sock, "nobody", 0, umem, &rx, &tx, &config));
	INT(xsk_socket__create(&sock, "", 0, umem, &rx, &tx, &config));
	INT(xsk_socket__create(&sock, "a-name-that-is-longer-than-any", 0, umem, &rx, &tx, &config));
	INT(xsk_umem__delete(umem));
	say_part("no such queue, then one that is there");
	make();
	INT(xsk_socket__create(&sock, "uplink", 9, umem, &rx, &tx, &config));
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	DELETE();
	say_part("sizes of rings");
	make();
	config.rx_size = 100;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_umem__delete(umem));
	make();
	config.rx_size = 0;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, NULL, &config));
	DELETE();
	say_part("flags");
	config = plain;
	config.libbpf_flags = 1 << 1;
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	config = plain;
	config.bind_flags = XDP_COPY | XDP_ZEROCOPY;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_umem__delete(umem));
	make();
	config.bind_flags = XDP_ZEROCOPY;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_umem__delete(umem));
	make();
	config.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	RING(fill);
	RING(tx);
	INT(!!xsk_ring_prod__needs_wakeup(&tx));
	DELETE();
	say_part("no configuration, and no program");
	make();
	INT(xsk_socket__create(&sock, "nobody", 0, umem, &rx, &tx, NULL));
	INT(xsk_umem__delete(umem));
	say_part("garbage");
	make();
	TRY(INT, xsk_socket__create(NULL, "uplink", 0, umem, &rx, &tx, &plain));
	TRY(INT, xsk_socket__create(&sock, NULL, 0, umem, &rx, &tx, &plain));
	TRY(INT, xsk_socket__create(&sock, "uplink", 0, NULL, &rx, &tx, &plain));
	TRY(INT, xsk_socket__create(&sock, "uplink", 0, ERROR, &rx, &tx, &plain));
	TRY(INT, xsk_socket__create_shared(&sock, "uplink", 0, umem, &rx, &tx, NULL, &comp, &plain));
	TRY(INT, xsk_socket__create_shared(&sock, "uplink", 0, umem, &rx, &tx, &fill, NULL, &plain));
	TRY(INT, xsk_socket__create_shared(NULL, "uplink", 0, umem, &rx, &tx, &fill, &comp, &plain));
	TRY(VOID, xsk_socket__delete(NULL));
	TRY(INT, xsk_socket__fd(NULL));
	TRY(INT, xsk_socket__update_xskmap(NULL, 0));
	TRY(VOID, xsk_socket__delete(ERROR));
	TRY(INT, xsk_socket__fd(ERROR));
	TRY(INT, xsk_socket__update_xskmap(ERROR, 0));
	INT(xsk_umem__delete(umem));
	say_part("shared, without rings");
	make();
	BIND(xsk_socket__create_shared(&sock, "uplink", 0, umem, &rx, &tx, NULL, NULL, &plain));
	DELETE();
}

/* More than one socket of a UMEM. */
static void shared(void)
{
	struct xsk_ring_prod fill2 = {}, tx2 = {};
	struct xsk_ring_cons comp2 = {}, rx2 = {};
	struct xsk_socket *other = NULL;

	say_part("the same queue");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	INT(xsk_socket__create(&other, "uplink", 0, umem, &rx2, &tx2, &plain));
	RING(rx2);
	RING(tx2);
	BOOL(xsk_socket__fd(other) != xsk_socket__fd(sock));
	VOID(xsk_socket__delete(other));
	INT(xsk_umem__delete(umem));
	DELETE();
	say_part("the same queue, the first goes first");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	INT(xsk_socket__create(&other, "uplink", 0, umem, &rx2, &tx2, &plain));
	VOID(xsk_socket__delete(sock));
	INT(xsk_umem__delete(umem));
	VOID(xsk_socket__delete(other));
	INT(xsk_umem__delete(umem));
	say_part("another queue, without rings");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	INT(xsk_socket__create(&other, "uplink", 1, umem, &rx2, &tx2, &plain));
	say_part("with rings");
	INT(xsk_socket__create_shared(&other, "uplink", 1, umem, &rx2, &tx2, &fill2, &comp2, &plain));
	RING(fill2);
	RING(comp2);
	RING(rx2);
	RING(tx2);
	VOID(xsk_socket__delete(other));
	say_part("another interface");
	memset(&rx2, 0, sizeof(rx2));
	memset(&tx2, 0, sizeof(tx2));
	memset(&comp2, 0, sizeof(comp2));
	memset(&fill2, 0, sizeof(fill2));
	INT(xsk_socket__create_shared(&other, "second", 0, umem, &rx2, &tx2, &fill2, &comp2, &plain));
	RING(fill2);
	VOID(xsk_socket__delete(other));
	DELETE();
	say_part("the first with rings of its own");
	make();
	BIND(xsk_socket__create_shared(&sock, "uplink", 0, umem, &rx, &tx, &fill2, &comp2, &plain));
	RING(fill2);
	RING(comp2);
	DELETE();
}

/* ---- the default program ---- */

static void say_maps(void)
{
	struct xdp_multiprog *multiprog = xdp_multiprog__get_from_ifindex(UPLINK);

	printf("interface = ");
	if (good(multiprog)) {
		/* The name of the program alone: its code is not the same in all versions. */
		printf("%s, %s, %s\n", mode_name(xdp_multiprog__attach_mode(multiprog)),
		       xdp_multiprog__is_legacy(multiprog) ? "alone" : "chain",
		       xdp_program__name(xdp_multiprog__is_legacy(multiprog) ? xdp_multiprog__main_prog(multiprog) :
					 xdp_multiprog__next_prog(NULL, multiprog)));
		xdp_multiprog__close(multiprog);
	} else {
		printf("nothing\n");
	}
}

static void default_program(void)
{
	struct xsk_ring_prod fill2 = {}, tx2 = {};
	struct xsk_ring_cons comp2 = {}, rx2 = {};
	struct xsk_socket_config config = program;
	struct xsk_socket *other = NULL;
	int map = -7;

	say_part("one socket");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	say_maps();
	DELETE();
	say_maps();
	say_part("two sockets");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_socket__create_shared(&other, "uplink", 1, umem, &rx2, &tx2, &fill2, &comp2, &config));
	say_maps();
	VOID(xsk_socket__delete(sock));
	say_maps();
	VOID(xsk_socket__delete(other));
	say_maps();
	INT(xsk_umem__delete(umem));
	say_part("native");
	config.xdp_flags = 0;
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	say_maps();
	DELETE();
	say_part("put on by itself");
	FD(xsk_setup_xdp_prog(UPLINK, &map));
	BOOL(map >= 0);
	say_maps();
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	INT(xsk_socket__update_xskmap(sock, map));
	INT(xsk_socket__update_xskmap(sock, -1));
	INT(xsk_socket__update_xskmap(sock, 12345));
	INT(xsk_socket__update_xskmap(sock, xsk_socket__fd(sock)));
	DELETE();
	say_maps();
	INT(xsk_setup_xdp_prog(0, &map));
	INT(xsk_setup_xdp_prog(-1, &map));
	INT(xsk_setup_xdp_prog(12345, &map));
	say_part("it runs in another mode than the one asked for");
	make();
	BIND(xsk_socket__create(&sock, "second", 0, umem, &rx, &tx, &program));
	INT(xsk_setup_xdp_prog(SECOND, &map));
	DELETE();
	make();
	BIND(xsk_socket__create(&sock, "second", 0, umem, &rx, &tx, &config));
	DELETE();
}

/* Something else is there. */
static void occupied(void)
{
	struct bpf_object *object = bpf_object__open_file("tests/bpf/prebuilt/xdp_drop.o", NULL);
	struct bpf_object *own = bpf_object__open_file("tests/bpf/prebuilt/xsk_redirect.o", NULL);
	int fd, map = -1;

	bpf_object__load(object);
	fd = bpf_program__fd(bpf_object__next_program(object, NULL));
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_SKB_MODE, NULL));
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	DELETE();
	make();
	INT(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &program));
	INT(xsk_umem__delete(umem));
	INT(xsk_setup_xdp_prog(UPLINK, &map));
	INT(bpf_xdp_detach(UPLINK, XDP_FLAGS_SKB_MODE, NULL));
	bpf_object__close(object);
	say_part("a program of the caller's, and its map");
	bpf_object__load(own);
	fd = bpf_program__fd(bpf_object__find_program_by_name(own, "xsk_redirect"));
	map = bpf_map__fd(bpf_object__find_map_by_name(own, "xsks"));
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_SKB_MODE, NULL));
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &plain));
	INT(xsk_socket__update_xskmap(sock, map));
	DELETE();
	INT(bpf_xdp_detach(UPLINK, XDP_FLAGS_SKB_MODE, NULL));
	bpf_object__close(own);
}

/* ---- packets ---- */

#define TYPE 0x88b5 /* for experiments */

/* A socket at the other end of the wire. */
static int open_far(void)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(TYPE) };
	int own = open("/proc/self/ns/net", O_RDONLY), other = open(far, O_RDONLY), fd = -1;

	if (!setns(other, CLONE_NEWNET)) {
		fd = socket(AF_PACKET, SOCK_RAW, htons(TYPE));
		address.sll_ifindex = if_nametoindex(wire);
		if (bind(fd, (void *)&address, sizeof(address)))
			fd = -1;
	}
	if (setns(own, CLONE_NEWNET))
		exit(5);
	close(own);
	close(other);
	return fd;
}

static void packet(unsigned char *to, unsigned int length, unsigned int number)
{
	static const unsigned char head[14] = { 2, 0, 0, 0, 0x77, 1, 2, 0, 0, 0, 0x77, 2, TYPE >> 8, TYPE & 255 };
	unsigned int i;

	memcpy(to, head, sizeof(head));
	for (i = sizeof(head); i < length; i++)
		to[i] = i * 7 + number;
}

static bool soon(bool (*condition)(void))
{
	int i;

	for (i = 0; i < 400; i++) {
		if (condition())
			return true;
		usleep(5000);
	}
	return false;
}

static bool has_received(void)
{
	return *rx.producer != *rx.consumer;
}

static bool has_completed(void)
{
	return *comp.producer != *comp.consumer;
}

/* `count` packets in each direction, one by one; more than any ring has room for. */
static void exchange(unsigned int count, unsigned int headroom)
{
	unsigned int i, at = 0, received = 0, right = 0, sent = 0, seen = 0, length;
	unsigned char bytes[2048], got[2048];
	const struct xdp_desc *desc;
	int peer = open_far();
	__u64 address;

	NUMBER(xsk_ring_prod__reserve(&fill, 32, &at));
	for (i = 0; i < 32; i++)
		*xsk_ring_prod__fill_addr(&fill, at + i) = i * FRAME;
	xsk_ring_prod__submit(&fill, 32);
	for (i = 0; i < count; i++) {
		length = 60 + i % 5 * 300;
		packet(bytes, length, i);
		if (send(peer, bytes, length, 0) != (int)length || !soon(has_received))
			break;
		if (xsk_ring_cons__peek(&rx, 1, &at) != 1)
			break;
		received++;
		desc = xsk_ring_cons__rx_desc(&rx, at);
		address = desc->addr;
		right += desc->len == length && address % FRAME == 256 + headroom &&
			 !memcmp(xsk_umem__get_data(area, address), bytes, length);
		xsk_ring_cons__release(&rx, 1);
		if (!xsk_ring_prod__reserve(&fill, 1, &at))
			break;
		*xsk_ring_prod__fill_addr(&fill, at) = address / FRAME * FRAME;
		xsk_ring_prod__submit(&fill, 1);
	}
	printf("received = %u, right %u\n", received, right);
	for (i = 0; i < count; i++) {
		length = 60 + i % 5 * 300;
		packet(bytes, length, i);
		if (xsk_ring_prod__reserve(&tx, 1, &at) != 1)
			break;
		address = 40 * FRAME + i % 2 * FRAME;
		memcpy(xsk_umem__get_data(area, address), bytes, length);
		*xsk_ring_prod__tx_desc(&tx, at) = (struct xdp_desc){ .addr = address, .len = length };
		xsk_ring_prod__submit(&tx, 1);
		sendto(xsk_socket__fd(sock), NULL, 0, MSG_DONTWAIT, NULL, 0);
		if (!soon(has_completed) || xsk_ring_cons__peek(&comp, 1, &at) != 1)
			break;
		sent += *xsk_ring_cons__comp_addr(&comp, at) == address;
		xsk_ring_cons__release(&comp, 1);
		seen += recv(peer, got, sizeof(got), 0) == (int)length && !memcmp(got, bytes, length);
	}
	printf("sent = %u, seen %u\n", sent, seen);
	close(peer);
}

static void traffic(void)
{
	struct bpf_object *own = bpf_object__open_file("tests/bpf/prebuilt/xsk_redirect.o", NULL);
	struct xsk_umem_config headroom = small;
	struct xsk_socket_config config = program;
	int fd, map;

	/* The wires have settled. */
	usleep(200000);
	say_part("with the default program");
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	exchange(200, 0);
	RING(rx);
	RING(tx);
	RING(comp);
	DELETE();
	say_part("with a program of the caller's");
	bpf_object__load(own);
	fd = bpf_program__fd(bpf_object__find_program_by_name(own, "xsk_redirect"));
	map = bpf_map__fd(bpf_object__find_map_by_name(own, "xsks"));
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_SKB_MODE, NULL));
	make();
	config = plain;
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_socket__update_xskmap(sock, map));
	exchange(100, 0);
	DELETE();
	say_part("with a headroom");
	headroom.frame_headroom = 128;
	wanted = &headroom;
	make();
	BIND(xsk_socket__create(&sock, "uplink", 0, umem, &rx, &tx, &config));
	INT(xsk_socket__update_xskmap(sock, map));
	exchange(40, 128);
	DELETE();
	INT(bpf_xdp_detach(UPLINK, XDP_FLAGS_SKB_MODE, NULL));
	bpf_object__close(own);
}

/* At both ends of the wire. */
static void set_mtu(int mtu)
{
	struct ifreq request = { .ifr_name = "second", .ifr_mtu = mtu };
	int own = open("/proc/self/ns/net", O_RDONLY), other = open(far, O_RDONLY), fd = socket(AF_INET, SOCK_DGRAM, 0);

	INT(ioctl(fd, SIOCSIFMTU, &request));
	close(fd);
	if (setns(other, CLONE_NEWNET))
		exit(5);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	strcpy(request.ifr_name, wire);
	INT(ioctl(fd, SIOCSIFMTU, &request));
	close(fd);
	if (setns(own, CLONE_NEWNET))
		exit(5);
	close(own);
	close(other);
}

/* A packet that no frame has room for, in each direction. */
static void exchange_large(void)
{
	static unsigned char bytes[8500], got[9500];
	unsigned int i, at = 0, length = 0, count, right = 0;
	const struct xdp_desc *desc;
	int peer = open_far();

	packet(bytes, sizeof(bytes), 3);
	NUMBER(xsk_ring_prod__reserve(&fill, 32, &at));
	for (i = 0; i < 32; i++)
		*xsk_ring_prod__fill_addr(&fill, at + i) = i * FRAME;
	xsk_ring_prod__submit(&fill, 32);
	if (send(peer, bytes, sizeof(bytes), 0) != sizeof(bytes) || !soon(has_received))
		say("a large packet", "nothing");
	usleep(50000);
	count = xsk_ring_cons__peek(&rx, 32, &at);
	for (i = 0; i < count; i++) {
		desc = xsk_ring_cons__rx_desc(&rx, at + i);
		printf("piece = %u bytes, options %u\n", desc->len, desc->options);
		right += length + desc->len <= sizeof(bytes) &&
			 !memcmp(xsk_umem__get_data(area, desc->addr), bytes + length, desc->len);
		length += desc->len;
	}
	xsk_ring_cons__release(&rx, count);
	printf("received = %u bytes in %u pieces, right %u\n", length, count, right);
	/* In three pieces. */
	NUMBER(xsk_ring_prod__reserve(&tx, 3, &at));
	for (i = 0, length = 0; i < 3; i++) {
		unsigned int part = i < 2 ? 4000 : sizeof(bytes) - length;
		__u64 address = (40 + i) * FRAME;

		memcpy(xsk_umem__get_data(area, address), bytes + length, part);
		*xsk_ring_prod__tx_desc(&tx, at + i) =
			(struct xdp_desc){ .addr = address, .len = part, .options = i < 2 ? XDP_PKT_CONTD : 0 };
		length += part;
	}
	xsk_ring_prod__submit(&tx, 3);
	INT(sendto(xsk_socket__fd(sock), NULL, 0, MSG_DONTWAIT, NULL, 0));
	if (!soon(has_completed))
		say("completions", "none");
	usleep(50000);
	NUMBER(xsk_ring_cons__peek(&comp, 32, &at));
	length = recv(peer, got, sizeof(got), MSG_DONTWAIT);
	printf("sent = %d bytes, right %d\n", length, length == sizeof(bytes) && !memcmp(got, bytes, sizeof(bytes)));
	close(peer);
}

/* Packets in several frames each: with the default program, and with one of the caller's in the driver. */
static void pieces(void)
{
	struct bpf_object *own = bpf_object__open_file("tests/bpf/prebuilt/xsk_redirect.o", NULL);
	struct bpf_program *redirect = bpf_object__find_program_by_name(own, "xsk_redirect");
	struct xsk_socket_config config = program;
	int map;

	wire = "second-wire";
	set_mtu(9000);
	usleep(200000);
	say_part("skb");
	config.bind_flags = XDP_COPY | XDP_USE_SG;
	make();
	BIND(xsk_socket__create(&sock, "second", 0, umem, &rx, &tx, &config));
	if (sock)
		exchange_large();
	DELETE();
	say_part("native");
	INT(bpf_program__set_flags(redirect, BPF_F_XDP_HAS_FRAGS));
	INT(bpf_object__load(own));
	INT(bpf_xdp_attach(SECOND, bpf_program__fd(redirect), XDP_FLAGS_DRV_MODE, NULL));
	config = plain;
	config.bind_flags = XDP_COPY | XDP_USE_SG;
	make();
	BIND(xsk_socket__create(&sock, "second", 0, umem, &rx, &tx, &config));
	if (sock) {
		map = bpf_map__fd(bpf_object__find_map_by_name(own, "xsks"));
		INT(xsk_socket__update_xskmap(sock, map));
		exchange_large();
	}
	DELETE();
	INT(bpf_xdp_detach(SECOND, XDP_FLAGS_DRV_MODE, NULL));
	bpf_object__close(own);
}

/* Whether the default program can be put on for such packets. */
static void native_pieces(void)
{
	struct xsk_socket_config config = program;

	wire = "second-wire";
	set_mtu(9000);
	config.bind_flags = XDP_COPY | XDP_USE_SG;
	config.xdp_flags = XDP_FLAGS_DRV_MODE;
	make();
	BIND(xsk_socket__create(&sock, "second", 0, umem, &rx, &tx, &config));
	DELETE();
}

/* Between two network cards, whose far end is in the same namespace. */
static void zero_copy(void)
{
	struct xsk_socket_config config = program;
	int result = 0;

	wire = "eth1";
	config.bind_flags = XDP_ZEROCOPY;
	config.xdp_flags = XDP_FLAGS_DRV_MODE;
	make();
	BIND((result = xsk_socket__create(&sock, "eth0", 0, umem, &rx, &tx, &config)));
	if (!result) {
		struct xdp_options options = {};
		socklen_t length = sizeof(options);

		INT(getsockopt(xsk_socket__fd(sock), SOL_XDP, XDP_OPTIONS, &options, &length));
		BOOL(options.flags & XDP_OPTIONS_ZEROCOPY);
		exchange(200, 0);
		VOID(xsk_socket__delete(sock));
	}
	INT(xsk_umem__delete(umem));
}

/* ---- the functions as the library has them, called through pointers ---- */

static void rings(void)
{
	__u32 (*reserve)(struct xsk_ring_prod *, __u32, __u32 *) = dlsym(RTLD_DEFAULT, "xsk_ring_prod__reserve");
	void (*submit)(struct xsk_ring_prod *, __u32) = dlsym(RTLD_DEFAULT, "xsk_ring_prod__submit");
	__u32 (*nb_free)(struct xsk_ring_prod *, __u32) = dlsym(RTLD_DEFAULT, "xsk_prod_nb_free");
	__u32 (*peek)(struct xsk_ring_cons *, __u32, __u32 *) = dlsym(RTLD_DEFAULT, "xsk_ring_cons__peek");
	__u32 (*nb_avail)(struct xsk_ring_cons *, __u32) = dlsym(RTLD_DEFAULT, "xsk_cons_nb_avail");
	void (*cancel)(struct xsk_ring_cons *, __u32) = dlsym(RTLD_DEFAULT, "xsk_ring_cons__cancel");
	void (*release)(struct xsk_ring_cons *, __u32) = dlsym(RTLD_DEFAULT, "xsk_ring_cons__release");
	__u64 (*extract_addr)(__u64) = dlsym(RTLD_DEFAULT, "xsk_umem__extract_addr");
	__u64 (*extract_offset)(__u64) = dlsym(RTLD_DEFAULT, "xsk_umem__extract_offset");
	__u64 (*add_offset)(__u64) = dlsym(RTLD_DEFAULT, "xsk_umem__add_offset_to_addr");
	__u32 at = 77;

	make();
	NUMBER(reserve(&fill, 65, &at));
	NUMBER(at);
	NUMBER(reserve(&fill, 60, &at));
	NUMBER(at);
	NUMBER(reserve(&fill, 5, &at));
	NUMBER(nb_free(&fill, 5));
	NUMBER(nb_free(&fill, 0));
	submit(&fill, 60);
	RING(fill);
	NUMBER(peek(&comp, 5, &at));
	NUMBER(nb_avail(&comp, 5));
	/* As the kernel would. */
	*comp.producer += 5;
	NUMBER(nb_avail(&comp, 3));
	NUMBER(peek(&comp, 3, &at));
	NUMBER(at);
	NUMBER(peek(&comp, 9, &at));
	NUMBER(at);
	cancel(&comp, 2);
	release(&comp, 3);
	RING(comp);
	INT(xsk_umem__delete(umem));
	say("extract_addr", "%#llx", (unsigned long long)extract_addr(0x123456789abcdef0ULL));
	say("extract_offset", "%#llx", (unsigned long long)extract_offset(0x123456789abcdef0ULL));
	say("add_offset_to_addr", "%#llx", (unsigned long long)add_offset(0x123456789abcdef0ULL));
}

/* ---- what 1.6 has ---- */

static const struct umem_opts usual = {
	.sz = sizeof(usual), .size = SIZE, .fill_size = 64, .comp_size = 32, .frame_size = FRAME,
};

static void make_with(const char *what, struct umem_opts opts)
{
	printf("-- %s\n", what);
	memset(&fill, 0, sizeof(fill));
	memset(&comp, 0, sizeof(comp));
	umem = POINTER(umem_create_opts(area, &fill, &comp, &opts));
	RING(fill);
	RING(comp);
	if (umem)
		INT(xsk_umem__delete(umem));
	else
		say("xsk_umem__delete(umem)", "there is none");
}

static void options(void)
{
	struct umem_opts opts = usual;
	struct {
		struct umem_opts opts;
		char tail[64];
	} longer = { .opts = usual };
	struct socket_opts of_socket = {
		.sz = sizeof(of_socket), .rx = &rx, .tx = &tx, .rx_size = 64, .tx_size = 32, .libxdp_flags = 1,
		.bind_flags = XDP_COPY,
	};
	struct socket_opts other = of_socket;
	int fd;

	umem_create_opts = dlsym(RTLD_DEFAULT, "xsk_umem__create_opts");
	socket_create_opts = dlsym(RTLD_DEFAULT, "xsk_socket__create_opts");
	umem_create_with_fd = dlsym(RTLD_DEFAULT, "xsk_umem__create_with_fd");
	make_with("as usual", usual);
	make_with("defaults", (struct umem_opts){ .sz = sizeof(opts), .size = SIZE });
	make_with("without a size", (struct umem_opts){ .sz = sizeof(opts), .frame_size = FRAME });
	opts.sz = 24;
	make_with("short", opts);
	opts.sz = 4;
	make_with("too short", opts);
	opts.sz = 20;
	make_with("half of a size", opts);
	opts = usual;
	opts.size = SIZE + 1;
	make_with("not a multiple", opts);
	opts = usual;
	opts.fill_size = 5;
	make_with("a fill ring of 5", opts);
	opts = usual;
	opts.fd = 12345;
	make_with("no such descriptor", opts);
	opts.fd = -5;
	make_with("a negative descriptor", opts);
	opts.fd = socket(AF_XDP, SOCK_RAW, 0);
	make_with("a descriptor", opts);
	FD(fcntl(opts.fd, F_GETFD));
	opts.fd = socket(AF_INET, SOCK_DGRAM, 0);
	make_with("a descriptor of another kind", opts);
	FD(fcntl(opts.fd, F_GETFD));
	opts = usual;
	opts.tx_metadata_len = 16;
	make_with("with metadata", opts);
	opts.tx_metadata_len = 13;
	make_with("with odd metadata, and no flag", opts);
	opts.flags = 1 << 2;
	make_with("with odd metadata", opts);
	opts.tx_metadata_len = 16;
	make_with("with metadata, and the flag", opts);
	longer.opts.sz = sizeof(longer);
	say_part("longer");
	umem = POINTER(umem_create_opts(area, &fill, &comp, &longer.opts));
	if (umem)
		INT(xsk_umem__delete(umem));
	longer.tail[60] = 1;
	umem = POINTER(umem_create_opts(area, &fill, &comp, &longer.opts));
	TRY(POINTER, umem_create_opts(area, &fill, &comp, NULL));
	TRY(POINTER, umem_create_opts(NULL, &fill, &comp, &opts));
	TRY(POINTER, umem_create_opts(area, NULL, &comp, &opts));
	TRY(POINTER, umem_create_opts(area, &fill, NULL, &opts));
	say_part("xsk_umem__create_with_fd");
	fd = socket(AF_XDP, SOCK_RAW, 0);
	INT(umem_create_with_fd(&umem, fd, area, SIZE, &fill, &comp, &small));
	BOOL(xsk_umem__fd(umem) == fd);
	INT(xsk_umem__delete(umem));
	FD(fcntl(fd, F_GETFD));
	INT(umem_create_with_fd(&umem, -1, area, SIZE, &fill, &comp, NULL));
	INT(xsk_umem__delete(umem));
	INT(umem_create_with_fd(&umem, 12345, area, SIZE, &fill, &comp, &small));
	say_part("sockets");
	/* The queue has been free for long. */
	make();
	sock = POINTER(socket_create_opts("uplink", 0, umem, &of_socket));
	RING(rx);
	RING(tx);
	other.fill = &fill;
	POINTER(socket_create_opts("uplink", 1, umem, &other));
	other.comp = &comp;
	other.fill = NULL;
	POINTER(socket_create_opts("uplink", 1, umem, &other));
	DELETE();
	make();
	other = of_socket;
	other.rx = NULL;
	other.tx = NULL;
	POINTER(socket_create_opts("uplink", 0, umem, &other));
	other = of_socket;
	other.libxdp_flags = 6;
	POINTER(socket_create_opts("uplink", 0, umem, &other));
	other = of_socket;
	other.sz = 4;
	POINTER(socket_create_opts("uplink", 0, umem, &other));
	POINTER(socket_create_opts("nobody", 0, umem, &of_socket));
	TRY(POINTER, socket_create_opts("uplink", 0, umem, NULL));
	TRY(POINTER, socket_create_opts("uplink", 0, NULL, &of_socket));
	TRY(POINTER, socket_create_opts(NULL, 0, umem, &of_socket));
	INT(xsk_umem__delete(umem));
}

static const struct scenario scenarios[] = {
	{ "umems", umems }, { "sockets", sockets }, { "shared", shared }, { "default_program", default_program },
	{ "occupied", occupied }, { "traffic", traffic }, { "rings", rings }, { "options", options },
	{ "pieces", pieces }, { "native_pieces", native_pieces }, { "zero_copy", zero_copy },
};

int main(int argc, char **argv)
{
	far = argc > 2 ? argv[2] : "";
	area = memory(SIZE);
	return say_run(scenarios, sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
