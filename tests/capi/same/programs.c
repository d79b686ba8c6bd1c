/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Where programs come from and what they are. Run by tests/capi.rs in the root of the checkout. */
#include "say.h"
#include <fcntl.h>

#define COUNTER "bpf/prebuilt/packet_counter.o"
#define TWO "tests/bpf/prebuilt/two_programs.o"
#define FRAGS "tests/bpf/prebuilt/frags_pass.o"
#define RUNS "tests/bpf/prebuilt/xdp_drop.o"
#define SEVERAL "tests/bpf/prebuilt/test_run.o"
#define PIN "/sys/fs/bpf/pinned"

static struct xdp_program *program;

/* Opens, tells, closes. */
#define OPEN(call) do { \
		program = POINTER_AS(#call, call); \
		say_program("program", program); \
		if (good(program)) \
			xdp_program__close(program); \
	} while (0)

static void open_all(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, named, .object_name = "another");
	LIBBPF_OPTS(bpf_object_open_opts, no_maps, .pin_root_path = "/nowhere");
	struct bpf_object_open_opts bad = { .sz = 4 };
	char tail[256] = {};

	OPEN(xdp_program__open_file(COUNTER, NULL, NULL));
	OPEN(xdp_program__open_file(COUNTER, "xdp", NULL));
	OPEN(xdp_program__open_file(COUNTER, "packet_counter", NULL));
	OPEN(xdp_program__open_file(COUNTER, "", NULL));
	OPEN(xdp_program__open_file(TWO, NULL, NULL));
	OPEN(xdp_program__open_file(TWO, "xdp", NULL));
	OPEN(xdp_program__open_file(TWO, "xdp/other", NULL));
	OPEN(xdp_program__open_file(TWO, "xdp/", NULL));
	OPEN(xdp_program__open_file(FRAGS, NULL, NULL));
	OPEN(xdp_program__open_file(FRAGS, "xdp.frags", NULL));
	OPEN(xdp_program__open_file(FRAGS, "xdp", NULL));
	OPEN(xdp_program__open_file(SEVERAL, "xdp/sends", NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/no_btf.o", NULL, NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/rejected.o", NULL, NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/socket_filter.o", NULL, NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/dispatcher_v1.o", NULL, NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/pinned_map.o", NULL, NULL));
	OPEN(xdp_program__open_file("tests/bpf/prebuilt/odd_config.o", NULL, NULL));
	OPEN(xdp_program__open_file("bpf/prebuilt/xdp_dispatcher.o", NULL, NULL));
	OPEN(xdp_program__open_file("nowhere.o", NULL, NULL));
	OPEN(xdp_program__open_file("Makefile", NULL, NULL));
	OPEN(xdp_program__open_file("bpf", NULL, NULL));
	OPEN(xdp_program__open_file("/dev/null", NULL, NULL));
	OPEN(xdp_program__open_file("", NULL, NULL));
	OPEN(xdp_program__open_file(NULL, NULL, NULL));
	OPEN(xdp_program__open_file(NULL, "xdp", NULL));
	say_part("with options");
	OPEN(xdp_program__open_file(COUNTER, NULL, &named));
	OPEN(xdp_program__open_file(COUNTER, NULL, &no_maps));
	OPEN(xdp_program__open_file(COUNTER, NULL, &bad));
	memcpy(tail, &named, sizeof(named));
	*(size_t *)tail = sizeof(tail);
	OPEN(xdp_program__open_file(COUNTER, NULL, (void *)tail));
	tail[sizeof(tail) - 1] = 1;
	OPEN(xdp_program__open_file(COUNTER, NULL, (void *)tail));
}

static void find_all(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, named, .object_name = "another");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, by_name, .find_filename = "two_programs.o",
			    .prog_name = "drop_and_stop");
	char folder[PATH_MAX];

	setenv("LIBXDP_OBJECT_PATH", "tests/bpf/prebuilt", 1);
	OPEN(xdp_program__find_file("two_programs.o", NULL, NULL));
	OPEN(xdp_program__find_file("two_programs.o", "xdp/other", NULL));
	OPEN(xdp_program__find_file("two_programs.o", "nothing", NULL));
	OPEN(xdp_program__find_file("two_programs.o", NULL, &named));
	OPEN(xdp_program__find_file("nowhere.o", NULL, NULL));
	OPEN(xdp_program__find_file("../two_programs.c", NULL, NULL));
	OPEN(xdp_program__find_file("", NULL, NULL));
	OPEN(xdp_program__create(&by_name));
	say_part("an absolute path");
	OPEN(xdp_program__find_file(realpath(TWO, folder), NULL, NULL));
	setenv("LIBXDP_OBJECT_PATH", realpath("tests/bpf/prebuilt", folder), 1);
	OPEN(xdp_program__find_file("frags_pass.o", NULL, NULL));
	say_part("a folder that is not there");
	setenv("LIBXDP_OBJECT_PATH", "/nowhere", 1);
	OPEN(xdp_program__find_file("two_programs.o", NULL, NULL));
	OPEN(xdp_program__create(&by_name));
	setenv("LIBXDP_OBJECT_PATH", "", 1);
	OPEN(xdp_program__find_file("two_programs.o", NULL, NULL));
	say_part("without the variable");
	unsetenv("LIBXDP_OBJECT_PATH");
	OPEN(xdp_program__find_file("two_programs.o", NULL, NULL));
}

/* Also programs in sections that tell no type. */
static int load_all(struct bpf_object *object)
{
	struct bpf_program *each;

	bpf_object__for_each_program(each, object) {
		if (bpf_program__type(each) == BPF_PROG_TYPE_UNSPEC)
			bpf_program__set_type(each, BPF_PROG_TYPE_XDP);
	}
	return bpf_object__load(object);
}

/* Runs `program` on a packet of `length`. */
static void run_once(__u32 length, unsigned int flags)
{
	unsigned char packet[2048] = {}, out[2048] = {};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = length, .data_out = out,
		    .data_size_out = sizeof(out), .repeat = 1);

	INT(xdp_program__test_run(program, &opts, flags));
	printf("it returned %u, %u bytes\n", opts.retval, opts.data_size_out);
}

static void object(void)
{
	struct bpf_object *object = bpf_object__open_file(TWO, NULL), *loaded;
	LIBBPF_OPTS(bpf_test_run_opts, nothing);
	struct xdp_program *other, *clone;

	OPEN(xdp_program__from_bpf_obj(object, NULL));
	OPEN(xdp_program__from_bpf_obj(object, "xdp"));
	OPEN(xdp_program__from_bpf_obj(object, "xdp/other"));
	OPEN(xdp_program__from_bpf_obj(object, "nothing"));
	OPEN(xdp_program__from_bpf_obj(object, ""));
	OPEN(xdp_program__from_bpf_obj(NULL, NULL));
	OPEN(xdp_program__from_bpf_obj(NULL, "xdp"));
	say_part("two at once");
	program = POINTER(xdp_program__from_bpf_obj(object, NULL));
	other = POINTER(xdp_program__from_bpf_obj(object, NULL));
	INT(xdp_program__set_run_prio(program, 7));
	INT(xdp_program__set_xdp_frags_support(other, true));
	say_program("program", program);
	say_program("other", other);
	BOOL(xdp_program__bpf_obj(program) == object);
	BOOL(xdp_program__btf(program) == bpf_object__btf(object));
	VOID(xdp_program__close(program));
	VOID(xdp_program__close(other));
	TEXT(bpf_object__name(object));
	bpf_object__close(object);
	say_part("an object that is loaded");
	loaded = bpf_object__open_file(TWO, NULL);
	program = POINTER(xdp_program__from_bpf_obj(loaded, NULL));
	INT(load_all(loaded));
	say_program("program", program);
	other = POINTER(xdp_program__from_bpf_obj(loaded, "xdp/other"));
	say_program("other", other);
	INT(xdp_program__set_run_prio(other, 3));
	INT(xdp_program__set_xdp_frags_support(other, true));
	INT(xdp_program__pin(other, PIN));
	INT(xdp_program__test_run(program, &nothing, 0));
	run_once(64, 0);
	say_program("program", program);
	VOID(xdp_program__close(program));
	program = other;
	run_once(64, 0);
	say_program("other", other);
	VOID(xdp_program__close(other));
	bpf_object__close(loaded);
	say_part("a sibling is loaded first, and a clone");
	loaded = bpf_object__open_file(TWO, NULL);
	program = POINTER(xdp_program__from_bpf_obj(loaded, NULL));
	other = POINTER(xdp_program__from_bpf_obj(loaded, "xdp/other"));
	clone = POINTER(xdp_program__clone(program, 0));
	run_once(64, 0);
	xdp_program__close(program);
	program = other;
	run_once(64, 0);
	say_program("other", other);
	xdp_program__close(other);
	program = clone;
	run_once(64, 0);
	say_program("clone", clone);
	xdp_program__close(clone);
	bpf_object__close(loaded);
	say_part("flags of the caller's");
	loaded = bpf_object__open_file(COUNTER, NULL);
	INT(bpf_program__set_flags(bpf_object__next_program(loaded, NULL), BPF_F_STRICT_ALIGNMENT));
	program = POINTER(xdp_program__from_bpf_obj(loaded, NULL));
	run_once(64, 0);
	NUMBER(bpf_program__flags(bpf_object__next_program(loaded, NULL)));
	xdp_program__close(program);
	bpf_object__close(loaded);
}

/* A program in the kernel, for others to find. */
static struct bpf_object *load(const char *path, int *fd, __u32 *id)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_prog_info info = {};
	__u32 length = sizeof(info);

	if (load_all(object))
		exit(4);
	*fd = bpf_program__fd(bpf_object__next_program(object, NULL));
	bpf_obj_get_info_by_fd(*fd, &info, &length);
	*id = info.id;
	return object;
}

static void kernel(void)
{
	struct bpf_object *object, *filter;
	int fd, filter_fd, file, map;
	__u32 id, filter_id;

	object = load(COUNTER, &fd, &id);
	filter = load("tests/bpf/prebuilt/socket_filter.o", &filter_fd, &filter_id);
	file = fileno(tmpfile());
	map = bpf_map__fd(bpf_object__find_map_by_name(object, "traffic"));
	OPEN(xdp_program__from_fd(fd));
	OPEN(xdp_program__from_fd(filter_fd));
	/* What C makes of it is bytes that mean something else: only whether it refuses is told. */
	BOOL(good(xdp_program__from_fd(map)));
	OPEN(xdp_program__from_fd(file));
	OPEN(xdp_program__from_fd(-1));
	OPEN(xdp_program__from_fd(12345));
	OPEN(xdp_program__from_fd(INT_MIN));
	OPEN(xdp_program__from_id(id));
	OPEN(xdp_program__from_id(filter_id));
	OPEN(xdp_program__from_id(0));
	OPEN(xdp_program__from_id(UINT_MAX));
	INT(bpf_obj_pin(fd, PIN));
	INT(bpf_obj_pin(map, PIN "-map"));
	OPEN(xdp_program__from_pin(PIN));
	OPEN(xdp_program__from_pin("/sys/fs/bpf"));
	OPEN(xdp_program__from_pin("/sys/fs/bpf/nothing"));
	OPEN(xdp_program__from_pin("/dev/null"));
	OPEN(xdp_program__from_pin(""));
	OPEN(xdp_program__from_pin(NULL));
	unlink(PIN);
	unlink(PIN "-map");
	say_part("in the place of stdin");
	close(0);
	program = xdp_program__from_id(id);
	BOOL(xdp_program__fd(program) > 2);
	xdp_program__close(program);
	open("/dev/null", O_RDONLY);
	say_part("one program, three times");
	program = xdp_program__from_fd(fd);
	BOOL(xdp_program__id(program) == id);
	BOOL(xdp_program__fd(program) != fd);
	bpf_object__close(object);
	say_program("program", program);
	INT(xdp_program__set_run_prio(program, 1));
	INT(xdp_program__set_chain_call_enabled(program, XDP_DROP, true));
	INT(xdp_program__set_xdp_frags_support(program, true));
	xdp_program__close(program);
	bpf_object__close(filter);
	say_part("with a run config");
	object = load(TWO, &fd, &id);
	OPEN(xdp_program__from_fd(fd));
	OPEN(xdp_program__from_id(id));
	bpf_object__close(object);
	say_part("with a long name");
	object = load(FRAGS, &fd, &id);
	OPEN(xdp_program__from_fd(fd));
	bpf_object__close(object);
}

enum { OBJECT, OPTIONS, NAME, FIND_FILE, OPEN_FILE, PIN_PATH, ID, DESCRIPTOR, WAYS };

/* Every set of members, valid and not. */
static void create(void)
{
	static const char *const words[] = { "obj", "opts", "prog_name", "find", "open", "pin", "id", "fd" };
	LIBBPF_OPTS(bpf_object_open_opts, named, .object_name = "another");
	struct bpf_object *object, *loaded;
	char text[128];
	unsigned int set;
	int fd, way;
	__u32 id;

	setenv("LIBXDP_OBJECT_PATH", "tests/bpf/prebuilt", 1);
	object = bpf_object__open_file(TWO, NULL);
	loaded = load(COUNTER, &fd, &id);
	INT(bpf_obj_pin(fd, PIN));
	for (set = 0; set < 1U << WAYS; set++) {
		DECLARE_LIBXDP_OPTS(xdp_program_opts, opts);

		if (set & 1 << OBJECT)
			opts.obj = object;
		if (set & 1 << OPTIONS)
			opts.opts = &named;
		if (set & 1 << NAME)
			opts.prog_name = "drop_and_stop";
		if (set & 1 << FIND_FILE)
			opts.find_filename = "two_programs.o";
		if (set & 1 << OPEN_FILE)
			opts.open_filename = TWO;
		if (set & 1 << PIN_PATH)
			opts.pin_path = PIN;
		if (set & 1 << ID)
			opts.id = id;
		if (set & 1 << DESCRIPTOR)
			opts.fd = fd;
		strcpy(text, "xdp_program__create(");
		for (way = 0; way < WAYS; way++) {
			if (set & 1U << way)
				strcat(strcat(text, text[strlen(text) - 1] == '(' ? "" : " "), words[way]);
		}
		program = say_pointer(strcat(text, ")"), FRESH(xdp_program__create(&opts)));
		if (!good(program))
			continue;
		say_program("program", program);
		xdp_program__close(program);
	}
	unlink(PIN);
	bpf_object__close(object);
	bpf_object__close(loaded);
}

/* Values that are not there, and options of other sizes. */
static void create_odd(void)
{
	struct bpf_object *object = bpf_object__open_file(TWO, NULL);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_name, .obj = object, .prog_name = "nobody");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, section_as_name, .obj = object, .prog_name = "xdp");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_file, .open_filename = "nowhere.o");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_find, .find_filename = "nowhere.o");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_pin, .pin_path = "/sys/fs/bpf/nothing");
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_id, .id = UINT_MAX);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_such_fd, .fd = 12345);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, negative_fd, .fd = -1);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, first, .open_filename = TWO);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, no_size, .open_filename = TWO);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, only_size, .open_filename = TWO);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, half, .open_filename = TWO, .id = 1, .fd = 1);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, part_of_word, .open_filename = TWO);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, tiny, .open_filename = TWO);
	char tail[256] = {};

	OPEN(xdp_program__create(NULL));
	OPEN(xdp_program__create(&no_such_name));
	OPEN(xdp_program__create(&section_as_name));
	OPEN(xdp_program__create(&no_such_file));
	OPEN(xdp_program__create(&no_such_find));
	OPEN(xdp_program__create(&no_such_pin));
	OPEN(xdp_program__create(&no_such_id));
	OPEN(xdp_program__create(&no_such_fd));
	OPEN(xdp_program__create(&negative_fd));
	say_part("sizes");
	no_size.sz = 0;
	OPEN(xdp_program__create(&no_size));
	tiny.sz = sizeof(size_t) - 1;
	OPEN(xdp_program__create(&tiny));
	only_size.sz = sizeof(size_t);
	OPEN(xdp_program__create(&only_size));
	half.sz = offsetof(struct xdp_program_opts, id);
	OPEN(xdp_program__create(&half));
	part_of_word.sz = offsetof(struct xdp_program_opts, open_filename) + 4;
	OPEN(xdp_program__create(&part_of_word));
	memcpy(tail, &first, sizeof(first));
	*(size_t *)tail = sizeof(tail);
	OPEN(xdp_program__create((void *)tail));
	tail[sizeof(tail) - 1] = 1;
	OPEN(xdp_program__create((void *)tail));
	tail[sizeof(tail) - 1] = 0;
	tail[sizeof(first)] = 1;
	OPEN(xdp_program__create((void *)tail));
	bpf_object__close(object);
}

/* What there is room for; the byte behind it must stay. */
static void print_actions(size_t length)
{
	char buffer[80], call[80];
	int result;

	memset(buffer, '~', sizeof(buffer));
	buffer[sizeof(buffer) - 1] = 0;
	result = FRESH(xdp_program__print_chain_call_actions(program, buffer, length));
	snprintf(call, sizeof(call), "xdp_program__print_chain_call_actions(program, buffer, %zu)", length);
	say_int(call, result);
	printf("the buffer = \"%.*s\"%s\n", (int)length, buffer, buffer[length] == '~' ? "" : " and more");
}

static void settings(void)
{
	unsigned int action, set;
	size_t length;

	program = xdp_program__open_file(COUNTER, NULL, NULL);
	say_program("program", program);
	INT(xdp_program__set_run_prio(program, 0));
	NUMBER(xdp_program__run_prio(program));
	INT(xdp_program__set_run_prio(program, UINT_MAX));
	NUMBER(xdp_program__run_prio(program));
	INT(xdp_program__set_run_prio(program, 49));
	for (action = 0; action < 40; action++) {
		printf("action %u\n", action);
		INT(xdp_program__set_chain_call_enabled(program, action, true));
		BOOL(xdp_program__chain_call_enabled(program, action));
		INT(xdp_program__set_chain_call_enabled(program, action, action % 2));
		BOOL(xdp_program__chain_call_enabled(program, action));
		say_program("program", program);
	}
	INT(xdp_program__set_chain_call_enabled(program, UINT_MAX, true));
	BOOL(xdp_program__chain_call_enabled(program, -1));
	INT(xdp_program__set_xdp_frags_support(program, true));
	BOOL(xdp_program__xdp_frags_support(program));
	INT(xdp_program__set_xdp_frags_support(program, false));
	BOOL(xdp_program__xdp_frags_support(program));
	say_part("printed");
	for (action = 0; action < 31; action++)
		xdp_program__set_chain_call_enabled(program, action, false);
	for (set = 0; set < 32; set++) {
		for (action = 0; action < 5; action++)
			xdp_program__set_chain_call_enabled(program, action, set & 1U << action);
		printf("actions %#x\n", set);
		print_actions(64);
		/* Room for none is left out: what is in the buffer then is listed by itself. */
		for (length = set ? 0 : 64; length < (set == 31 ? 60 : 26); length++)
			print_actions(length);
	}
	INT(xdp_program__print_chain_call_actions(program, NULL, 10));
	INT(xdp_program__print_chain_call_actions(program, NULL, 0));
	xdp_program__close(program);
	say_part("of a file");
	program = xdp_program__open_file(TWO, NULL, NULL);
	INT(xdp_program__set_chain_call_enabled(program, XDP_TX, true));
	print_actions(64);
	xdp_program__close(program);
}

static void clone(void)
{
	struct bpf_object *object;
	struct xdp_program *copy, *second;
	__u32 id;
	int fd;

	program = xdp_program__open_file(TWO, NULL, NULL);
	copy = POINTER(xdp_program__clone(program, 1));
	copy = POINTER(xdp_program__clone(program, UINT_MAX));
	INT(xdp_program__set_run_prio(program, 9));
	INT(xdp_program__set_chain_call_enabled(program, XDP_TX, true));
	INT(xdp_program__set_xdp_frags_support(program, true));
	copy = POINTER(xdp_program__clone(program, 0));
	say_program("copy", copy);
	INT(xdp_program__set_run_prio(copy, 8));
	second = POINTER(xdp_program__clone(copy, 0));
	say_program("second", second);
	say_program("program", program);
	BOOL(xdp_program__bpf_obj(copy) == xdp_program__bpf_obj(program));
	BOOL(copy != program);
	VOID(xdp_program__close(second));
	VOID(xdp_program__close(copy));
	say_program("program", program);
	VOID(xdp_program__close(program));
	say_part("loaded");
	object = load(COUNTER, &fd, &id);
	program = xdp_program__from_fd(fd);
	copy = POINTER(xdp_program__clone(program, 0));
	BOOL(xdp_program__id(copy) == id);
	BOOL(xdp_program__fd(copy) != xdp_program__fd(program));
	xdp_program__close(program);
	bpf_object__close(object);
	say_program("copy", copy);
	POINTER(xdp_program__clone(copy, 2));
	INT(xdp_program__set_run_prio(copy, 8));
	xdp_program__close(copy);
}


static void run(void)
{
	LIBBPF_OPTS(bpf_test_run_opts, nothing);
	struct bpf_test_run_opts bad = { .sz = 4 };

	program = xdp_program__open_file(RUNS, "xdp", NULL);
	run_once(64, 1);
	run_once(64, 0);
	run_once(64, 0);
	run_once(5, 0);
	INT(xdp_program__test_run(program, &nothing, 0));
	INT(xdp_program__test_run(program, &bad, 0));
	INT(xdp_program__test_run(program, NULL, 0));
	INT(xdp_program__test_run(program, NULL, 4));
	say_program("program", program);
	INT(xdp_program__set_run_prio(program, 3));
	INT(xdp_program__set_chain_call_enabled(program, XDP_TX, true));
	INT(xdp_program__set_xdp_frags_support(program, true));
	say_part("pinned");
	INT(xdp_program__pin(program, PIN));
	INT(xdp_program__pin(program, PIN));
	INT(xdp_program__pin(program, "/sys/fs/bpf/a/b/pinned"));
	INT(xdp_program__pin(program, "/sys/fs/bpf/a/pinned"));
	INT(rmdir("/sys/fs/bpf/a"));
	INT(unlink("/sys/fs/bpf/a/pinned"));
	INT(rmdir("/sys/fs/bpf/a"));
	INT(xdp_program__pin(program, PIN "/on/pinned"));
	INT(xdp_program__pin(program, "/proc/nowhere/pinned"));
	INT(xdp_program__pin(program, "/tmp/pinned"));
	INT(xdp_program__pin(program, "pinned"));
	INT(xdp_program__pin(program, ""));
	INT(xdp_program__pin(program, "/sys/fs/bpf/a.dot"));
	TRY(INT, xdp_program__pin(program, NULL));
	OPEN(xdp_program__from_pin(PIN));
	unlink(PIN);
	say_part("from the kernel");
	program = xdp_program__open_file(RUNS, NULL, NULL);
	INT(xdp_program__pin(program, PIN));
	INT(xdp_program__pin(program, NULL));
	run_once(64, 0);
	program = POINTER(xdp_program__from_fd(xdp_program__fd(program)));
	run_once(64, 0);
	TRY(INT, xdp_program__pin(program, PIN));
	TRY(INT, xdp_program__pin(program, NULL));
	unlink(PIN);
	xdp_program__close(program);
	say_part("one that the verifier refuses");
	program = xdp_program__open_file("tests/bpf/prebuilt/rejected.o", NULL, NULL);
	run_once(64, 0);
	say_program("program", program);
	xdp_program__close(program);
	say_part("a section that tells no type");
	program = xdp_program__open_file(SEVERAL, "xdp", NULL);
	run_once(64, 0);
	run_once(64, 0);
	INT(xdp_program__test_run(program, &nothing, 0));
	INT(xdp_program__set_run_prio(program, 3));
	INT(xdp_program__set_xdp_frags_support(program, true));
	say_program("program", program);
	INT(xdp_program__pin(program, PIN));
	xdp_program__close(program);
	say_part("another kind of program");
	program = xdp_program__open_file("tests/bpf/prebuilt/socket_filter.o", NULL, NULL);
	run_once(64, 0);
	xdp_program__close(program);
	say_part("with fragments");
	program = xdp_program__open_file(FRAGS, NULL, NULL);
	run_once(1500, 0);
	say_program("program", program);
	xdp_program__close(program);
}

static int deaf(enum libxdp_print_level level, const char *format, va_list arguments)
{
	(void)level;
	(void)format;
	(void)arguments;
	return 0;
}

static int heard;

static int listener(enum libxdp_print_level level, const char *format, va_list arguments)
{
	char text[1024];

	/* What it says is its own affair; that it is text, and whole, is not. */
	heard += level <= LIBXDP_DEBUG && vsnprintf(text, sizeof(text), format, arguments) > 0;
	return 0;
}

static void messages(void)
{
	static const int numbers[] = { 0, 1, -1, 2, 22, -22, 95, 524, 4000, 4002, 4011, -4004, 5000, 99999, INT_MAX };
	char text[256], call[80];
	unsigned int i;
	size_t size;

	BOOL(libxdp_set_print(deaf) == say_libxdp);
	BOOL(libxdp_set_print(NULL) == deaf);
	POINTER(libxdp_set_print(listener));
	BOOL(libxdp_set_print(listener) == listener);
	heard = 0;
	POINTER(xdp_program__from_pin("/sys/fs/bpf/nothing"));
	BOOL(heard > 0);
	BOOL(libxdp_set_print(NULL) == listener);
	heard = 0;
	POINTER(xdp_program__from_pin("/sys/fs/bpf/nothing"));
	INT(heard);
	libxdp_set_print(say_libxdp);
	say_part("libxdp_strerror");
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		for (size = 0; size < 130; size += size < 8 ? 7 : 120) {
			snprintf(call, sizeof(call), "libxdp_strerror(%d, text, %zu)", numbers[i], size);
			memset(text, '~', sizeof(text));
			say_int(call, FRESH(libxdp_strerror(numbers[i], text, size)));
			text[255] = 0;
			if (size)
				text[size - 1] = 0;
			printf("the text is \"%s\"\n", size ? text : "");
		}
	}
	INT(libxdp_strerror(EINVAL, NULL, 20));
	INT(libxdp_strerror(EINVAL, NULL, 0));
	say_part("libxdp_get_error");
	errno = 0;
	say("of NULL, errno 0", "%ld", libxdp_get_error(NULL));
	errno = ENOENT;
	say("of NULL, errno ENOENT", "%ld", libxdp_get_error(NULL));
	INT(libxdp_get_error(NULL) == -UNTOUCHED);
	INT(libxdp_get_error((void *)-1L));
	INT(libxdp_get_error((void *)-4095L));
	INT(libxdp_get_error((void *)-4096L));
	INT(libxdp_get_error((void *)1));
	INT(libxdp_get_error(text));
	errno = 0;
	libxdp_get_error((void *)-95L);
	TEXT(errno_name(EOPNOTSUPP));
}

/* NULL and errors in place of pointers, wherever a function has one. */
static void garbage(void)
{
	struct xdp_program *none[1] = { NULL }, *error[1] = { ERROR }, *mixed[2], *twice[2], *many[40];
	char buffer[64];
	int i;

	program = xdp_program__open_file(COUNTER, NULL, NULL);
	mixed[0] = program;
	mixed[1] = NULL;
	twice[0] = twice[1] = program;
	for (i = 0; i < 40; i++)
		many[i] = program;
#define BOTH(KIND, name, ...) TRY(KIND, name(NULL __VA_OPT__(,) __VA_ARGS__)); TRY(KIND, name(ERROR __VA_OPT__(,) __VA_ARGS__))
	BOTH(VOID, xdp_program__close);
	BOTH(POINTER, xdp_program__btf);
	BOTH(POINTER, xdp_program__bpf_obj);
	BOTH(TEXT, xdp_program__name);
	BOTH(POINTER, xdp_program__tag);
	BOTH(NUMBER, xdp_program__id);
	BOTH(INT, xdp_program__fd);
	BOTH(NUMBER, xdp_program__run_prio);
	BOTH(INT, xdp_program__set_run_prio, 5);
	BOTH(BOOL, xdp_program__chain_call_enabled, XDP_PASS);
	BOTH(INT, xdp_program__set_chain_call_enabled, XDP_PASS, true);
	BOTH(INT, xdp_program__print_chain_call_actions, buffer, sizeof(buffer));
	BOTH(BOOL, xdp_program__xdp_frags_support);
	BOTH(INT, xdp_program__set_xdp_frags_support, true);
	BOTH(INT, xdp_program__pin, PIN);
	BOTH(POINTER, xdp_program__clone, 0);
	BOTH(POINTER, xdp_program__clone, 1);
	BOTH(INT, xdp_program__test_run, NULL, 0);
	BOTH(MODE, xdp_program__is_attached, 10);
	BOTH(INT, xdp_program__attach, 10, XDP_MODE_SKB, 0);
	BOTH(INT, xdp_program__detach, 10, XDP_MODE_SKB, 0);
	BOTH(INT, xdp_program__attach_multi, 1, 10, XDP_MODE_SKB, 0);
	BOTH(INT, xdp_program__detach_multi, 1, 10, XDP_MODE_SKB, 0);
	TRY(POINTER, xdp_program__find_file(NULL, NULL, NULL));
	TRY(POINTER, xdp_program__from_bpf_obj(NULL, NULL));
	TRY(POINTER, xdp_program__from_pin(NULL));
	TRY(POINTER, xdp_program__create(NULL));
	TRY(INT, xdp_program__attach_multi(none, 1, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__attach_multi(error, 1, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__attach_multi(mixed, 2, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__attach_multi(mixed, 0, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(none, 1, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(error, 1, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(mixed, 2, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(mixed, 0, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(twice, 2, 10, XDP_MODE_SKB, 0));
	TRY(INT, xdp_program__detach_multi(many, 40, 10, XDP_MODE_SKB, 0));
	BOTH(VOID, xdp_multiprog__close);
	BOTH(INT, xdp_multiprog__detach);
	BOTH(MODE, xdp_multiprog__attach_mode);
	BOTH(POINTER, xdp_multiprog__main_prog);
	BOTH(POINTER, xdp_multiprog__hw_prog);
	BOTH(BOOL, xdp_multiprog__is_legacy);
	BOTH(INT, xdp_multiprog__program_count);
	BOTH(BOOL, xdp_multiprog__xdp_frags_support);
	TRY(POINTER, xdp_multiprog__next_prog(NULL, NULL));
	TRY(POINTER, xdp_multiprog__next_prog(NULL, ERROR));
	TRY(POINTER, xdp_multiprog__next_prog(program, NULL));
	BOOL(is_absent(0));
	BOOL(is_absent(-1));
	BOOL(is_absent(INT_MIN));
	BOOL(is_absent(12345));
	xdp_program__close(program);
}

static const struct scenario scenarios[] = {
	{ "open", open_all }, { "find", find_all }, { "object", object }, { "kernel", kernel },
	{ "create", create }, { "create_odd", create_odd }, { "settings", settings }, { "clone", clone },
	{ "run", run }, { "messages", messages }, { "garbage", garbage },
};

SAY_MAIN(scenarios)
