/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Moves the packet's head there and back, which a slot's stub must allow. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int moves_packet(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, -8))
		return XDP_ABORTED;
	if (bpf_xdp_adjust_head(ctx, 8))
		return XDP_ABORTED;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
