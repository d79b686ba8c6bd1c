/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Drops UDP packets to one port; everything else goes on along the chain. */
#include "traffic.h"

/* Host byte order; the loader may set another before the program is loaded. */
volatile const __u16 blocked_port = 7777;

struct {
	__uint(priority, 10);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(udp_filter);

SEC("xdp")
int udp_filter(struct xdp_md *ctx)
{
	struct traffic *counter = traffic_counter();
	struct udphdr *udp = udp_header(ctx);

	if (!counter)
		return XDP_ABORTED;
	__sync_fetch_and_add(&counter->seen, 1);
	if (!udp || udp->dest != bpf_htons(blocked_port))
		return XDP_PASS;
	__sync_fetch_and_add(&counter->dropped, 1);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
