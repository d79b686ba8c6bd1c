/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A dispatcher as protocol version 1 has it: its configuration has no magic number and no flags. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct xdp_dispatcher_config {
	__u8 num_progs_enabled;
	__u32 chain_call_actions[10];
	__u32 run_prios[10];
};

static volatile const struct xdp_dispatcher_config conf = {};

__attribute__((noinline)) int prog0(struct xdp_md *ctx)
{
	volatile int ret = 31;

	if (!ctx)
		return XDP_ABORTED;
	return ret;
}

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	int ret;

	if (conf.num_progs_enabled < 1)
		return XDP_PASS;
	ret = prog0(ctx);
	if (!((1U << ret) & conf.chain_call_actions[0]))
		return ret;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(dispatcher_version, 1) SEC("xdp_metadata");
