/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The dispatcher: runs up to ten component programs, one after the other, on every packet.
 *
 * Each slot is a stub function that a component program replaces (freplace). The configuration
 * lies in a read-only, frozen map, so the verifier knows its values and drops the code of every
 * slot that is not in use.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "dispatcher.h"

/* volatile: the compiler must not fold the zeroes that stand here before the loader fills them. */
static volatile const struct xdp_dispatcher_config conf = {};

/* A stub changes the packet's tail by nothing: the verifier then assumes that a call to it may move
 * the packet, and so lets a program that really does take its place. The volatile result keeps the
 * compiler from folding the constant into the caller.
 */
#define SLOT(n)                                                                                    \
	__attribute__((noinline)) int prog##n(struct xdp_md *ctx)                                  \
	{                                                                                          \
		volatile int ret = XDP_DISPATCHER_RETVAL;                                          \
                                                                                                   \
		if (!ctx)                                                                          \
			return XDP_ABORTED;                                                        \
		bpf_xdp_adjust_tail(ctx, 0);                                                       \
		return ret;                                                                        \
	}

SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
SLOT(4)
SLOT(5)
SLOT(6)
SLOT(7)
SLOT(8)
SLOT(9)

/* A stub that no chain ever calls; readers of the protocol expect its name. */
__attribute__((noinline)) int compat_test(struct xdp_md *ctx)
{
	volatile int ret = XDP_DISPATCHER_RETVAL;

	if (!ctx)
		return XDP_ABORTED;
	return ret;
}

/* Leaves with the component's verdict unless that verdict is one that continues the chain. */
#define RUN(n)                                                                                     \
	do {                                                                                       \
		if (enabled <= n)                                                                  \
			return XDP_PASS;                                                           \
		verdict = prog##n(ctx);                                                            \
		if (!((1U << verdict) & conf.chain_call_actions[n]))                               \
			return verdict;                                                            \
	} while (0)

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	__u8 enabled = conf.num_progs_enabled;
	int verdict;

	RUN(0);
	RUN(1);
	RUN(2);
	RUN(3);
	RUN(4);
	RUN(5);
	RUN(6);
	RUN(7);
	RUN(8);
	RUN(9);
	if (enabled > MAX_DISPATCHER_ACTIONS)
		compat_test(ctx);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(dispatcher_version, XDP_DISPATCHER_VERSION) SEC(XDP_METADATA_SECTION);
