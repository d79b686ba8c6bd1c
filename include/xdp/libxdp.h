/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Many XDP programs on one interface: the C API of libxdp 1.6.
 *
 * Functions that return int return 0, or a negative errno, and then set errno too. Where pointers are returned, a
 * failure is NULL or an errno in the pointer; libxdp_get_error() tells both. docs/libxdp.3 has each function,
 * oxdp.h what is new.
 */
#ifndef __LIBXDP_LIBXDP_H
#define __LIBXDP_LIBXDP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "xdp_helpers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Environment variables. They are not looked at in a process with raised privileges (see secure_getenv(3)). */
#define XDP_BPFFS_ENVVAR "LIBXDP_BPFFS"                 /* where the bpf file system is mounted */
#define XDP_BPFFS_MOUNT_ENVVAR "LIBXDP_BPFFS_AUTOMOUNT" /* "1": mount one there if there is none */
#define XDP_OBJECT_ENVVAR "LIBXDP_OBJECT_PATH"          /* where xdp_program__find_file() looks */

/* Flags of the attach functions. */
#define XDP_ATTACH_DEVBIND (1 << 0) /* the dispatcher and its programs are bound to the device; kernel 6.3 */
#define XDP_ATTACH_FLAGS (XDP_ATTACH_DEVBIND) /* all that there are */

enum xdp_attach_mode {
	XDP_MODE_UNSPEC = 0, /* to attach: the kernel chooses; as an answer: not attached */
	XDP_MODE_NATIVE,     /* in the driver */
	XDP_MODE_SKB,        /* in the network stack, for any driver */
	XDP_MODE_HW          /* in the device, without a dispatcher */
};

/* Messages. The levels are libbpf's. */
enum libxdp_print_level {
	LIBXDP_WARN,
	LIBXDP_INFO,
	LIBXDP_DEBUG,
};

typedef int (*libxdp_print_fn_t)(enum libxdp_print_level level, const char *, va_list ap);

/* Sets the function that is given all messages, NULL for none, and returns the one before. */
libxdp_print_fn_t libxdp_set_print(libxdp_print_fn_t fn);

struct xdp_program;   /* a program: not loaded yet, or loaded */
struct xdp_multiprog; /* what is on an interface, as it was when it was asked for */

/* 0 if `ptr` is a good pointer, else a negative errno. For NULL that is errno itself: ask before it changes. */
long libxdp_get_error(const void *ptr);
int libxdp_strerror(int err, char *buf, size_t size);
/* Removes the pins of dispatchers that are not attached any more; `ifindex` 0 for those of all interfaces. */
int libxdp_clean_references(int ifindex);

/* Programs from a libbpf object, which stays the caller's, or from a file, by section; NULL for the first program
 * in it. These, and the four below them, answer a failure with an errno in the pointer.
 */
struct xdp_program *xdp_program__from_bpf_obj(struct bpf_object *obj, const char *section_name);
struct xdp_program *xdp_program__find_file(const char *filename, const char *section_name,
					   struct bpf_object_open_opts *opts);
struct xdp_program *xdp_program__open_file(const char *filename, const char *section_name,
					   struct bpf_object_open_opts *opts);
/* Programs that are loaded; `fd` stays the caller's. */
struct xdp_program *xdp_program__from_fd(int fd);
struct xdp_program *xdp_program__from_id(__u32 prog_id);
struct xdp_program *xdp_program__from_pin(const char *pin_path);
struct xdp_program *xdp_program__clone(struct xdp_program *xdp_prog, unsigned int flags);

/* A program from one of five sources; what is not of that source has to be zero:
 *
 *   obj            may have prog_name
 *   find_filename  may have prog_name and opts; searched for like xdp_program__find_file() does
 *   open_filename  may have prog_name and opts
 *   pin_path, id   alone
 *   fd             alone; 0 counts as not set
 *
 * prog_name is the name of the function, without it the first program is taken.
 */
struct xdp_program_opts {
	size_t sz; /* of this struct; DECLARE_LIBXDP_OPTS sets it */
	struct bpf_object *obj;
	struct bpf_object_open_opts *opts;
	const char *prog_name;
	const char *find_filename;
	const char *open_filename;
	const char *pin_path;
	__u32 id;
	int fd;
	size_t :0;
};
#define xdp_program_opts__last_field fd

/* DECLARE_LIBXDP_OPTS(xdp_program_opts, name, .id = 42) declares a struct of options that is zero elsewhere. */
#define DECLARE_LIBXDP_OPTS DECLARE_LIBBPF_OPTS

/* NULL and errno on failure. */
struct xdp_program *xdp_program__create(struct xdp_program_opts *opts);

void xdp_program__close(struct xdp_program *xdp_prog);
/* Runs it once on the packet of `opts`, loading it if need be. `flags` must be 0. */
int xdp_program__test_run(struct xdp_program *xdp_prog, struct bpf_test_run_opts *opts, unsigned int flags);

/* What a program is. */
enum xdp_attach_mode xdp_program__is_attached(const struct xdp_program *xdp_prog, int ifindex);
const char *xdp_program__name(const struct xdp_program *xdp_prog);
const unsigned char *xdp_program__tag(const struct xdp_program *xdp_prog); /* BPF_TAG_SIZE bytes */
struct bpf_object *xdp_program__bpf_obj(struct xdp_program *xdp_prog);
const struct btf *xdp_program__btf(struct xdp_program *xdp_prog);
uint32_t xdp_program__id(const struct xdp_program *xdp_prog);
int xdp_program__fd(const struct xdp_program *xdp_prog);

/* When it runs and what it lets pass on. Changed before it is loaded, or not at all. */
unsigned int xdp_program__run_prio(const struct xdp_program *xdp_prog);
int xdp_program__set_run_prio(struct xdp_program *xdp_prog, unsigned int run_prio);
bool xdp_program__chain_call_enabled(const struct xdp_program *xdp_prog, enum xdp_action action);
int xdp_program__set_chain_call_enabled(struct xdp_program *prog, unsigned int action, bool enabled);
int xdp_program__print_chain_call_actions(const struct xdp_program *prog, char *buf, size_t buf_len);
/* Whether it takes packets of several fragments. Kernel 5.18. */
bool xdp_program__xdp_frags_support(const struct xdp_program *prog);
int xdp_program__set_xdp_frags_support(struct xdp_program *prog, bool frags);

int xdp_program__pin(struct xdp_program *xdp_prog, const char *pin_path);

/* Change what is on an interface of the caller's network namespace; needs CAP_SYS_ADMIN and CAP_NET_ADMIN. The detach
 * functions take no flags. A detach asks for programs as they are on the interface, by their ids.
 */
int xdp_program__attach(struct xdp_program *xdp_prog, int ifindex, enum xdp_attach_mode mode, unsigned int flags);
int xdp_program__attach_multi(struct xdp_program **progs, size_t num_progs, int ifindex, enum xdp_attach_mode mode,
			      unsigned int flags);
int xdp_program__detach(struct xdp_program *xdp_prog, int ifindex, enum xdp_attach_mode mode, unsigned int flags);
int xdp_program__detach_multi(struct xdp_program **progs, size_t num_progs, int ifindex, enum xdp_attach_mode mode,
			      unsigned int flags);

/* What is on an interface; -ENOENT in the pointer if nothing is. The programs that these return belong to it and are
 * closed with it.
 */
struct xdp_multiprog *xdp_multiprog__get_from_ifindex(int ifindex);
/* The one that runs after `prog`, the first for NULL; NULL at the end. */
struct xdp_program *xdp_multiprog__next_prog(const struct xdp_program *prog, const struct xdp_multiprog *mp);
void xdp_multiprog__close(struct xdp_multiprog *mp);
/* Takes everything off. */
int xdp_multiprog__detach(struct xdp_multiprog *mp);
enum xdp_attach_mode xdp_multiprog__attach_mode(const struct xdp_multiprog *mp);
/* The dispatcher, or the program that is there without one. */
struct xdp_program *xdp_multiprog__main_prog(const struct xdp_multiprog *mp);
struct xdp_program *xdp_multiprog__hw_prog(const struct xdp_multiprog *mp);
/* Whether what is there is not a chain. */
bool xdp_multiprog__is_legacy(const struct xdp_multiprog *mp);
int xdp_multiprog__program_count(const struct xdp_multiprog *mp);
bool xdp_multiprog__xdp_frags_support(const struct xdp_multiprog *mp);
bool xdp_multiprog__xdp_dev_bound(const struct xdp_multiprog *mp);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
