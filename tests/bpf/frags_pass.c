/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reads packets of several fragments, has a name longer than the kernel keeps, and no run config. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp.frags")
int frags_pass_with_a_long_name(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
