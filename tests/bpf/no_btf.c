/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Compiled without BTF; with a function of its own and a variable, for which a chain must make BTF up. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static volatile const int verdict = XDP_DROP;

static __attribute__((noinline)) int odd(__u32 length)
{
	return length & 1 ? XDP_PASS : verdict;
}

SEC("xdp")
int no_btf(struct xdp_md *ctx)
{
	return odd(ctx->data_end - ctx->data);
}

char _license[] SEC("license") = "Dual BSD/GPL";
