/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* A process that does what it is told with C libxdp: the other side of tests, and of benchmarks.
 *
 * Its commands, and how it answers, are in README.md. It uses nothing but the public API, and that of libxdp
 * 1.3, so that one binary runs with every libxdp since.
 */
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xdp/libxdp.h>
#include <xdp/xsk.h>

#define MAX_WORDS 64
#define MAX_PROGRAMS 16
#define MAX_FAILURES 32
#define MAX_SOCKETS 8
#define FRAMES 64
/* Before each attach: what went in the one before is freed by the kernel later on, and not on this one's account. */
#define BENCH_PAUSE_US 50000
#define CHURN_LIMIT_S 900
#define CHURN_PAUSE_US 400000
#define XDP_ACTIONS 31 /* bit 31 of a chain-call mask is the dispatcher's own */

static const char *const action_names[] = { "aborted", "drop", "pass", "tx", "redirect" };

/* What went wrong in the current command, where an error number alone does not tell. */
static char trouble[256];

/* Says why, and returns -EINVAL. */
__attribute__((format(printf, 1, 2))) static int invalid(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(trouble, sizeof(trouble), format, arguments);
	va_end(arguments);
	return -EINVAL;
}

static int libxdp_print(enum libxdp_print_level level, const char *format, va_list arguments)
{
	(void)level;
	return getenv("PEER_VERBOSE") ? vfprintf(stderr, format, arguments) : 0;
}

static int libbpf_print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	(void)level;
	return getenv("PEER_VERBOSE") ? vfprintf(stderr, format, arguments) : 0;
}

static __u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* AF_XDP sockets are all that lives from one command to the next. */
static unsigned int open_sockets;

/* libxdp 1.3 leaves open what it opens to look at a chain, and with that keeps programs in the kernel. Between
 * commands, and between rounds of one, nothing that is open is the peer's own.
 */
static void close_leaks(void)
{
	if (!open_sockets)
		close_range(3, ~0U, 0);
}

/* ---- words ---- */

static int parse_number(const char *word, unsigned long max, unsigned long *number)
{
	char *end;

	errno = 0;
	*number = strtoul(word, &end, 0);
	if (errno || end == word || *end || *word == '-' || *number > max)
		return invalid("not a number up to %lu: '%s'", max, word);
	return 0;
}

static int parse_interface(const char *word, int *ifindex)
{
	*ifindex = if_nametoindex(word);
	return *ifindex ? 0 : -errno;
}

static int parse_mode(const char *word, enum xdp_attach_mode *mode)
{
	if (!strcmp(word, "native"))
		*mode = XDP_MODE_NATIVE;
	else if (!strcmp(word, "skb"))
		*mode = XDP_MODE_SKB;
	else if (!strcmp(word, "unspec"))
		*mode = XDP_MODE_UNSPEC;
	else
		return invalid("not a mode: '%s'", word);
	return 0;
}

static const char *mode_name(enum xdp_attach_mode mode)
{
	static const char *const names[] = { "unspec", "native", "skb", "hw" };

	return names[mode];
}

static int action_bit(const char *name, unsigned int *bit)
{
	for (*bit = 0; *bit < sizeof(action_names) / sizeof(*action_names); (*bit)++) {
		if (!strcmp(name, action_names[*bit]))
			return 0;
	}
	return invalid("not an action: '%s'", name);
}

/* A bit mask as a number, or names joined by '+'. */
static int parse_actions(char *word, unsigned long *mask)
{
	unsigned int bit;
	char *name, *rest;
	int err;

	if (*word >= '0' && *word <= '9')
		return parse_number(word, (1UL << XDP_ACTIONS) - 1, mask);
	*mask = 0;
	for (name = strtok_r(word, "+", &rest); name; name = strtok_r(NULL, "+", &rest)) {
		err = action_bit(name, &bit);
		if (err)
			return err;
		*mask |= 1UL << bit;
	}
	return 0;
}

static unsigned int chain_call_mask(const struct xdp_program *program)
{
	unsigned int bit, mask = 0;

	for (bit = 0; bit < XDP_ACTIONS; bit++) {
		if (xdp_program__chain_call_enabled(program, bit))
			mask |= 1U << bit;
	}
	return mask;
}

/* ---- programs ---- */

static int set_actions(struct xdp_program *program, unsigned long mask)
{
	unsigned int bit, set = chain_call_mask(program);
	int err;

	for (bit = 0; bit < XDP_ACTIONS; bit++) {
		if (!((mask ^ set) & (1UL << bit)))
			continue;
		err = xdp_program__set_chain_call_enabled(program, bit, mask & (1UL << bit));
		if (err)
			return err;
	}
	return 0;
}

/* A function of NULL is the object's first program. */
static int open_program(const char *path, const char *function, struct xdp_program **program)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .open_filename = path, .prog_name = function);
	long err;

	*program = xdp_program__create(&opts);
	err = libxdp_get_error(*program);
	if (err)
		*program = NULL;
	return err;
}

/* A program as "OBJECT,FUNCTION,PRIORITY,ACTIONS", of which all but the first may be empty or left out. */
static int open_spec(char *spec, struct xdp_program **program)
{
	const char *path = strsep(&spec, ","), *function = strsep(&spec, ",");
	const char *priority = strsep(&spec, ",");
	unsigned long number;
	int err;

	err = open_program(path, function && *function ? function : NULL, program);
	if (!err && priority && *priority) {
		err = parse_number(priority, UINT_MAX, &number);
		if (!err)
			err = xdp_program__set_run_prio(*program, number);
	}
	if (!err && spec && *spec) {
		err = parse_actions(spec, &number);
		if (!err)
			err = set_actions(*program, number);
	}
	return err;
}

static int open_id(__u32 id, struct xdp_program **program)
{
	long err;

	*program = xdp_program__from_id(id);
	err = libxdp_get_error(*program);
	if (err)
		*program = NULL;
	return err;
}

static void close_programs(struct xdp_program **programs, size_t count)
{
	while (count--)
		xdp_program__close(programs[count]);
}

static int attach_and_tell(struct xdp_program **programs, size_t count, int ifindex,
			   enum xdp_attach_mode mode)
{
	size_t i;
	int err;

	err = xdp_program__attach_multi(programs, count, ifindex, mode, 0);
	for (i = 0; !err && i < count; i++)
		printf("program %u %s\n", xdp_program__id(programs[i]), xdp_program__name(programs[i]));
	return err;
}

/* ---- chains ---- */

static int open_chain(int ifindex, struct xdp_multiprog **chain)
{
	long err;

	*chain = xdp_multiprog__get_from_ifindex(ifindex);
	err = libxdp_get_error(*chain);
	if (err)
		*chain = NULL;
	return err;
}

/* Takes programs out of the chain, whatever its mode is. */
static int detach_ids(int ifindex, const __u32 *ids, size_t count)
{
	struct xdp_program *programs[MAX_PROGRAMS];
	struct xdp_multiprog *chain;
	enum xdp_attach_mode mode;
	size_t opened = 0;
	int err;

	err = open_chain(ifindex, &chain);
	if (err)
		return err;
	mode = xdp_multiprog__attach_mode(chain);
	xdp_multiprog__close(chain);
	for (; !err && opened < count; opened += !err)
		err = open_id(ids[opened], &programs[opened]);
	if (!err)
		err = xdp_program__detach_multi(programs, count, ifindex, mode, 0);
	close_programs(programs, opened);
	return err;
}

/* 1 if a program is on the interface, 0 if it is not, or why that is not known. */
static int is_attached(int ifindex, __u32 id)
{
	struct xdp_program *program = NULL;
	struct xdp_multiprog *chain;
	int err, found = 0;

	err = open_chain(ifindex, &chain);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (xdp_multiprog__is_legacy(chain))
		found = xdp_program__id(xdp_multiprog__main_prog(chain)) == id;
	else
		while (!found && (program = xdp_multiprog__next_prog(program, chain)))
			found = xdp_program__id(program) == id;
	xdp_multiprog__close(chain);
	return found;
}

/* The version that a dispatcher names in its BTF, as the length of an array; 0 if there is none. */
static __u32 dispatcher_version(const struct xdp_program *program)
{
	const struct btf *btf = xdp_program__btf((struct xdp_program *)program);
	const struct btf_type *type;
	__s32 id;

	id = btf ? btf__find_by_name_kind(btf, "dispatcher_version", BTF_KIND_VAR) : -1;
	if (id < 0)
		return 0;
	type = btf__type_by_id(btf, btf__type_by_id(btf, id)->type);
	if (!btf_is_ptr(type))
		return 0;
	type = btf__type_by_id(btf, type->type);
	return btf_is_array(type) ? btf_array(type)->nelems : 0;
}

static void tell_member(int slot, const struct xdp_program *program)
{
	const unsigned char *tag = xdp_program__tag(program);
	int i;

	printf("member %d %u 0x%x %u %s ", slot, xdp_program__run_prio(program),
	       chain_call_mask(program), xdp_program__id(program), xdp_program__name(program));
	for (i = 0; i < BPF_TAG_SIZE; i++)
		printf("%02x", tag[i]);
	putchar('\n');
}

static void tell_chain(const struct xdp_multiprog *chain)
{
	struct xdp_program *main_program = xdp_multiprog__main_prog(chain), *program = NULL;
	int slot = 0;

	if (xdp_multiprog__is_legacy(chain)) {
		printf("legacy %u %s\n", xdp_program__id(main_program), xdp_program__name(main_program));
		return;
	}
	printf("dispatcher %u %s frags=%d version=%u\n", xdp_program__id(main_program),
	       mode_name(xdp_multiprog__attach_mode(chain)), xdp_multiprog__xdp_frags_support(chain),
	       dispatcher_version(main_program));
	while ((program = xdp_multiprog__next_prog(program, chain)))
		tell_member(slot++, program);
}

/* ---- plain commands; each gets the words after its name, of which it has as many as it asked for ---- */

static int attach(int count, char **words)
{
	struct xdp_program *programs[MAX_PROGRAMS] = {};
	enum xdp_attach_mode mode;
	int ifindex, err, opened = 0;

	if (count - 2 > MAX_PROGRAMS)
		return invalid("more than %d programs", MAX_PROGRAMS);
	err = parse_interface(words[0], &ifindex);
	if (!err)
		err = parse_mode(words[1], &mode);
	for (; !err && opened < count - 2; opened++)
		err = open_spec(words[opened + 2], &programs[opened]);
	if (!err)
		err = attach_and_tell(programs, opened, ifindex, mode);
	close_programs(programs, opened);
	return err;
}

static int attach_one(char **words, struct xdp_program *program)
{
	enum xdp_attach_mode mode;
	int ifindex, err;

	err = parse_interface(words[0], &ifindex);
	if (!err)
		err = parse_mode(words[1], &mode);
	if (!err)
		err = attach_and_tell(&program, 1, ifindex, mode);
	xdp_program__close(program);
	return err;
}

static int attach_pin(int count, char **words)
{
	struct xdp_program *program = xdp_program__from_pin(words[2]);
	long err = libxdp_get_error(program);

	(void)count;
	return err ? err : attach_one(words, program);
}

static int attach_id(int count, char **words)
{
	struct xdp_program *program;
	unsigned long id;
	int err;

	(void)count;
	err = parse_number(words[2], UINT_MAX, &id);
	if (!err)
		err = open_id(id, &program);
	return err ? err : attach_one(words, program);
}

static int detach(int count, char **words)
{
	__u32 ids[MAX_PROGRAMS];
	unsigned long id;
	int ifindex, i, err;

	if (count - 1 > MAX_PROGRAMS)
		return invalid("more than %d programs", MAX_PROGRAMS);
	err = parse_interface(words[0], &ifindex);
	for (i = 1; !err && i < count; i++) {
		err = parse_number(words[i], UINT_MAX, &id);
		ids[i - 1] = id;
	}
	return err ? err : detach_ids(ifindex, ids, count - 1);
}

static int detach_all(int count, char **words)
{
	struct xdp_multiprog *chain;
	int ifindex, err;

	(void)count;
	err = parse_interface(words[0], &ifindex);
	if (!err)
		err = open_chain(ifindex, &chain);
	if (err)
		return err;
	err = xdp_multiprog__detach(chain);
	xdp_multiprog__close(chain);
	return err;
}

static int list(int count, char **words)
{
	struct xdp_multiprog *chain;
	int ifindex, err;

	(void)count;
	err = parse_interface(words[0], &ifindex);
	if (err)
		return err;
	err = open_chain(ifindex, &chain);
	if (err == -ENOENT) {
		puts("none");
		return 0;
	}
	if (err)
		return err;
	tell_chain(chain);
	xdp_multiprog__close(chain);
	return 0;
}

static int clean(int count, char **words)
{
	(void)count;
	(void)words;
	return libxdp_clean_references(0);
}

/* The file that a function comes from: its path, and what that path is without links. */
static int tell_library(const char *name, const char *function)
{
	void *address = dlsym(RTLD_DEFAULT, function);
	char real[PATH_MAX];
	Dl_info info;

	if (!address || !dladdr(address, &info) || !realpath(info.dli_fname, real))
		return invalid("%s is not known to the dynamic linker", function);
	printf("%s %s %s\n", name, info.dli_fname, strrchr(real, '/') + 1);
	return 0;
}

/* Which libraries these are; and the version of the dispatcher that this libxdp finds and so would write. */
static int version(int count, char **words)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .find_filename = "xdp-dispatcher.o",
			    .prog_name = "xdp_dispatcher");
	struct xdp_program *program;
	int err;

	(void)count;
	(void)words;
	err = tell_library("libxdp", "xdp_program__create");
	if (!err)
		err = tell_library("libbpf", "bpf_object__open_file");
	if (err)
		return err;
	program = xdp_program__create(&opts);
	err = libxdp_get_error(program);
	if (err)
		return err;
	printf("dispatcher %u\n", dispatcher_version(program));
	xdp_program__close(program);
	return 0;
}

/* ---- AF_XDP sockets ---- */

static struct socket {
	struct xsk_socket *socket; /* NULL: the place is free */
	struct xsk_umem *umem;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons completion, received;
	void *area;
} sockets[MAX_SOCKETS];

static int make_umem(struct socket *place)
{
	size_t size = FRAMES * XSK_UMEM__DEFAULT_FRAME_SIZE;
	__u32 frame, index = 0;
	int err;

	place->area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (place->area == MAP_FAILED)
		return -errno;
	err = xsk_umem__create(&place->umem, place->area, size, &place->fill, &place->completion, NULL);
	if (err) {
		munmap(place->area, size);
		return err;
	}
	xsk_ring_prod__reserve(&place->fill, FRAMES, &index);
	for (frame = 0; frame < FRAMES; frame++)
		*xsk_ring_prod__fill_addr(&place->fill, index + frame) = frame * XSK_UMEM__DEFAULT_FRAME_SIZE;
	xsk_ring_prod__submit(&place->fill, FRAMES);
	return 0;
}

static void free_umem(struct socket *place)
{
	xsk_umem__delete(place->umem);
	munmap(place->area, FRAMES * XSK_UMEM__DEFAULT_FRAME_SIZE);
	memset(place, 0, sizeof(*place));
}

static __u32 xdp_flags(enum xdp_attach_mode mode)
{
	switch (mode) {
	case XDP_MODE_NATIVE:
		return XDP_FLAGS_DRV_MODE;
	case XDP_MODE_SKB:
		return XDP_FLAGS_SKB_MODE;
	default:
		return 0;
	}
}

/* A socket for a queue, with the default program. */
static int xsk_create(int count, char **words)
{
	struct xsk_socket_config config = {
		.rx_size = XSK_RING_CONS__DEFAULT_NUM_DESCS,
		.tx_size = XSK_RING_PROD__DEFAULT_NUM_DESCS,
		.bind_flags = XDP_COPY,
	};
	struct socket *place = sockets;
	enum xdp_attach_mode mode;
	unsigned long queue;
	int err;

	(void)count;
	while (place < sockets + MAX_SOCKETS && place->socket)
		place++;
	if (place == sockets + MAX_SOCKETS)
		return invalid("more than %d sockets", MAX_SOCKETS);
	err = parse_number(words[1], UINT_MAX, &queue);
	if (!err)
		err = parse_mode(words[2], &mode);
	if (!err)
		err = make_umem(place);
	if (err)
		return err;
	config.xdp_flags = xdp_flags(mode);
	err = xsk_socket__create(&place->socket, words[0], queue, place->umem, &place->received, NULL,
				 &config);
	if (err) {
		place->socket = NULL;
		free_umem(place);
		return err;
	}
	open_sockets++;
	printf("socket %ld\n", (long)(place - sockets));
	return 0;
}

static int parse_socket(const char *word, struct socket **place)
{
	unsigned long number;
	int err = parse_number(word, MAX_SOCKETS - 1, &number);

	if (!err && !sockets[number].socket)
		err = invalid("no such socket: %lu", number);
	*place = sockets + number;
	return err;
}

static int xsk_delete(int count, char **words)
{
	struct socket *place;
	int err = parse_socket(words[0], &place);

	(void)count;
	if (err)
		return err;
	xsk_socket__delete(place->socket);
	free_umem(place);
	open_sockets--;
	return 0;
}

/* How many packets have come since the last time. */
static int xsk_received(int count, char **words)
{
	struct socket *place;
	__u32 index, got;
	int err = parse_socket(words[0], &place);

	(void)count;
	if (err)
		return err;
	got = xsk_ring_cons__peek(&place->received, FRAMES, &index);
	xsk_ring_cons__release(&place->received, got);
	printf("received %u\n", got);
	return 0;
}

/* ---- benchmarks ---- */

/* One more program on the interface, and off again. */
static int bench_round(int ifindex, enum xdp_attach_mode mode, const char *object)
{
	struct xdp_program *program;
	__u64 start, opened, attached;
	__u32 id;
	int err;

	start = now_ns();
	err = open_program(object, NULL, &program);
	opened = now_ns();
	if (err)
		return err;
	err = xdp_program__attach(program, ifindex, mode, 0);
	attached = now_ns();
	id = err ? 0 : xdp_program__id(program);
	xdp_program__close(program);
	if (err)
		return err;
	printf("ns %llu %llu\n", attached - opened, opened - start);
	return detach_ids(ifindex, &id, 1);
}

static int bench_attach(int count, char **words)
{
	unsigned long length, built = 0, rounds;
	struct xdp_program *program;
	enum xdp_attach_mode mode;
	__u32 ids[MAX_PROGRAMS];
	int ifindex, err, undone;

	(void)count;
	err = parse_interface(words[0], &ifindex);
	if (!err)
		err = parse_mode(words[1], &mode);
	if (!err)
		err = parse_number(words[3], MAX_PROGRAMS, &length);
	if (!err)
		err = parse_number(words[4], ULONG_MAX, &rounds);
	while (!err && built < length) {
		err = open_program(words[2], NULL, &program);
		if (err)
			break;
		err = xdp_program__attach(program, ifindex, mode, 0);
		if (!err)
			ids[built++] = xdp_program__id(program);
		xdp_program__close(program);
	}
	while (!err && rounds--) {
		close_leaks();
		usleep(BENCH_PAUSE_US);
		err = bench_round(ifindex, mode, words[2]);
	}
	undone = built ? detach_ids(ifindex, ids, built) : 0;
	return err ? err : undone;
}

/* What a program that shows a chain asks libxdp for; the sum keeps the calls from being left out. */
static int read_chain(int ifindex, __u64 *sum)
{
	struct xdp_program *program = NULL;
	struct xdp_multiprog *chain;
	int err;

	err = open_chain(ifindex, &chain);
	if (err)
		return err;
	while ((program = xdp_multiprog__next_prog(program, chain)))
		*sum += *xdp_program__name(program) + xdp_program__run_prio(program) +
			chain_call_mask(program);
	xdp_multiprog__close(chain);
	return 0;
}

static int bench_read(int count, char **words)
{
	unsigned long rounds;
	__u64 start, sum = 0;
	int ifindex, err;

	(void)count;
	err = parse_interface(words[0], &ifindex);
	if (!err)
		err = parse_number(words[1], ULONG_MAX, &rounds);
	while (!err && rounds--) {
		close_leaks();
		start = now_ns();
		err = read_chain(ifindex, &sum);
		if (!err)
			printf("ns %llu\n", now_ns() - start);
	}
	return err;
}

/* ---- churn ---- */

struct failure {
	const char *operation;
	int err;
	unsigned long count;
};

struct churn {
	int ifindex;
	enum xdp_attach_mode mode;
	__u64 random; /* xorshift64; never 0 */
	__u32 held;   /* id of the one program that is attached, or 0 */
	unsigned long changes;
	struct failure failures[MAX_FAILURES];
};

static __u32 random_below(struct churn *churn, __u32 limit)
{
	churn->random ^= churn->random << 13;
	churn->random ^= churn->random >> 7;
	churn->random ^= churn->random << 17;
	return (churn->random >> 32) % limit;
}

static void count_failure(struct churn *churn, const char *operation, int err)
{
	struct failure *failure = churn->failures;
	struct failure *last = failure + MAX_FAILURES - 1;

	while (failure < last && failure->count &&
	       (failure->err != err || strcmp(failure->operation, operation)))
		failure++;
	failure->operation = operation;
	failure->err = err;
	failure->count++;
}

static void churn_attach(struct churn *churn, const char *object)
{
	const char *operation = "open";
	struct xdp_program *program;
	int err;

	err = open_program(object, NULL, &program);
	if (!err)
		err = xdp_program__set_run_prio(program, 20 + random_below(churn, 71));
	if (!err) {
		operation = "attach";
		err = xdp_program__attach(program, churn->ifindex, churn->mode, 0);
	}
	if (err) {
		count_failure(churn, operation, err);
	} else {
		churn->held = xdp_program__id(program);
		churn->changes++;
	}
	xdp_program__close(program);
}

/* A detach may fail after it was done, and others may have taken the program away: then it is held no more. */
/* Looks often: of a chain that others are just replacing libxdp may see a part, and call that the whole. */
static bool is_gone(int ifindex, __u32 id)
{
	int look;

	for (look = 0; look < 25; look++) {
		if (is_attached(ifindex, id) != 0)
			return false;
		usleep(20000);
	}
	return true;
}

static void churn_detach(struct churn *churn)
{
	int err = detach_ids(churn->ifindex, &churn->held, 1);

	if (!err) {
		churn->changes++;
		churn->held = 0;
		return;
	}
	count_failure(churn, "detach", err);
	if (is_gone(churn->ifindex, churn->held)) {
		printf("gone %u\n", churn->held);
		churn->held = 0;
	}
}

static void tell_churn(const struct churn *churn)
{
	const struct failure *failure;

	printf("done %lu\n", churn->changes);
	for (failure = churn->failures; failure < churn->failures + MAX_FAILURES && failure->count; failure++)
		printf("failed %s %d %lu\n", failure->operation, -failure->err, failure->count);
	if (churn->held)
		printf("left %u\n", churn->held);
}

static int churn(int count, char **words)
{
	struct churn churn = {};
	unsigned long rounds, seed;
	__u64 deadline;
	int err;

	err = parse_interface(words[0], &churn.ifindex);
	if (!err)
		err = parse_mode(words[1], &churn.mode);
	if (!err)
		err = parse_number(words[2], ULONG_MAX, &rounds);
	if (!err)
		err = parse_number(words[3], UINT_MAX, &seed);
	if (err)
		return err;
	churn.random = 0x9e3779b97f4a7c15 ^ seed;
	deadline = now_ns() + CHURN_LIMIT_S * 1000000000ULL;
	while (churn.changes < rounds && now_ns() < deadline) {
		const char *object = words[4 + random_below(&churn, count - 4)];

		if (churn.held)
			churn_detach(&churn);
		else
			churn_attach(&churn, object);
		close_leaks();
		usleep(random_below(&churn, CHURN_PAUSE_US));
	}
	deadline = now_ns() + 10 * 1000000000ULL;
	while (churn.held && now_ns() < deadline) {
		churn_detach(&churn);
		close_leaks();
		if (churn.held)
			usleep(10000);
	}
	tell_churn(&churn);
	return 0;
}

/* ---- the line protocol ---- */

static const struct command {
	const char *name;
	int (*run)(int count, char **words);
	int min, max;
	const char *usage;
} commands[] = {
	{ "version", version, 0, 0, "" },
	{ "attach", attach, 3, MAX_WORDS, "IFACE MODE OBJECT,FUNCTION,PRIORITY,ACTIONS..." },
	{ "attach-pin", attach_pin, 3, 3, "IFACE MODE PATH" },
	{ "attach-id", attach_id, 3, 3, "IFACE MODE ID" },
	{ "detach", detach, 2, MAX_WORDS, "IFACE ID..." },
	{ "detach-all", detach_all, 1, 1, "IFACE" },
	{ "list", list, 1, 1, "IFACE" },
	{ "clean", clean, 0, 0, "" },
	{ "xsk-create", xsk_create, 3, 3, "IFACE QUEUE MODE" },
	{ "xsk-delete", xsk_delete, 1, 1, "SOCKET" },
	{ "xsk-received", xsk_received, 1, 1, "SOCKET" },
	{ "bench-attach", bench_attach, 5, 5, "IFACE MODE OBJECT LENGTH ROUNDS" },
	{ "bench-read", bench_read, 2, 2, "IFACE ROUNDS" },
	{ "churn", churn, 5, MAX_WORDS, "IFACE MODE ROUNDS SEED OBJECT..." },
};

static int run(int count, char **words)
{
	const struct command *command = commands;
	const struct command *end = commands + sizeof(commands) / sizeof(*commands);

	while (command < end && (!count || strcmp(command->name, words[0])))
		command++;
	if (count == MAX_WORDS)
		return invalid("more than %d words", MAX_WORDS - 1);
	if (command == end)
		return invalid("not a command: '%s'", count ? words[0] : "");
	if (count - 1 < command->min || count - 1 > command->max)
		return invalid("usage: %s %s", command->name, command->usage);
	return command->run(count - 1, words + 1);
}

/* Runs a command and ends its answer. */
static bool answer(int count, char **words)
{
	char text[256] = "";
	int err;

	trouble[0] = '\0';
	err = run(count, words);
	/* Where there is nothing to clean, libxdp gives back a count. */
	if (err >= 0) {
		puts("ok");
	} else {
		libxdp_strerror(err, text, sizeof(text));
		printf("error %d %s\n", -err, trouble[0] ? trouble : text);
	}
	fflush(stdout);
	close_leaks();
	return err >= 0;
}

static int serve(void)
{
	char *words[MAX_WORDS], *line = NULL, *rest;
	size_t size = 0;
	int count;

	while (getline(&line, &size, stdin) >= 0) {
		rest = line;
		for (count = 0; count < MAX_WORDS; count++) {
			words[count] = strtok_r(count ? NULL : line, " \n", &rest);
			if (!words[count])
				break;
		}
		answer(count, words);
	}
	free(line);
	return 0;
}

int main(int argc, char **argv)
{
	libxdp_set_print(libxdp_print);
	libbpf_set_print(libbpf_print);
	if (argc == 2 && !strcmp(argv[1], "serve"))
		return serve();
	if (argc >= 3 && !strcmp(argv[1], "once"))
		return answer(argc - 2, argv + 2) ? 0 : 1;
	if (argc == 2 && !strcmp(argv[1], "version"))
		return answer(argc - 1, argv + 1) ? 0 : 1;
	fprintf(stderr, "usage: peer serve | once COMMAND... | version\n");
	return 2;
}
