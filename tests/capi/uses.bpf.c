/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A BPF program that uses all of the headers that are for one. Compiled, not run. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#ifdef SYSTEM_ARP
#include <linux/if_arp.h>
#endif
#include <xdp/parsing_helpers.h>
#include <xdp/prog_dispatcher.h>
#include <xdp/xdp_helpers.h>
#include <xdp/xdp_stats_kern_user.h>
#include <xdp/xdp_stats_kern.h>

struct {
	__uint(priority, XDP_DEFAULT_RUN_PRIO);
	__uint(XDP_PASS, 1);
	__uint(XDP_TX, 1);
} XDP_RUN_CONFIG(uses);

static __always_inline int transport(struct hdr_cursor *cursor, void *end, int protocol)
{
	struct icmphdr_common *common;
	struct icmp6hdr *icmp6;
	struct icmphdr *icmp;
	struct tcphdr *tcp;
	struct udphdr *udp;

	switch (protocol) {
	case IPPROTO_UDP:
		return parse_udphdr(cursor, end, &udp);
	case IPPROTO_TCP:
		return parse_tcphdr(cursor, end, &tcp);
	case IPPROTO_ICMP:
		return parse_icmphdr(cursor, end, &icmp);
	case IPPROTO_ICMPV6:
		return parse_icmp6hdr(cursor, end, &icmp6);
	default:
		return parse_icmphdr_common(cursor, end, &common);
	}
}

SEC("xdp")
int uses(struct xdp_md *ctx)
{
	struct hdr_cursor cursor = { .pos = (void *)(long)ctx->data };
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6;
	struct ethhdr *eth;
	struct iphdr *ip;
	int answer = parse_ethhdr(&cursor, end, &eth);

	if (answer == bpf_htons(ETH_P_IP))
		answer = transport(&cursor, end, parse_iphdr(&cursor, end, &ip));
	else if (answer == bpf_htons(ETH_P_IPV6))
		answer = transport(&cursor, end, parse_ip6hdr(&cursor, end, &ip6));
#ifndef SYSTEM_ARP
	else if (answer == bpf_htons(ETH_P_ARP)) {
		struct arphdr *arp;

		answer = parse_arphdr(&cursor, end, &arp) == bpf_htons(ARPOP_REQUEST) ? 0 : -1;
	}
#endif
	return xdp_stats_record_action(ctx, answer < 0 ? XDP_DROP : XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
__uint(uses_version, XDP_DISPATCHER_VERSION) SEC(XDP_METADATA_SECTION);
