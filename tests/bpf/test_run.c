/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a test run can show: any verdict, a packet of another length, where the packet came in, and packets that
 * are sent on.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

volatile const __u32 verdict = XDP_PASS;
/* By how much the packet's end and its start move. */
volatile const __s32 tail = 0;
volatile const __s32 head = 0;
/* The ifindex to send to. */
volatile const __u32 out = 0;

SEC("xdp")
int says(struct xdp_md *ctx)
{
	return verdict;
}

/* Writes 0xaa to where the packet starts afterwards. */
SEC("xdp/resizes")
int resizes(struct xdp_md *ctx)
{
	__u8 *data;

	if (tail && bpf_xdp_adjust_tail(ctx, tail))
		return XDP_ABORTED;
	if (head && bpf_xdp_adjust_head(ctx, head))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	if ((void *)(data + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*data = 0xaa;
	return XDP_TX;
}

/* Writes the ifindex and the queue over the packet's first eight bytes. */
SEC("xdp/tells_ingress")
int tells_ingress(struct xdp_md *ctx)
{
	__u32 *data = (void *)(long)ctx->data;

	if ((void *)(data + 2) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	data[0] = ctx->ingress_ifindex;
	data[1] = ctx->rx_queue_index;
	return XDP_PASS;
}

SEC("xdp/sends")
int sends(struct xdp_md *ctx)
{
	return bpf_redirect(out, 0);
}

/* As says, for packets of several fragments. */
SEC("xdp.frags")
int says_frags(struct xdp_md *ctx)
{
	return verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
