/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Changes packets before it hands them to the AF_XDP socket of their queue. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* Bytes to add at the end of each packet; taken away if negative. */
volatile const __s32 tail;

static __always_inline int change_tail(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_tail(ctx, tail))
		return XDP_DROP;
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp")
int xsk_tail(struct xdp_md *ctx)
{
	return change_tail(ctx);
}

SEC("xdp.frags")
int xsk_tail_frags(struct xdp_md *ctx)
{
	return change_tail(ctx);
}

/* What the receiver finds before each packet. */
struct mark {
	__u32 length;
	__u32 magic;
};

/* With the bytes of the first fragment as length. */
SEC("xdp.frags")
int xsk_mark_frags(struct xdp_md *ctx)
{
	struct mark *mark;
	__u32 length = ctx->data_end - ctx->data;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return XDP_DROP;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	mark->length = length;
	mark->magic = 0x6f786470;
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
