/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* What oxdp's libxdp.so.1 has beyond libxdp: pins of many network namespaces in one bpf file system, chains in
 * other namespaces, attachment by a bpf_link, recovery, and what the kernel can do.
 *
 * Functions that return int return 0, or what is said here, or a negative errno, and then set errno too. What the
 * errno does not tell goes to the function of libxdp_set_print(). All may be called from several threads at a time,
 * except on the same plan or program. A program that is to run with other libraries too looks for them with
 * dlsym(3).
 */
#ifndef OXDP_H
#define OXDP_H

#include <stdbool.h>
#include <stddef.h>

#include "libxdp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of oxdp, as "0.1.0". Lives as long as the process. */
const char *oxdp_version(void);

/* Where pins go, unless oxdp_set_layout() is called: one of its words. An empty value is no value. With any other
 * one, whatever would need the layout fails with -EINVAL.
 */
#define OXDP_LAYOUT_ENVVAR "LIBXDP_PIN_LAYOUT"

/* Sets where the pins of chains go, in this process and from the next call on:
 *
 *   "legacy"  BPFFS/xdp/dispatch-IFINDEX-ID, for every namespace; the default, and what C libxdp reads
 *   "netns"   BPFFS/xdp/netns-INODE/dispatch-IFINDEX-ID, with the inode of the interface's namespace
 *   "auto"    "legacy" in the namespace of the init of this process's PID namespace, "netns" in all others
 *
 * Reading does not depend on it: a chain is found wherever below BPFFS/xdp its pins are, and its next change moves
 * them to where they belong. With "legacy", two namespaces that share a bpf file system must not both have chains
 * on an interface of the same index while a C libxdp runs anywhere: its clean-up takes one for the leavings of the
 * other.
 *
 * Needs no capability. Errors: -EINVAL for NULL and for other words.
 */
int oxdp_set_layout(const char *layout);

/* A flag of oxdp_attach(): the interface is held by a bpf_link, not by netlink. The link is pinned beside the
 * programs. When its last pin and descriptor go, with a container's bpf file system for example, the interface is
 * clean again. C libxdp can list such a chain, and 1.6 can take it off, but none can add to it. A chain that is
 * there stays held as it is. Kernel 5.9.
 */
#define OXDP_ATTACH_LINK (1U << 16)
#define OXDP_ATTACH_FLAGS (XDP_ATTACH_FLAGS | OXDP_ATTACH_LINK) /* all that there are */

/* Adds `count` programs to the chain on an interface, in one step; starts one if nothing is there. On any error
 * nothing has changed. Programs are those of libxdp.h, and are loaded by it.
 *
 *   ifindex   as the interface is numbered in its namespace
 *   netns_fd  an open file of that namespace (/proc/PID/ns/net, /run/netns/NAME), -1 for the caller's own. It stays the
 *             caller's. The calling thread never changes its namespace.
 *   mode      XDP_MODE_HW takes one program, without a dispatcher, and no flags
 *   flags     XDP_ATTACH_DEVBIND, OXDP_ATTACH_LINK
 *
 * Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, for another namespace there too; kernel 5.10, with CAP_SYS_ADMIN in the
 * initial user namespace. Without freplace (older or locked-down kernels) one program is attached without a
 * dispatcher to an interface on which nothing is, as with xdp_program__attach_multi().
 *
 * Errors, among those of the kernel:
 *   -EINVAL      no programs, NULL among them, other flags, a `netns_fd` of another kind of file
 *   -EBADF       `netns_fd` is not open
 *   -ENODEV      there is no such interface
 *   -EPERM       a capability is missing
 *   -ENOENT      there is no bpf file system
 *   -E2BIG       the chain would have more than ten programs
 *   -EEXIST      a program is in the chain already
 *   -EBUSY       what is attached is not a chain, or a damaged one, or has another mode, or is held by somebody's link
 *   -EOPNOTSUPP  the kernel or the driver has no such mode or flag, or no freplace for several programs
 */
int oxdp_attach(struct xdp_program **progs, size_t count, int ifindex, int netns_fd, enum xdp_attach_mode mode,
		unsigned int flags);

/* Takes `count` programs out of the chain on an interface, in one step, and the chain off with the last of them; or
 * the one program that runs there without a dispatcher. They are found by their ids. `mode` is the one they have,
 * or XDP_MODE_UNSPEC for any; `flags` must be 0. The rest, and what it needs, as with oxdp_attach(). It does not
 * matter how the interface is held.
 *
 * Errors: as oxdp_attach(), and
 *   -EINVAL  a program is not loaded
 *   -ENOENT  nothing is attached, or not in this mode, or one of the programs is not in the chain: none is taken out
 */
int oxdp_detach(struct xdp_program **progs, size_t count, int ifindex, int netns_fd, enum xdp_attach_mode mode,
		unsigned int flags);

/* Recovery, in two steps: a plan, which changes nothing, and carrying it out. A plan has a line for each chain,
 * directory of pins and default AF_XDP program on the machine: what is to be done about it, and why. Pins that were
 * lost are made again, dead slots dropped, pins of moved interfaces moved, and those of dead namespaces and
 * processes removed. What cannot be known is left alone, and its line says so.
 */
struct oxdp_plan;

/* A flag of oxdp_plan(): a dispatcher in which no program is left, so that it passes every packet, is taken off its
 * interface. Without it such a line says that it stays.
 */
#define OXDP_PLAN_REMOVE_EMPTY (1U << 0)

/* Looks at all namespaces, interfaces, pins and links that can be found, and plans. Takes some milliseconds for
 * each namespace that has chains. Of what this process may not see, the plan says that it is left alone.
 *
 * Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; CAP_SYS_PTRACE to find the namespaces of other users' processes. Kernel
 * 5.10; lost pins can be found from 5.13 on.
 *
 * Returns NULL and sets errno: EINVAL for other flags, EPERM, ENOMEM, and what the kernel said.
 */
struct oxdp_plan *oxdp_plan(unsigned int flags);

/* How many lines there are; 0 for NULL. */
size_t oxdp_plan__count(const struct oxdp_plan *plan);

/* Line `i`, counted from 0, without a newline, as in
 *
 *   re-home     dispatcher 42 on eth0 (ifindex 2) in netns blue, from FROM to TO: WHY
 *
 * NULL behind the last one, and for NULL. It lives as long as the plan. For people to read: its words may change.
 */
const char *oxdp_plan__line(const struct oxdp_plan *plan, size_t i);

/* Whether a line of it would change something; false for NULL. */
bool oxdp_plan__is_change(const struct oxdp_plan *plan);

/* Carries it out, each line by itself: what is no longer as it was is left alone, and one line that fails does not
 * keep the others from being tried; both are told by messages. The plan stays, and can be carried out again, which
 * finds nothing to do. Needs what oxdp_attach() needs.
 *
 * Returns how many lines have changed something. If the machine cannot be looked at again, or every line that was
 * to change something has failed, it is the first negative errno. -EINVAL for NULL.
 */
int oxdp_plan__apply(struct oxdp_plan *plan);

/* NULL is fine. */
void oxdp_plan__free(struct oxdp_plan *plan);

/* What the running kernel lets this process do. */
struct oxdp_features {
	size_t sz;           /* set by the caller: sizeof(struct oxdp_features) */
	bool chains;         /* one program can replace a function of another: freplace; kernel 5.6 */
	bool reattach;       /* such a program can be put into a second one, so that a chain can change; kernel 5.10 */
	bool frags;          /* programs can read packets of several fragments; kernel 5.18 */
	bool links;          /* a bpf_link can hold a program on an interface; kernel 5.9 */
	bool device_binding; /* programs can be bound to a device, and ask it for a packet's metadata; kernel 6.3 */
	bool netns_cookie;   /* a network namespace has a number that is not used again; kernel 5.14 */
	bool link_target;    /* the kernel tells which slot a link holds a program in; kernel 5.13 */
	size_t :0;
};
#define oxdp_features__last_field link_target

/* Tries each of them, on programs and in a namespace that are gone when it returns; once in a process, since the
 * answers do not change. It writes the members that `sz` has room for, and sets what it does not know to false. Why
 * something is false is told by a message of level LIBXDP_DEBUG.
 *
 * Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or CAP_SYS_ADMIN; CAP_SYS_ADMIN for the namespace, without which
 * links and device_binding are false. Errors: -EINVAL for NULL or an `sz` that is too small for itself, -EPERM,
 * -ENOMEM.
 */
int oxdp_features(struct oxdp_features *features);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
