/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reads behind the packet's end: the verifier must refuse it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int rejected(struct xdp_md *ctx)
{
	return *(volatile int *)(long)ctx->data;
}

char _license[] SEC("license") = "Dual BSD/GPL";
