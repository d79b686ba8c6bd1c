/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The default AF_XDP program: gives each packet to the socket of its receive queue, and lets it pass where there is none.
 *
 * Shared by all sockets of an interface, also with those of C libxdp, which finds it, its map, its counter and its
 * version by their names: these and the counter's place are the protocol's.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "dispatcher.h"
#include "run_config.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1); /* the loader sets the number of queues */
} xsks_map SEC(".maps");

struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(xsk_def_prog);

/* Who uses this program: the first variable there is, and 1 for who loads it. At 0 it is about to be taken off. */
volatile int refcnt = 1;

SEC("xdp")
int xsk_def_prog(struct xdp_md *ctx)
{
	if (!refcnt)
		return XDP_PASS;
#ifdef XSK_LOOK_FIRST
	__u32 queue = ctx->rx_queue_index;

	return bpf_map_lookup_elem(&xsks_map, &queue) ? bpf_redirect_map(&xsks_map, queue, 0) : XDP_PASS;
#else
	return bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
#endif
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(xsk_prog_version, 1) SEC(XDP_METADATA_SECTION);
