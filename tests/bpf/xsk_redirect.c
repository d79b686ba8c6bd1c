/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Hands packets to the AF_XDP socket of their queue. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

SEC("xdp")
int xsk_redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp.frags")
int xsk_frags(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

/* What the receiver finds before each packet. */
struct mark {
	__u32 length;
	__u32 magic;
};

SEC("xdp")
int xsk_mark(struct xdp_md *ctx)
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

__u32 turn;

/* Shares one queue's packets among the sockets in slots 0 and 1. */
SEC("xdp")
int xsk_spread(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, turn++ & 1, XDP_PASS);
}

/* Every second packet. */
SEC("xdp")
int xsk_half(struct xdp_md *ctx)
{
	if (turn++ & 1)
		return XDP_DROP;
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
