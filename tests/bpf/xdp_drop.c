/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Drops everything: what the fastest receiver does. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int xdp_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
