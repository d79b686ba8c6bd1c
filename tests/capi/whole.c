/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* whole OBJECT                   goes through the library's functions, with packets
 * whole OBJECT ROUNDS WAITING    makes and deletes everything so often, what waits for the kernel WAITING times, and
 *                                looks for what stays
 *
 * In a namespace with both ends of a wire, and a bpf file system that nobody else has.
 */
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <xdp/oxdp.h>
#include <xdp/xsk.h>

#include "whole.h"

#define PIN "/sys/fs/bpf/whole"
#define FRAMES 64
#define FRAME 4096
#define COUNT 16
#define AREA ((__u64)FRAMES * FRAME)

/* The kernel lets go of a queue some time after its socket is closed, and is busy until then. */
#define soon(condition) \
	do { \
		int tries = 10000; \
		while (!(condition)) { \
			check(--tries); \
			usleep(1000); \
		} \
	} while (0)

static const char *object;
static int ifindex;
static void *area;
static bool has_chains;

static struct xdp_program *opened(const char *name)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .open_filename = object, .prog_name = name);
	struct xdp_program *program = xdp_program__create(&opts);

	check(program);
	return program;
}

/* The ways to a program that is not loaded, and what it says. */
static void sources(void)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, by_name, .open_filename = object, .prog_name = "whole_passes");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, found, .find_filename = "whole.o");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, of_object, .prog_name = "whole_counts");
	struct xdp_program *program, *copy;
	struct bpf_object *own;
	char words[64];

	program = xdp_program__open_file(object, NULL, NULL);
	check(libxdp_get_error(program) == 0 && strcmp(xdp_program__name(program), "whole_counts") == 0);
	check(xdp_program__run_prio(program) == 7 && xdp_program__chain_call_enabled(program, XDP_TX));
	check(xdp_program__id(program) == 0 && xdp_program__fd(program) == -1);
	check(xdp_program__bpf_obj(program) && xdp_program__btf(program));
	check(xdp_program__tag(program) || true);
	check(xdp_program__set_run_prio(program, 12) == 0 && xdp_program__run_prio(program) == 12);
	check(xdp_program__set_chain_call_enabled(program, XDP_TX, false) == 0);
	check(xdp_program__print_chain_call_actions(program, words, sizeof(words)) == 0);
	check(strcmp(words, "XDP_PASS") == 0);
	check(xdp_program__print_chain_call_actions(program, words, 4) == -ENOSPC);
	check(xdp_program__set_xdp_frags_support(program, true) == 0 && xdp_program__xdp_frags_support(program));
	check(xdp_program__set_xdp_frags_support(program, false) == 0);
	copy = xdp_program__clone(program, 0);
	check(libxdp_get_error(copy) == 0);
	xdp_program__close(copy);
	xdp_program__close(program);

	program = xdp_program__find_file("whole.o", "xdp", NULL);
	check(libxdp_get_error(program) == 0 && strcmp(xdp_program__name(program), "whole_counts") == 0);
	xdp_program__close(program);
	program = xdp_program__create(&by_name);
	check(program && strcmp(xdp_program__name(program), "whole_passes") == 0);
	xdp_program__close(program);
	program = xdp_program__create(&found);
	check(program);
	xdp_program__close(program);

	own = bpf_object__open(object);
	check(own);
	program = xdp_program__from_bpf_obj(own, "xdp");
	check(libxdp_get_error(program) == 0);
	xdp_program__close(program);
	of_object.obj = own;
	program = xdp_program__create(&of_object);
	check(program);
	xdp_program__close(program);
	bpf_object__close(own);
}

static void mistakes(void)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, none);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, two, .open_filename = object, .id = 1);
	struct xdp_program *program;
	char words[64];

	check(libxdp_get_error(xdp_program__open_file("/nonexistent", NULL, NULL)) < 0);
	check(libxdp_get_error(xdp_program__open_file("/proc/self/exe", NULL, NULL)) < 0);
	check(libxdp_get_error(xdp_program__open_file(object, "xdp/none", NULL)) == -ENOENT);
	check(libxdp_get_error(xdp_program__find_file("none.o", NULL, NULL)) == -ENOENT);
	check(libxdp_get_error(xdp_program__from_id(0xffffff)) < 0);
	check(libxdp_get_error(xdp_program__from_fd(-1)) < 0 && libxdp_get_error(xdp_program__from_fd(0)) < 0);
	check(libxdp_get_error(xdp_program__from_pin(PIN "/none")) < 0);
	check(libxdp_get_error(xdp_program__from_bpf_obj(NULL, NULL)) < 0);
	check(!xdp_program__create(&none) && !xdp_program__create(&two) && !xdp_program__create(NULL));
	check(libxdp_get_error(xdp_multiprog__get_from_ifindex(ifindex)) == -ENOENT);
	check(libxdp_get_error(xdp_multiprog__get_from_ifindex(99999)) < 0);
	check(libxdp_strerror(-ENOENT, words, sizeof(words)) >= 0 && *words);
	program = opened(NULL);
	check(xdp_program__attach(program, 99999, XDP_MODE_SKB, 0) < 0);
	check(xdp_program__attach(program, ifindex, XDP_MODE_SKB, 1 << 9) == -EINVAL);
	check(xdp_program__detach(program, ifindex, XDP_MODE_SKB, 0) < 0);
	check(xdp_program__pin(program, PIN) == -EINVAL);
	xdp_program__close(program);
	xdp_program__close(NULL);
	xdp_multiprog__close(NULL);
	xsk_socket__delete(NULL);
	check(xsk_umem__delete(NULL) == 0);
	oxdp_plan__free(NULL);
}

/* A program that is loaded, by all that it can be found by. */
static void loaded(void)
{
	unsigned char packet[64] = { 0 }, result[256];
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet), .data_out = result,
		    .data_size_out = sizeof(result), .repeat = 1);
	struct xdp_program *program = opened("whole_counts"), *others[4];
	DECLARE_LIBXDP_OPTS(xdp_program_opts, pinned, .pin_path = PIN);
	int i;

	check(xdp_program__test_run(program, &run, 0) == 0 && run.retval == XDP_PASS);
	/* With freplace it has been loaded for this run only. */
	if (xdp_program__fd(program) < 0) {
		xdp_program__close(program);
		program = opened("whole_counts");
		check(xdp_program__attach(program, ifindex, XDP_MODE_SKB, 0) == 0);
		check(xdp_program__detach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	}
	check(xdp_program__id(program) && xdp_program__fd(program) >= 0 && xdp_program__tag(program));
	check(xdp_program__pin(program, PIN) == 0);
	others[0] = xdp_program__from_id(xdp_program__id(program));
	others[1] = xdp_program__from_fd(xdp_program__fd(program));
	others[2] = xdp_program__from_pin(PIN);
	others[3] = xdp_program__create(&pinned);
	for (i = 0; i < 4; i++) {
		check(libxdp_get_error(others[i]) == 0 && xdp_program__id(others[i]) == xdp_program__id(program));
		check(xdp_program__btf(others[i]) && strcmp(xdp_program__name(others[i]), "whole_counts") == 0);
		xdp_program__close(others[i]);
	}
	others[0] = xdp_program__clone(program, 0);
	check(libxdp_get_error(others[0]) == 0);
	xdp_program__close(others[0]);
	check(unlink(PIN) == 0);
	xdp_program__close(program);
}

static __u64 seen_by(struct xdp_program *program)
{
	int map = bpf_map__fd(bpf_object__find_map_by_name(xdp_program__bpf_obj(program), "whole_seen"));
	__u32 zero = 0;
	__u64 seen = 0;

	check(map >= 0 && bpf_map_lookup_elem(map, &zero, &seen) == 0);
	return seen;
}

static void clear(void)
{
	struct xdp_multiprog *there = xdp_multiprog__get_from_ifindex(ifindex);

	check(libxdp_get_error(there) == 0 && xdp_multiprog__detach(there) == 0);
	xdp_multiprog__close(there);
}

static void attached(enum xdp_attach_mode mode, int netns, unsigned int flags)
{
	struct xdp_program *programs[2] = { opened("whole_counts"), opened("whole_passes") }, *program = NULL;
	struct xdp_multiprog *chain;
	int far = frames_of(FAR), count = has_chains ? 2 : 1, number = 0;

	if (flags || netns >= 0)
		check(oxdp_attach(programs, count, ifindex, netns, mode, flags) == 0);
	else if (count == 1)
		check(xdp_program__attach(programs[0], ifindex, mode, 0) == 0);
	else
		check(xdp_program__attach_multi(programs, 2, ifindex, mode, 0) == 0);
	check(xdp_program__is_attached(programs[0], ifindex) == mode);
	send_frames(far, COUNT);
	check(seen_by(programs[0]) >= COUNT);

	chain = xdp_multiprog__get_from_ifindex(ifindex);
	check(libxdp_get_error(chain) == 0 && xdp_multiprog__attach_mode(chain) == mode);
	check(xdp_multiprog__is_legacy(chain) == !has_chains);
	check(xdp_multiprog__main_prog(chain) && !xdp_multiprog__hw_prog(chain));
	check(xdp_multiprog__program_count(chain) == (has_chains ? 2 : 0));
	check(!xdp_multiprog__xdp_dev_bound(chain));
	xdp_multiprog__xdp_frags_support(chain);
	while ((program = xdp_multiprog__next_prog(program, chain)))
		number++;
	check(number == xdp_multiprog__program_count(chain));
	if (netns >= 0) {
		check(oxdp_detach(programs, count, ifindex, netns, mode, 0) == 0);
		check(xdp_multiprog__detach(chain) < 0);
	} else if (has_chains) {
		check(xdp_program__detach(programs[1], ifindex, mode, 0) == 0);
		check(xdp_program__detach_multi(programs, 1, ifindex, mode, 0) == 0);
	} else {
		check(xdp_multiprog__detach(chain) == 0);
	}
	xdp_multiprog__close(chain);
	check(libxdp_get_error(xdp_multiprog__get_from_ifindex(ifindex)) == -ENOENT);
	xdp_program__close(programs[0]);
	xdp_program__close(programs[1]);
	close(far);
	check(libxdp_clean_references(ifindex) == 0);
}

struct rings {
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons comp, rx;
};

static const struct xsk_umem_config umem_config = { .fill_size = FRAMES, .comp_size = FRAMES };

static struct xsk_umem *umem_of(struct rings *rings)
{
	struct xsk_umem *umem;

	check(xsk_umem__create(&umem, area, AREA, &rings->fill, &rings->comp, &umem_config) == 0);
	check(xsk_umem__fd(umem) >= 0);
	return umem;
}

static struct xsk_socket_config socket_config(bool has_program)
{
	return (struct xsk_socket_config){
		.rx_size = FRAMES, .tx_size = FRAMES, .xdp_flags = 2, .bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP,
		.libxdp_flags = has_program ? 0 : XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
	};
}

static struct xsk_socket *socket_of(struct xsk_umem *umem, struct rings *rings, bool has_program)
{
	struct xsk_socket_config config = socket_config(has_program);
	struct xsk_socket *xsk;

	soon(xsk_socket__create(&xsk, NEAR, 0, umem, &rings->rx, &rings->tx, &config) == 0);
	check(xsk_socket__fd(xsk) >= 0);
	return xsk;
}

/* Frames come in, and go out again. */
static void echo(struct xsk_socket *xsk, struct rings *rings)
{
	int far = frames_of(FAR), i, taken = 0;
	struct pollfd wait = { .fd = xsk_socket__fd(xsk), .events = POLLIN };
	__u32 at, to, done = 0;

	check(xsk_ring_prod__reserve(&rings->fill, FRAMES / 2, &at) == FRAMES / 2);
	for (i = 0; i < FRAMES / 2; i++)
		*xsk_ring_prod__fill_addr(&rings->fill, at + i) = (__u64)i * FRAME;
	xsk_ring_prod__submit(&rings->fill, FRAMES / 2);
	send_frames(far, COUNT);
	while (taken < COUNT) {
		check(poll(&wait, 1, 10000) > 0);
		if (!xsk_ring_cons__peek(&rings->rx, 1, &at))
			continue;
		check(xsk_ring_prod__reserve(&rings->tx, 1, &to) == 1);
		*xsk_ring_prod__tx_desc(&rings->tx, to) = *xsk_ring_cons__rx_desc(&rings->rx, at);
		check(((char *)xsk_umem__get_data(area, xsk_ring_cons__rx_desc(&rings->rx, at)->addr))[6] == 2);
		xsk_ring_cons__release(&rings->rx, 1);
		xsk_ring_prod__submit(&rings->tx, 1);
		taken++;
	}
	for (i = 0; done < COUNT && i < 10000; i++) {
		if (xsk_ring_prod__needs_wakeup(&rings->tx))
			sendto(xsk_socket__fd(xsk), NULL, 0, MSG_DONTWAIT, NULL, 0);
		taken = (int)xsk_ring_cons__peek(&rings->comp, FRAMES, &at);
		xsk_ring_cons__release(&rings->comp, (__u32)taken);
		done += (__u32)taken;
		if (!taken)
			usleep(1000);
	}
	check(done == COUNT);
	close(far);
}

static void sockets(void)
{
	struct rings rings, second;
	struct xsk_socket_config config = socket_config(false);
	DECLARE_LIBXDP_OPTS(xsk_umem_opts, umem_opts, .size = AREA, .fill_size = FRAMES, .comp_size = FRAMES);
	DECLARE_LIBXDP_OPTS(xsk_socket_opts, opts, .rx = &second.rx, .tx = &second.tx, .fill = &second.fill,
			    .comp = &second.comp, .rx_size = FRAMES, .tx_size = FRAMES, .bind_flags = XDP_COPY,
			    .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD);
	struct xsk_socket *xsk, *other;
	struct xsk_umem *umem;
	int map = -1;

	umem = umem_of(&rings);
	xsk = socket_of(umem, &rings, true);
	echo(xsk, &rings);
	check(xsk_umem__delete(umem) == -EBUSY);
	/* One more at the other end. */
	soon(xsk_socket__create_shared(&other, FAR, 0, umem, &second.rx, &second.tx, &second.fill, &second.comp, &config)
	     == 0);
	xsk_socket__delete(other);
	soon((other = xsk_socket__create_opts(FAR, 0, umem, &opts)));
	xsk_socket__delete(other);
	/* Failures, which must leave nothing. */
	check(xsk_socket__create(&other, "none", 0, umem, &second.rx, NULL, &config) < 0);
	check(xsk_socket__create(&other, NEAR, 77, umem, &second.rx, NULL, &config) < 0);
	check(xsk_socket__create(&other, NEAR, 0, umem, NULL, NULL, &config) < 0);
	xsk_socket__delete(xsk);
	check(xsk_umem__delete(umem) == 0);
	check(xsk_umem__create(&umem, (char *)area + 1, AREA, &rings.fill, &rings.comp, &umem_config) < 0);

	umem = xsk_umem__create_opts(area, &rings.fill, &rings.comp, &umem_opts);
	check(umem && xsk_umem__delete(umem) == 0);
	check(xsk_umem__create_with_fd(&umem, socket(AF_XDP, SOCK_RAW, 0), area, AREA, &rings.fill, &rings.comp,
				       &umem_config) == 0);
	/* The program is put there first, and the socket into its map. */
	check(xsk_setup_xdp_prog(ifindex, &map) == 0 && map >= 0);
	xsk = socket_of(umem, &rings, false);
	check(xsk_socket__update_xskmap(xsk, map) == 0);
	check(xsk_socket__update_xskmap(xsk, -1) < 0);
	echo(xsk, &rings);
	xsk_socket__delete(xsk);
	check(xsk_umem__delete(umem) == 0);
	close(map);
	clear();
}

static void beyond(void)
{
	struct oxdp_features features = { .sz = sizeof(features) };
	struct oxdp_plan *plan;
	size_t i;

	check(strlen(oxdp_version()) > 0);
	check(oxdp_set_layout("netns") == 0 && oxdp_set_layout("none") == -EINVAL && oxdp_set_layout(NULL) == -EINVAL);
	check(oxdp_set_layout("legacy") == 0);
	check(oxdp_features(&features) == 0);
	plan = oxdp_plan(0);
	check(plan);
	for (i = 0; i < oxdp_plan__count(plan); i++)
		check(strlen(oxdp_plan__line(plan, i)) > 0);
	check(!oxdp_plan__line(plan, i));
	/* What others have on this machine is left to them. */
	if (!oxdp_plan__is_change(plan))
		check(oxdp_plan__apply(plan) == 0);
	oxdp_plan__free(plan);
	check(!oxdp_plan(1U << 9) && errno == EINVAL);
}

/* Everything once. */
static void all(void)
{
	int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	sources();
	mistakes();
	loaded();
	attached(XDP_MODE_SKB, -1, 0);
	attached(XDP_MODE_NATIVE, netns, 0);
	attached(XDP_MODE_SKB, netns, OXDP_ATTACH_LINK);
	sockets();
	beyond();
	close(netns);
}

/* What is of this process or named as what it makes. */
struct stock {
	int descriptors, programs, maps;
	size_t bytes; /* that malloc() has given out */
	long pages;   /* in memory */
};

static bool is_mine(const char *name)
{
	static const char *const names[] = { "whole_counts", "whole_passes", "whole_seen", "xdp_dispatcher", "xsk_def_prog",
					     "xsks_map" };
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strncmp(name, names[i], BPF_OBJ_NAME_LEN - 1) == 0)
			return true;
	return false;
}

static struct stock stock(void)
{
	struct stock stock = { 0 };
	struct bpf_prog_info program;
	struct bpf_map_info map;
	DIR *folder;
	FILE *file;
	__u32 id, length;
	int fd;

	for (id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
		length = sizeof(program);
		memset(&program, 0, sizeof(program));
		fd = bpf_prog_get_fd_by_id(id);
		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &program, &length) == 0)
			stock.programs += is_mine(program.name);
		close(fd);
	}
	for (id = 0; bpf_map_get_next_id(id, &id) == 0;) {
		length = sizeof(map);
		memset(&map, 0, sizeof(map));
		fd = bpf_map_get_fd_by_id(id);
		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &map, &length) == 0)
			stock.maps += is_mine(map.name);
		close(fd);
	}
	folder = opendir("/proc/self/fd");
	check(folder);
	while (readdir(folder))
		stock.descriptors++;
	closedir(folder);
	malloc_trim(0);
	stock.bytes = mallinfo2().uordblks;
	file = fopen("/proc/self/statm", "r");
	check(file && fscanf(file, "%*d %ld", &stock.pages) == 1);
	fclose(file);
	return stock;
}

static void open_close(void)
{
	xdp_program__close(opened("whole_counts"));
}

static void umem_only(void)
{
	struct rings rings;

	check(xsk_umem__delete(umem_of(&rings)) == 0);
}

static void socket_round(bool has_program)
{
	struct rings rings;
	struct xsk_umem *umem = umem_of(&rings);

	xsk_socket__delete(socket_of(umem, &rings, has_program));
	check(xsk_umem__delete(umem) == 0);
}

static void bare_socket(void)
{
	socket_round(false);
}

static void whole_socket(void)
{
	socket_round(true);
}

static void chain_round(void)
{
	struct xdp_multiprog *chain = xdp_multiprog__get_from_ifindex(ifindex);

	check(libxdp_get_error(chain) == 0);
	xdp_multiprog__close(chain);
}

static void attach_round(void)
{
	struct xdp_program *program = opened("whole_counts");

	check(xdp_program__attach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	check(xdp_program__detach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	xdp_program__close(program);
}

static void plan_round(void)
{
	struct oxdp_plan *plan = oxdp_plan(0);

	check(plan);
	oxdp_plan__free(plan);
}

static void repeat(const char *name, void (*round)(void), int rounds)
{
	struct stock before, after;
	int i;

	/* What is made once in a process is no leak. */
	for (i = 0; i < 20; i++)
		round();
	before = stock();
	for (i = 0; i < rounds; i++)
		round();
	/* The kernel frees later. Others on this machine may have programs of these names for a while. */
	for (i = 0; i < 300; i++) {
		after = stock();
		if (after.programs <= before.programs && after.maps <= before.maps)
			break;
		usleep(100000);
	}
	printf("%s, %d rounds: descriptors %d, %d; programs %d, %d; maps %d, %d; ", name, rounds, before.descriptors,
	       after.descriptors, before.programs, after.programs, before.maps, after.maps);
	printf("bytes %zu, %zu; pages %ld, %ld\n", before.bytes, after.bytes, before.pages, after.pages);
	fflush(stdout);
	check(after.descriptors == before.descriptors);
	check(after.programs <= before.programs && after.maps <= before.maps);
	/* Less than a byte a round. */
	check(after.bytes < before.bytes + 64 + (size_t)rounds / 2);
	check(after.pages <= before.pages + 32);
}

static void many(int rounds, int waiting)
{
	struct xdp_program *program = opened("whole_passes");

	repeat("program open, close", open_close, rounds);
	repeat("UMEM", umem_only, rounds);
	repeat("UMEM, socket", bare_socket, rounds);
	repeat("UMEM, socket, default program", whole_socket, waiting);
	repeat("attach, detach", attach_round, waiting);
	repeat("plan, free", plan_round, waiting);
	check(xdp_program__attach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	repeat("multiprog get, close", chain_round, rounds);
	check(xdp_program__detach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	xdp_program__close(program);
}

static int quiet(enum libxdp_print_level level, const char *format, va_list arguments)
{
	(void)level, (void)format, (void)arguments;
	return 0;
}

static int quiet_bpf(enum libbpf_print_level level, const char *format, va_list arguments)
{
	(void)level, (void)format, (void)arguments;
	return 0;
}

int main(int argc, char **argv)
{
	struct oxdp_features features = { .sz = sizeof(features) };

	check(argc == 2 || argc == 4);
	object = argv[1];
	ifindex = (int)if_nametoindex(NEAR);
	area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(ifindex && area != MAP_FAILED);
	libxdp_set_print(quiet);
	libbpf_set_print(quiet_bpf);
	check(oxdp_features(&features) == 0);
	has_chains = features.chains && features.reattach;
	if (argc == 2)
		all();
	else
		many(atoi(argv[2]), atoi(argv[3]));
	munmap(area, AREA);
	printf("whole: ok, %s chains\n", has_chains ? "with" : "without");
	return 0;
}
