/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counts packets and bytes for each action, in a BPF program. <linux/bpf.h> (or vmlinux.h) and <bpf/bpf_helpers.h>
 * have to be included before this.
 */
#ifndef __XDP_STATS_KERN_H
#define __XDP_STATS_KERN_H

#include "xdp_stats_kern_user.h"

/* How the map is pinned; may be defined before. */
#ifndef XDP_STATS_MAP_PINNING
#define XDP_STATS_MAP_PINNING LIBBPF_PIN_BY_NAME
#endif

/* An element for each action, in it a record for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XDP_ACTION_MAX);
	__type(key, __u32);
	__type(value, struct xdp_stats_record);
	__uint(pinning, XDP_STATS_MAP_PINNING);
} XDP_STATS_MAP_NAME SEC(".maps");

/* Counts the packet for `action` and returns it; XDP_ABORTED if there is no such action. */
static __always_inline __u32 xdp_stats_record_action(struct xdp_md *ctx, __u32 action)
{
	struct xdp_stats_record *record;

	if (action >= XDP_ACTION_MAX)
		return XDP_ABORTED;
	record = bpf_map_lookup_elem(&XDP_STATS_MAP_NAME, &action);
	if (!record)
		return XDP_ABORTED;

	/* No other program runs on this CPU meanwhile: plain additions are enough. */
	record->rx_packets += 1;
	record->rx_bytes += ctx->data_end - ctx->data;
	return action;
}

#endif
