/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Programs on interfaces: alone, where the kernel has no freplace or LIBXDP_SKIP_DISPATCHER says so, and in chains. Run by
 * tests/capi.rs in the root of the checkout, in a namespace with the interfaces `uplink` (10) and `second` (11).
 */
#include "say.h"
#include <linux/if_link.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define COUNTER "bpf/prebuilt/packet_counter.o"
#define FILTER "bpf/prebuilt/udp_filter.o"
#define PASS "bpf/prebuilt/xdp_pass.o"
#define DROP "tests/bpf/prebuilt/xdp_drop.o"
#define TWO "tests/bpf/prebuilt/two_programs.o"
#define FRAGS "tests/bpf/prebuilt/frags_pass.o"
#define PIN "/sys/fs/bpf/pinned"

enum { UPLINK = 10, SECOND = 11, NOWHERE = 12345 };

static struct xdp_program *open_file(const char *path)
{
	return xdp_program__open_file(path, NULL, NULL);
}

static struct xdp_multiprog *multiprog;

static void take_all_off(int ifindex)
{
	multiprog = xdp_multiprog__get_from_ifindex(ifindex);
	if (good(multiprog))
		INT(xdp_multiprog__detach(multiprog));
	else
		say("xdp_multiprog__detach(multiprog)", "there is none");
	xdp_multiprog__close(multiprog);
}

static void nothing_there(void)
{
	struct xdp_program *program = open_file(COUNTER), *loaded = open_file(PASS);
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	struct xdp_program *both[2] = { program, loaded };

	xdp_program__test_run(loaded, &opts, 0);
	say_part("nothing attached");
	say_interface(UPLINK);
	POINTER(xdp_multiprog__get_from_ifindex(UPLINK));
	BOOL(is_absent(NOWHERE));
	MODE(xdp_program__is_attached(program, UPLINK));
	MODE(xdp_program__is_attached(loaded, UPLINK));
	MODE(xdp_program__is_attached(loaded, NOWHERE));
	MODE(xdp_program__is_attached(loaded, 0));
	MODE(xdp_program__is_attached(loaded, -1));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_HW, 0));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_UNSPEC, 1));
	INT(xdp_program__detach(loaded, UPLINK, XDP_MODE_UNSPEC, UINT_MAX));
	INT(xdp_program__detach(loaded, NOWHERE, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach(loaded, 0, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach(loaded, -1, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach_multi(both, 2, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach_multi(both, 0, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach_multi(NULL, 2, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach_multi(both, 2, UPLINK, XDP_MODE_UNSPEC, 7));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_UNSPEC, 2));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_UNSPEC, 0x80000000));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_UNSPEC, UINT_MAX));
	INT(xdp_program__attach_multi(both, 0, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__attach_multi(NULL, 1, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__attach_multi(both, 2, UPLINK, XDP_MODE_UNSPEC, 4));
	say_program("program", program);
	xdp_program__close(program);
	xdp_program__close(loaded);
}

static void absent(void)
{
	struct xdp_program *program;

	say_part("interfaces that are not there");
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, NOWHERE, XDP_MODE_UNSPEC, 0));
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, NOWHERE, XDP_MODE_SKB, 0));
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, 0, XDP_MODE_UNSPEC, 0));
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, -1, XDP_MODE_UNSPEC, 0));
	xdp_program__close(program);
	INT(libxdp_clean_references(NOWHERE));
	INT(libxdp_clean_references(UPLINK));
	INT(libxdp_clean_references(0));
	INT(libxdp_clean_references(-1));
}

/* One program on and off in a mode. */
static void one(enum xdp_attach_mode mode, enum xdp_attach_mode wrong)
{
	struct xdp_program *program = open_file(COUNTER), *other = open_file(PASS), *found;
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	printf("-- one program, %s\n", mode_name(mode));
	INT(xdp_program__set_run_prio(program, 17));
	INT(xdp_program__set_chain_call_enabled(program, XDP_TX, true));
	INT(xdp_program__attach(program, UPLINK, mode, 0));
	say_program("program", program);
	say_interface(UPLINK);
	MODE(xdp_program__is_attached(program, UPLINK));
	MODE(xdp_program__is_attached(other, UPLINK));
	MODE(xdp_program__is_attached(program, SECOND));
	found = POINTER(xdp_program__from_id(xdp_program__id(program)));
	MODE(xdp_program__is_attached(found, UPLINK));
	INT(xdp_program__set_run_prio(program, 1));
	INT(xdp_program__set_chain_call_enabled(program, XDP_TX, false));
	INT(xdp_program__set_xdp_frags_support(program, true));
	INT(xdp_program__detach(other, UPLINK, mode, 0));
	INT(xdp_program__detach(program, UPLINK, wrong, 0));
	INT(xdp_program__detach(program, UPLINK, mode, 1));
	INT(xdp_program__detach(program, SECOND, mode, 0));
	xdp_program__test_run(other, &opts, 0);
	INT(xdp_program__detach(other, UPLINK, mode, 0));
	MODE(xdp_program__is_attached(program, UPLINK));
	INT(xdp_program__pin(program, PIN));
	INT(xdp_program__detach(found, UPLINK, mode, 0));
	say_interface(UPLINK);
	MODE(xdp_program__is_attached(program, UPLINK));
	INT(xdp_program__detach(program, UPLINK, mode, 0));
	xdp_program__close(found);
	say_part("again, by its pin");
	found = POINTER(xdp_program__from_pin(PIN));
	INT(xdp_program__attach(found, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach(found, UPLINK, mode, 0));
	say_part("again, as it is");
	INT(xdp_program__attach(program, UPLINK, mode, 0));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	unlink(PIN);
	xdp_program__close(found);
	xdp_program__close(other);
	xdp_program__close(program);
}

/* A program that is none of the library's. */
static void foreign(void)
{
	struct bpf_object *object = bpf_object__open_file(DROP, NULL);
	struct xdp_program *program, *theirs;
	int fd;

	bpf_object__load(object);
	fd = bpf_program__fd(bpf_object__next_program(object, NULL));
	say_part("a foreign program");
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_SKB_MODE, NULL));
	say_interface(UPLINK);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_program("program", program);
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_UNSPEC, 0));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	theirs = POINTER(xdp_program__from_fd(fd));
	MODE(xdp_program__is_attached(theirs, UPLINK));
	INT(libxdp_clean_references(UPLINK));
	INT(xdp_program__detach(theirs, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__detach(theirs, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	say_part("taken off as a whole");
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_DRV_MODE, NULL));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	say_interface(UPLINK);
	say_part("gone meanwhile");
	INT(bpf_xdp_attach(UPLINK, fd, XDP_FLAGS_DRV_MODE, NULL));
	multiprog = POINTER(xdp_multiprog__get_from_ifindex(UPLINK));
	POINTER(xdp_multiprog__next_prog(NULL, multiprog));
	POINTER(xdp_multiprog__hw_prog(multiprog));
	INT(xdp_multiprog__program_count(multiprog));
	INT(bpf_xdp_detach(UPLINK, XDP_FLAGS_DRV_MODE, NULL));
	INT(xdp_multiprog__detach(multiprog));
	VOID(xdp_multiprog__close(multiprog));
	xdp_program__close(program);
	xdp_program__close(theirs);
	bpf_object__close(object);
}

/* What cannot be attached. */
static void refused(void)
{
	struct xdp_program *program;

	say_part("what cannot be attached");
	program = open_file("tests/bpf/prebuilt/rejected.o");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_program("program", program);
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_HW, 0));
	xdp_program__close(program);
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, UPLINK, 77, 0));
	say_interface(UPLINK);
	xdp_program__close(program);
	take_all_off(UPLINK);
	say_interface(UPLINK);
}

static void alone(void)
{
	nothing_there();
	absent();
	one(XDP_MODE_UNSPEC, XDP_MODE_SKB);
	one(XDP_MODE_NATIVE, XDP_MODE_SKB);
	one(XDP_MODE_SKB, XDP_MODE_NATIVE);
	foreign();
	refused();
}

/* Two programs at once, which cannot be without a dispatcher. */
static void several_alone(void)
{
	struct xdp_program *programs[2] = { open_file(COUNTER), open_file(FILTER) };
	struct xdp_program *program = open_file(PASS);

	INT(xdp_program__attach_multi(programs, 2, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	say_program("first", programs[0]);
	say_part("one after the other");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	xdp_program__close(programs[0]);
	programs[0] = open_file(COUNTER);
	INT(xdp_program__attach(programs[0], UPLINK, XDP_MODE_SKB, 0));
	programs[1] = program;
	INT(xdp_program__detach_multi(programs, 2, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
}

/* With programs that can all be loaded, which the sections alone do not say. */
static struct bpf_object *open_two(void)
{
	struct bpf_object *object = bpf_object__open_file(TWO, NULL);
	struct bpf_program *program;

	bpf_object__for_each_program(program, object)
		bpf_program__set_type(program, BPF_PROG_TYPE_XDP);
	return object;
}

/* Objects that have been loaded, by the caller or for another program of theirs. */
static void loaded(void)
{
	struct bpf_object *object = open_two();
	struct xdp_program *program, *other;

	say_part("an object that the caller has loaded");
	program = POINTER(xdp_program__from_bpf_obj(object, NULL));
	INT(bpf_object__load(object));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_program("program", program);
	say_interface(UPLINK);
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	xdp_program__close(program);
	bpf_object__close(object);
	say_part("that another program has");
	object = open_two();
	program = POINTER(xdp_program__from_bpf_obj(object, NULL));
	other = POINTER(xdp_program__from_bpf_obj(object, NULL));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(other, SECOND, XDP_MODE_SKB, 0));
	say_interface(SECOND);
	take_all_off(SECOND);
	take_all_off(UPLINK);
	xdp_program__close(program);
	xdp_program__close(other);
	bpf_object__close(object);
	say_part("that cannot be loaded");
	object = bpf_object__open_file(TWO, NULL);
	program = POINTER(xdp_program__from_bpf_obj(object, NULL));
	BOOL(bpf_object__load(object) < 0);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	xdp_program__close(program);
	bpf_object__close(object);
}

static void set_mtu(int mtu)
{
	struct ifreq request = { .ifr_name = "uplink", .ifr_mtu = mtu };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	INT(ioctl(fd, SIOCSIFMTU, &request));
	close(fd);
}

/* Where the MTU asks for programs that read packets of several fragments. */
static void fragments(void)
{
	struct xdp_program *program = open_file(FRAGS), *other = open_file(COUNTER);

	say_part("fragments");
	set_mtu(9000);
	INT(xdp_program__attach(other, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	set_mtu(1500);
	xdp_program__close(program);
	xdp_program__close(other);
}

/* A thread that is cancelled while it is in the library, or not: it ends, and nothing else does. */
static void *look(void *nothing)
{
	(void)nothing;
	for (;;) {
		xdp_multiprog__close(xdp_multiprog__get_from_ifindex(UPLINK));
		pthread_testcancel();
	}
	return NULL;
}

static void cancelled(void)
{
	void *result;
	pthread_t thread;
	int i, count = 0;

	for (i = 0; i < 50; i++) {
		if (pthread_create(&thread, NULL, look, NULL))
			exit(6);
		usleep(1000 + i * 37);
		pthread_cancel(thread);
		pthread_join(thread, &result);
		count += result == PTHREAD_CANCELED;
	}
	NUMBER(count);
	say_interface(UPLINK);
}

static void skip(void)
{
	struct xdp_program *program, *second;

	setenv("LIBXDP_SKIP_DISPATCHER", "1", 1);
	loaded();
	fragments();
	one(XDP_MODE_NATIVE, XDP_MODE_SKB);
	one(XDP_MODE_SKB, XDP_MODE_NATIVE);
	say_part("with no name");
	program = open_file("tests/bpf/prebuilt/no_btf.o");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0));
	take_all_off(UPLINK);
	xdp_program__close(program);
	say_part("two interfaces");
	program = open_file(COUNTER);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(program, SECOND, XDP_MODE_SKB, 0));
	MODE(xdp_program__is_attached(program, SECOND));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	MODE(xdp_program__is_attached(program, SECOND));
	INT(xdp_program__detach(program, SECOND, XDP_MODE_SKB, 0));
	xdp_program__close(program);
	say_part("one on the other");
	program = open_file(COUNTER);
	second = open_file(PASS);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(second, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(second, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	take_all_off(UPLINK);
	say_interface(UPLINK);
	xdp_program__close(program);
	xdp_program__close(second);
}

/* ---- chains ---- */

static void grown(enum xdp_attach_mode mode)
{
	struct xdp_program *counter = open_file(COUNTER), *filter = open_file(FILTER), *pass = open_file(PASS);
	struct xdp_program *drop = open_file(DROP);
	struct xdp_program *two[2] = { counter, pass }, *twice[2] = { filter, filter }, *copy, *member;

	printf("-- a chain that grows and shrinks, %s\n", mode_name(mode));
	INT(xdp_program__set_run_prio(counter, 30));
	INT(xdp_program__set_run_prio(filter, 10));
	INT(xdp_program__set_run_prio(pass, 20));
	INT(xdp_program__set_chain_call_enabled(filter, XDP_DROP, true));
	INT(xdp_program__attach(counter, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(xdp_program__attach(filter, UPLINK, mode, 0));
	INT(xdp_program__attach(pass, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(xdp_program__attach(drop, UPLINK, mode == XDP_MODE_SKB ? XDP_MODE_NATIVE : XDP_MODE_SKB, 0));
	say_program("drop", drop);
	MODE(xdp_program__is_attached(filter, UPLINK));
	MODE(xdp_program__is_attached(filter, SECOND));
	multiprog = POINTER(xdp_multiprog__get_from_ifindex(UPLINK));
	BOOL(xdp_multiprog__is_legacy(multiprog));
	INT(xdp_multiprog__program_count(multiprog));
	member = POINTER(xdp_multiprog__next_prog(NULL, multiprog));
	copy = POINTER(xdp_program__clone(member, 0));
	say_program("copy", copy);
	INT(xdp_program__set_run_prio(member, 3));
	POINTER(xdp_multiprog__next_prog(member, multiprog));
	POINTER(xdp_multiprog__hw_prog(multiprog));
	INT(xdp_program__detach(filter, UPLINK, XDP_MODE_HW, 0));
	INT(xdp_program__detach(filter, UPLINK, mode == XDP_MODE_SKB ? XDP_MODE_NATIVE : XDP_MODE_SKB, 0));
	INT(xdp_program__detach(filter, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach(filter, UPLINK, mode, 0));
	INT(xdp_program__detach_multi(twice, 2, UPLINK, mode, 0));
	say_part("what it was is gone");
	INT(xdp_multiprog__detach(multiprog));
	VOID(xdp_multiprog__close(multiprog));
	say_part("back, from a copy");
	INT(xdp_program__attach(copy, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach_multi(two, 2, UPLINK, mode, 0));
	say_interface(UPLINK);
	INT(libxdp_clean_references(UPLINK));
	INT(libxdp_clean_references(0));
	say_interface(UPLINK);
	INT(xdp_program__detach(copy, UPLINK, XDP_MODE_UNSPEC, 0));
	say_interface(UPLINK);
	INT(access("/sys/fs/bpf/xdp", F_OK));
	xdp_program__close(drop);
	xdp_program__close(copy);
	xdp_program__close(counter);
	xdp_program__close(filter);
	xdp_program__close(pass);
}

/* All at once, in the order of priorities and names, whatever the order in the array. */
static void at_once(void)
{
	struct xdp_program *programs[4] = { open_file(DROP), open_file(COUNTER), open_file(PASS), open_file(FILTER) };
	struct xdp_program *first[2] = { programs[1], programs[3] };
	int i;

	say_part("four at once");
	INT(xdp_program__set_run_prio(programs[0], 90));
	INT(xdp_program__set_run_prio(programs[1], 50));
	INT(xdp_program__set_run_prio(programs[2], 50));
	INT(xdp_program__set_run_prio(programs[3], 50));
	INT(xdp_program__attach_multi(programs, 4, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach_multi(first, 2, UPLINK, XDP_MODE_UNSPEC, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach_multi(programs, 4, UPLINK, XDP_MODE_UNSPEC, 0));
	take_all_off(UPLINK);
	say_interface(UPLINK);
	for (i = 0; i < 4; i++)
		xdp_program__close(programs[i]);
}

static void full(void)
{
	struct xdp_program *programs[12];
	int i;

	say_part("a full chain");
	for (i = 0; i < 12; i++)
		programs[i] = open_file(i % 2 ? PASS : COUNTER);
	INT(xdp_program__attach_multi(programs, 11, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	for (i = 0; i < 12; i++) {
		xdp_program__close(programs[i]);
		programs[i] = open_file(i % 2 ? PASS : COUNTER);
		xdp_program__set_run_prio(programs[i], i);
	}
	INT(xdp_program__attach_multi(programs, 10, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	INT(xdp_program__attach(programs[10], UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__attach_multi(programs + 10, 2, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__detach(programs[10], UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__detach(programs[4], UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach_multi(programs, 10, UPLINK, XDP_MODE_NATIVE, 0));
	take_all_off(UPLINK);
	for (i = 0; i < 12; i++)
		xdp_program__close(programs[i]);
}

/* A component, run on a packet, pinned, attached to a second interface. */
static void component(void)
{
	unsigned char packet[64] = {}, out[256];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = 64, .data_out = out,
		    .data_size_out = sizeof(out), .repeat = 1);
	struct xdp_program *program = open_file(DROP), *found;

	say_part("a component");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__test_run(program, &opts, 0));
	NUMBER(opts.retval);
	INT(xdp_program__pin(program, PIN));
	found = POINTER(xdp_program__from_pin(PIN));
	say_program("program", found);
	opts.retval = 77;
	INT(xdp_program__test_run(found, &opts, 0));
	NUMBER(opts.retval);
	INT(xdp_program__attach(found, SECOND, XDP_MODE_NATIVE, 0));
	say_interface(SECOND);
	INT(xdp_program__detach(found, SECOND, XDP_MODE_NATIVE, 0));
	say_interface(SECOND);
	take_all_off(SECOND);
	say_interface(UPLINK);
	take_all_off(UPLINK);
	unlink(PIN);
	xdp_program__close(found);
	say_part("one that runs alone");
	xdp_program__close(program);
	program = open_file(DROP);
	INT(xdp_program__test_run(program, &opts, 0));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	take_all_off(UPLINK);
	xdp_program__close(program);
}

static void frags(void)
{
	struct xdp_program *program = open_file(FRAGS), *counter = open_file(COUNTER);

	say_part("fragments");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_program("program", program);
	say_interface(UPLINK);
	INT(xdp_program__set_xdp_frags_support(counter, true));
	INT(xdp_program__attach(counter, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_NATIVE, 0));
	xdp_program__close(program);
	program = open_file(PASS);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	say_interface(UPLINK);
	xdp_program__close(program);
	xdp_program__close(counter);
}

/* Objects of which there is more than one program, and those of the caller. */
static void objects(void)
{
	struct bpf_object *object = bpf_object__open_file(COUNTER, NULL);
	struct xdp_program *program, *other;

	say_part("the caller's object");
	program = xdp_program__from_bpf_obj(object, NULL);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	BOOL(bpf_program__fd(bpf_object__next_program(object, NULL)) >= 0);
	BOOL(bpf_map__fd(bpf_object__find_map_by_name(object, "traffic")) >= 0);
	other = xdp_program__from_bpf_obj(object, NULL);
	say_program("other", other);
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	take_all_off(UPLINK);
	xdp_program__close(other);
	xdp_program__close(program);
	bpf_object__close(object);
	say_part("a section that tells no type");
	program = xdp_program__open_file(TWO, "xdp/other", NULL);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	xdp_program__close(program);
	program = xdp_program__open_file(TWO, "xdp", NULL);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	take_all_off(UPLINK);
	xdp_program__close(program);
}

/* An object that its caller has loaded is in no slot. */
static void loaded_for_no_slot(void)
{
	struct bpf_object *object = open_two();
	struct xdp_program *program;

	say_part("an object that the caller has loaded");
	program = POINTER(xdp_program__from_bpf_obj(object, NULL));
	INT(bpf_object__load(object));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	xdp_program__close(program);
	bpf_object__close(object);
}

/* A chain one of whose pins somebody has removed. */
static void damaged(void)
{
	struct xdp_program *program = open_file(COUNTER), *pass = open_file(PASS), *dispatcher;

	say_part("a lost pin");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0));
	INT(xdp_program__attach(pass, UPLINK, XDP_MODE_SKB, 0));
	INT(system("rm /sys/fs/bpf/xdp/dispatch-10-*/prog1-prog"));
	say_interface(UPLINK);
	MODE(xdp_program__is_attached(program, UPLINK));
	MODE(xdp_program__is_attached(pass, UPLINK));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_SKB, 0));
	multiprog = POINTER(xdp_multiprog__get_from_ifindex(UPLINK));
	dispatcher = POINTER(xdp_program__clone(xdp_multiprog__main_prog(multiprog), 0));
	xdp_multiprog__close(multiprog);
	MODE(xdp_program__is_attached(dispatcher, UPLINK));
	INT(xdp_program__detach(dispatcher, UPLINK, XDP_MODE_SKB, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	xdp_program__close(program);
	xdp_program__close(pass);
	xdp_program__close(dispatcher);
}

/* The same program twice. */
static void twice(void)
{
	struct xdp_program *program = open_file(COUNTER), *pass = open_file(PASS);
	struct xdp_program *both[2] = { program, program };

	say_part("twice");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__attach(pass, UPLINK, XDP_MODE_NATIVE, 0));
	TRY(INT, xdp_program__detach_multi(both, 2, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
	take_all_off(UPLINK);
	say_part("and attached twice");
	INT(xdp_program__attach_multi(&pass, 1, UPLINK, XDP_MODE_NATIVE, 0));
	TRY(INT, xdp_program__attach_multi(&pass, 1, UPLINK, XDP_MODE_NATIVE, 0));
	TRY(INT, xdp_program__detach(pass, UPLINK, XDP_MODE_NATIVE, 0));
	take_all_off(UPLINK);
	xdp_program__close(program);
	xdp_program__close(pass);
}

/* XDP_ATTACH_DEVBIND, which the headers do not have that this is compiled with. */
#define BOUND 1

static bool (*is_bound)(const struct xdp_multiprog *);

static void say_bound(void)
{
	multiprog = xdp_multiprog__get_from_ifindex(UPLINK);
	if (good(multiprog))
		BOOL(is_bound(multiprog));
	xdp_multiprog__close(multiprog);
	say_interface(UPLINK);
}

/* To the device: the dispatcher, and what is in it. */
static void bound(void)
{
	struct xdp_program *program = open_file(COUNTER), *pass = open_file(PASS), *drop = open_file(DROP);
	struct xdp_program *both[2] = { program, pass };

	is_bound = dlsym(RTLD_DEFAULT, "xdp_multiprog__xdp_dev_bound");
	say_part("the first");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, BOUND));
	say_bound();
	say_part("the second");
	INT(xdp_program__attach(pass, UPLINK, XDP_MODE_NATIVE, BOUND));
	say_bound();
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_bound();
	take_all_off(UPLINK);
	say_part("in skb mode");
	INT(xdp_program__attach(drop, UPLINK, XDP_MODE_SKB, BOUND));
	say_bound();
	take_all_off(UPLINK);
	say_part("both at once");
	xdp_program__close(program);
	xdp_program__close(pass);
	both[0] = open_file(COUNTER);
	both[1] = open_file(PASS);
	INT(xdp_program__attach_multi(both, 2, UPLINK, XDP_MODE_NATIVE, BOUND));
	say_bound();
	take_all_off(UPLINK);
	say_part("unbound, and bound");
	xdp_program__close(both[0]);
	xdp_program__close(both[1]);
	xdp_program__close(drop);
	program = open_file(COUNTER);
	pass = open_file(PASS);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_bound();
	INT(xdp_program__attach(pass, UPLINK, XDP_MODE_NATIVE, BOUND));
	say_bound();
	take_all_off(UPLINK);
	say_part("bound, and unbound");
	xdp_program__close(program);
	xdp_program__close(pass);
	program = open_file(COUNTER);
	pass = open_file(PASS);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, BOUND));
	INT(xdp_program__attach(pass, UPLINK, XDP_MODE_NATIVE, 0));
	say_bound();
	take_all_off(UPLINK);
	say_part("flags that are not there");
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 2));
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, BOUND | 1 << 16));
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_NATIVE, BOUND));
	xdp_program__close(program);
	xdp_program__close(pass);
}

static void chains(void)
{
	nothing_there();
	absent();
	grown(XDP_MODE_UNSPEC);
	grown(XDP_MODE_NATIVE);
	grown(XDP_MODE_SKB);
	at_once();
	full();
	component();
	objects();
	loaded_for_no_slot();
	damaged();
	twice();
	foreign();
	refused();
}

/* ---- for chains that two libraries work on: a step, and what is there afterwards ---- */

static void start(void)
{
	struct xdp_program *program = open_file(COUNTER), *filter = open_file(FILTER);

	xdp_program__set_run_prio(program, 30);
	xdp_program__set_run_prio(filter, 10);
	xdp_program__set_chain_call_enabled(filter, XDP_DROP, true);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	INT(xdp_program__attach(filter, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
}

static void list(void)
{
	say_interface(UPLINK);
}

static void add(void)
{
	struct xdp_program *program = open_file(PASS);

	xdp_program__set_run_prio(program, 20);
	INT(xdp_program__attach(program, UPLINK, XDP_MODE_NATIVE, 0));
	say_interface(UPLINK);
}

/* The first in the chain. */
static void take(void)
{
	struct xdp_program *program;

	multiprog = POINTER(xdp_multiprog__get_from_ifindex(UPLINK));
	program = POINTER(xdp_program__clone(xdp_multiprog__next_prog(NULL, multiprog), 0));
	xdp_multiprog__close(multiprog);
	INT(xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0));
	say_interface(UPLINK);
}

static void clean(void)
{
	INT(libxdp_clean_references(0));
	say_interface(UPLINK);
}

static void off(void)
{
	take_all_off(UPLINK);
	say_interface(UPLINK);
}

static const struct scenario scenarios[] = {
	{ "alone", alone }, { "several_alone", several_alone }, { "skip", skip },
	{ "chains", chains }, { "frags", frags }, { "bound", bound }, { "cancelled", cancelled },
	{ "start", start }, { "list", list }, { "add", add }, { "take", take }, { "clean", clean }, { "off", off },
};

SAY_MAIN(scenarios)
