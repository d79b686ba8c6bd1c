/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Two programs, one of which continues the chain after XDP_DROP, which it always says. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../../bpf/run_config.h"

struct {
	__uint(priority, 5);
	__uint(XDP_PASS, 0);
	__uint(XDP_DROP, 1);
} XDP_RUN_CONFIG(drop_and_go_on);

SEC("xdp")
int drop_and_go_on(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp/other")
int drop_and_stop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
