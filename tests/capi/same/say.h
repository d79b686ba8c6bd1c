/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* A line for each call, which says what a C program can see of it: the same with every libxdp.
 *
 * The call stands there as in the source. No ids, pointers or descriptors are told, as they differ from run to run.
 */
#ifndef SAY_H
#define SAY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <xdp/libxdp.h>
#include <xdp/xsk.h>

/* What errno is before each call, to see whether it was set. */
#define UNTOUCHED 4000
#define FRESH(call) (errno = UNTOUCHED, (call))

#define INT(call) INT_AS(#call, call)
#define NUMBER(call) NUMBER_AS(#call, call)
#define BOOL(call) BOOL_AS(#call, call)
#define TEXT(call) TEXT_AS(#call, call)
#define POINTER(call) POINTER_AS(#call, call)
#define FD(call) FD_AS(#call, call)
#define MODE(call) MODE_AS(#call, call)
#define VOID(call) VOID_AS(#call, call)
#define INT_AS(text, call) say_int(text, FRESH(call))
#define NUMBER_AS(text, call) say_number(text, FRESH(call))
#define BOOL_AS(text, call) say_bool(text, FRESH(call))
#define TEXT_AS(text, call) say_text(text, FRESH(call))
#define POINTER_AS(text, call) say_pointer(text, FRESH(call))
#define FD_AS(text, call) say_fd(text, FRESH(call))
#define MODE_AS(text, call) say_mode(text, FRESH(call))
#define VOID_AS(text, call) do { errno = UNTOUCHED; call; say(text, "done"); } while (0)
/* In a process of its own, as it may crash. */
#define TRY(KIND, call) do { \
		pid_t child_; \
		fflush(stdout); \
		child_ = fork(); \
		if (!child_) { \
			KIND##_AS(#call, call); \
			fflush(stdout); \
			_exit(0); \
		} \
		say_end(#call, child_); \
	} while (0)
#define ERROR ((void *)-EPERM)

static inline const char *errno_name(int number)
{
	static char digits[16];
	const char *name = strerrorname_np(number);

	if (number == UNTOUCHED)
		return "untouched";
	if (name)
		return name;
	snprintf(digits, sizeof(digits), "%d", number);
	return digits;
}

__attribute__((format(printf, 2, 3))) static inline void say(const char *call, const char *format, ...)
{
	int before = errno;
	va_list arguments;

	/* Macros leave blanks where they have no further arguments. */
	for (; *call; call++) {
		if (call[0] != ' ' || !strchr("),", call[1]))
			putchar(*call);
	}
	printf(" = ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	errno = before;
}

/* What follows, for the reader, and to tell equal calls apart. */
static inline void say_part(const char *name)
{
	printf("-- %s\n", name);
}

static inline void say_failed(const char *call, const char *what, int number)
{
	int before = errno;
	char name[32];

	snprintf(name, sizeof(name), "%s", errno_name(number));
	say(call, "%s%s, errno %s", what, number ? name : "", errno_name(before));
}

static inline void say_int(const char *call, int value)
{
	if (value < 0)
		say_failed(call, "-", -value);
	else
		say(call, "%d", value);
}

static inline void say_number(const char *call, unsigned int value)
{
	say(call, "%u", value);
}

static inline void say_bool(const char *call, bool value)
{
	say(call, "%s", value ? "true" : "false");
}

static inline void *say_pointer(const char *call, const void *value)
{
	long number = -(long)value;

	if (!value)
		say_failed(call, "NULL", 0);
	else if (number > 0 && number < 4096)
		say_failed(call, "error ", number);
	else
		say(call, "a pointer");
	return (void *)value;
}

static inline void say_text(const char *call, const char *value)
{
	long number = -(long)value;

	if (!value || (number > 0 && number < 4096))
		say_pointer(call, value);
	else
		say(call, "\"%s\"", value);
}

static inline int say_fd(const char *call, int value)
{
	if (value < 0)
		say_failed(call, "-", -value);
	else
		say(call, "a descriptor");
	return value;
}

static inline const char *mode_name(unsigned int mode)
{
	static const char *const names[] = { "unspec", "native", "skb", "hw" };

	return mode < 4 ? names[mode] : "?";
}

static inline void say_mode(const char *call, unsigned int mode)
{
	say(call, "%s", mode_name(mode));
}

static inline void say_end(const char *call, pid_t child)
{
	int status;

	waitpid(child, &status, 0);
	if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGABRT || WTERMSIG(status) == SIGBUS))
		say(call, "crash");
	else if (status)
		say(call, "status %d", status);
}

static inline bool good(const void *pointer)
{
	return pointer && (unsigned long)pointer < -4095UL;
}

static inline unsigned int actions_of(const struct xdp_program *program)
{
	unsigned int action, mask = 0;

	for (action = 0; action < 32; action++) {
		if (xdp_program__chain_call_enabled(program, action))
			mask |= 1U << action;
	}
	return mask;
}

/* All that can be seen of a program, without an end of the line. */
static inline void tell_program(const char *what, struct xdp_program *program)
{
	static const unsigned char zero[BPF_TAG_SIZE];
	const unsigned char *tag = xdp_program__tag(program);
	int i;

	if (!good(program)) {
		printf("no %s", what);
		return;
	}
	printf("%s \"%s\": priority %u, actions %#x, frags %d, %s, %s, %s, %s, tag ", what, xdp_program__name(program),
	       xdp_program__run_prio(program), actions_of(program), xdp_program__xdp_frags_support(program),
	       xdp_program__id(program) ? "id" : "no id", xdp_program__fd(program) >= 0 ? "descriptor" : "no descriptor",
	       xdp_program__bpf_obj(program) ? "object" : "no object", xdp_program__btf(program) ? "BTF" : "no BTF");
	if (!memcmp(tag, zero, sizeof(zero)))
		printf("none");
	else
		for (i = 0; i < BPF_TAG_SIZE; i++)
			printf("%02x", tag[i]);
}

static inline void say_program(const char *what, struct xdp_program *program)
{
	printf("%s = ", what);
	tell_program("program", program);
	putchar('\n');
}

/* All that can be seen of an interface. */
static inline void say_interface(int ifindex)
{
	struct xdp_multiprog *multiprog = xdp_multiprog__get_from_ifindex(ifindex);
	struct xdp_program *program = NULL;
	int at = errno;

	printf("interface = ");
	if (!good(multiprog)) {
		printf("%s\n", errno_name(multiprog ? (int)-(long)multiprog : at));
		return;
	}
	printf("%s, %s, %d programs, frags %d; ", mode_name(xdp_multiprog__attach_mode(multiprog)),
	       xdp_multiprog__is_legacy(multiprog) ? "alone" : "chain", xdp_multiprog__program_count(multiprog),
	       xdp_multiprog__xdp_frags_support(multiprog));
	/* The dispatcher is not the same in all versions. */
	if (xdp_multiprog__is_legacy(multiprog))
		tell_program("main program", xdp_multiprog__main_prog(multiprog));
	else
		printf("\"%s\"", xdp_program__name(xdp_multiprog__main_prog(multiprog)));
	printf("; ");
	tell_program("hardware program", xdp_multiprog__hw_prog(multiprog));
	while ((program = xdp_multiprog__next_prog(program, multiprog))) {
		printf("; ");
		tell_program("member", program);
	}
	putchar('\n');
	xdp_multiprog__close(multiprog);
}

/* No such interface: which error says so depends on the version, and with 1.6 on the kernel too. */
static inline bool is_absent(int ifindex)
{
	long error = -libxdp_get_error(xdp_multiprog__get_from_ifindex(ifindex));

	return error == ENOENT || error == ENODEV || error == ERANGE;
}

/* Keeps what the library and libbpf say away from stdout; stderr shows it where a test fails. */
static inline int say_libxdp(enum libxdp_print_level level, const char *format, va_list arguments)
{
	(void)level;
	return vfprintf(stderr, format, arguments);
}

static inline void say_start(void)
{
	const struct rlimit none = { 0, 0 };
	char path[PATH_MAX];
	Dl_info info;

	setrlimit(RLIMIT_CORE, &none);
	if (!dladdr(dlsym(RTLD_DEFAULT, "xdp_program__attach"), &info) || !realpath(info.dli_fname, path))
		exit(3);
	printf("library %s\n", path);
	libxdp_set_print(say_libxdp);
}

struct scenario {
	const char *name;
	void (*run)(void);
};

/* Runs the scenario that the command line names. */
static inline int say_run(const struct scenario *scenarios, int count, int argc, char **argv)
{
	int i;

	for (i = 0; argc > 1 && i < count; i++) {
		if (strcmp(scenarios[i].name, argv[1]))
			continue;
		say_start();
		scenarios[i].run();
		printf("end\n");
		return 0;
	}
	fprintf(stderr, "no such scenario\n");
	return 2;
}

#define SAY_MAIN(scenarios) \
	int main(int argc, char **argv) \
	{ \
		return say_run(scenarios, sizeof(scenarios) / sizeof(*(scenarios)), argc, argv); \
	}

#endif
