/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the example programs share: a counter of two values, and the way to a UDP header. */
#ifndef OXDP_TRAFFIC_H
#define OXDP_TRAFFIC_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "run_config.h"

struct traffic {
	__u64 seen;    /* packets that reached this program */
	__u64 dropped; /* of these, the ones it dropped */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

static __always_inline struct traffic *traffic_counter(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&traffic, &key);
}

/* The UDP header of an IPv4 packet, or NULL; fragments and VLAN tags are not followed. */
static __always_inline struct udphdr *udp_header(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if (ip->protocol != IPPROTO_UDP || ip->ihl < 5)
		return 0;
	udp = (void *)ip + ip->ihl * 4;
	return (void *)(udp + 1) > end ? 0 : udp;
}

#endif
