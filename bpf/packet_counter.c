/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counts every packet that reaches it and passes it on. */
#include "traffic.h"

struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(packet_counter);

SEC("xdp")
int packet_counter(struct xdp_md *ctx)
{
	struct traffic *counter = traffic_counter();

	if (!counter)
		return XDP_ABORTED;
	__sync_fetch_and_add(&counter->seen, 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
