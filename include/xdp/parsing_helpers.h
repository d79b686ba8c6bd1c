/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packet headers, one after the other, in a BPF program.
 *
 * Each function looks at the header at the cursor, moves the cursor behind it, sets a pointer to it, and returns
 * what it says about what follows, or -1 if the packet ends too early. The EtherType and the ARP operation come in
 * network byte order, everything else in the host's.
 */
#ifndef __PARSING_HELPERS_H
#define __PARSING_HELPERS_H

/* With -nostdinc there is none, and none is needed here. */
#if !defined(__has_include) || __has_include(<stddef.h>)
#include <stddef.h>
#endif
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

/* Where the next header starts. */
struct hdr_cursor {
	void *pos;
};

struct vlan_hdr {
	__be16 h_vlan_TCI;                /* priority and VLAN id */
	__be16 h_vlan_encapsulated_proto; /* EtherType of what follows */
};

/* How ICMP and ICMPv6 both start. */
struct icmphdr_common {
	__u8 type;
	__u8 code;
	__sum16 cksum;
};

/* At most so many VLAN tags, and so many IPv6 extension headers; may be defined before. */
#ifndef VLAN_MAX_DEPTH
#define VLAN_MAX_DEPTH 4
#endif
#ifndef IPV6_EXT_MAX_CHAIN
#define IPV6_EXT_MAX_CHAIN 6
#endif

static __always_inline int proto_is_vlan(__u16 h_proto)
{
	return h_proto == bpf_htons(ETH_P_8021Q) || h_proto == bpf_htons(ETH_P_8021AD);
}

/* The EtherType behind the VLAN tags, which are skipped; `*ethhdr` has the one before them. A tag that is cut
 * short, or one too many, is left in place and its EtherType returned.
 */
static __always_inline int parse_ethhdr(struct hdr_cursor *nh, void *data_end, struct ethhdr **ethhdr)
{
	struct ethhdr *eth = (struct ethhdr *)nh->pos;
	struct vlan_hdr *tag = (struct vlan_hdr *)(eth + 1);
	__u16 proto;
	int i;

	if ((void *)tag > data_end)
		return -1;
	*ethhdr = eth;
	proto = eth->h_proto;

	/* Kernels before 5.3 allow no loops. */
#ifdef __clang__
#pragma unroll
#endif
	for (i = 0; i < VLAN_MAX_DEPTH; i++) {
		if (!proto_is_vlan(proto) || (void *)(tag + 1) > data_end)
			break;
		proto = tag->h_vlan_encapsulated_proto;
		tag++;
	}
	nh->pos = tag;
	return proto;
}

/* The protocol behind the extension headers; -1 if there are too many. A header of two bytes has to be there even
 * if it is not an extension.
 */
static __always_inline int skip_ip6hdrext(struct hdr_cursor *nh, void *data_end, __u8 next_hdr_type)
{
	int i;

	for (i = 0; i < IPV6_EXT_MAX_CHAIN; i++) {
		struct ipv6_opt_hdr *ext = (struct ipv6_opt_hdr *)nh->pos;
		__u32 length;

		if ((void *)(ext + 1) > data_end)
			return -1;
		switch (next_hdr_type) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
			length = (ext->hdrlen + 1) * 8;
			break;
		case IPPROTO_AH:
			/* Counted in words, since it is older than the rule of the others. */
			length = (ext->hdrlen + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			length = 8;
			break;
		default:
			return next_hdr_type;
		}
		next_hdr_type = ext->nexthdr;
		nh->pos = (char *)ext + length;
	}
	return -1;
}

/* The protocol behind the IPv6 header and its extensions, of which the cursor is behind. */
static __always_inline int parse_ip6hdr(struct hdr_cursor *nh, void *data_end, struct ipv6hdr **ip6hdr)
{
	struct ipv6hdr *ip6 = (struct ipv6hdr *)nh->pos;

	if ((void *)(ip6 + 1) > data_end)
		return -1;
	*ip6hdr = ip6;
	nh->pos = ip6 + 1;
	return skip_ip6hdrext(nh, data_end, ip6->nexthdr);
}

/* The protocol of an IPv4 packet; the cursor is behind the options. -1 as well for a header that says it is shorter
 * than its fixed part: what follows would be read from within it.
 */
static __always_inline int parse_iphdr(struct hdr_cursor *nh, void *data_end, struct iphdr **iphdr)
{
	struct iphdr *ip = (struct iphdr *)nh->pos;
	int length;

	if ((void *)(ip + 1) > data_end)
		return -1;
	length = ip->ihl * 4;
	if (length < (int)sizeof(*ip) || (char *)ip + length > (char *)data_end)
		return -1;
	*iphdr = ip;
	nh->pos = (char *)ip + length;
	return ip->protocol;
}

/* A program that has the system's <linux/if_arp.h> or <net/if_arp.h> has another struct arphdr, without addresses;
 * libxdp 1.3 had none. Include those first.
 */
#if !defined(_LINUX_IF_ARP_H) && !defined(_NET_IF_ARP_H)
#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

/* ARP for IPv4 on Ethernet. */
struct arphdr {
	__be16 ar_hrd; /* ARPHRD_ETHER */
	__be16 ar_pro; /* ETH_P_IP */
	unsigned char ar_hln; /* ETH_ALEN */
	unsigned char ar_pln; /* 4 */
	__be16 ar_op;
	unsigned char ar_sha[ETH_ALEN]; /* of the sender */
	__be32 ar_sip;
	unsigned char ar_tha[ETH_ALEN]; /* of the target */
	__be32 ar_tip;
} __attribute__((packed));

/* The operation, in network byte order; -1 as well for other networks and protocols. */
static __always_inline int parse_arphdr(struct hdr_cursor *nh, void *data_end, struct arphdr **arp_hdr)
{
	struct arphdr *arp = (struct arphdr *)nh->pos;

	if ((void *)(arp + 1) > data_end)
		return -1;
	if (arp->ar_hrd != bpf_htons(ARPHRD_ETHER) || arp->ar_hln != ETH_ALEN)
		return -1;
	if (arp->ar_pro != bpf_htons(ETH_P_IP) || arp->ar_pln != sizeof(arp->ar_sip))
		return -1;
	*arp_hdr = arp;
	nh->pos = arp + 1;
	return arp->ar_op;
}
#endif

/* The ICMPv6 type. */
static __always_inline int parse_icmp6hdr(struct hdr_cursor *nh, void *data_end, struct icmp6hdr **icmp6hdr)
{
	struct icmp6hdr *icmp6 = (struct icmp6hdr *)nh->pos;

	if ((void *)(icmp6 + 1) > data_end)
		return -1;
	*icmp6hdr = icmp6;
	nh->pos = icmp6 + 1;
	return icmp6->icmp6_type;
}

/* The ICMP type. */
static __always_inline int parse_icmphdr(struct hdr_cursor *nh, void *data_end, struct icmphdr **icmphdr)
{
	struct icmphdr *icmp = (struct icmphdr *)nh->pos;

	if ((void *)(icmp + 1) > data_end)
		return -1;
	*icmphdr = icmp;
	nh->pos = icmp + 1;
	return icmp->type;
}

/* The type of either; the cursor is behind the common part. */
static __always_inline int parse_icmphdr_common(struct hdr_cursor *nh, void *data_end, struct icmphdr_common **icmphdr)
{
	struct icmphdr_common *icmp = (struct icmphdr_common *)nh->pos;

	if ((void *)(icmp + 1) > data_end)
		return -1;
	*icmphdr = icmp;
	nh->pos = icmp + 1;
	return icmp->type;
}

/* The length of the payload, as the header tells it: the packet may end before. The cursor is moved even when it is
 * -1 for a length below that of the header.
 */
static __always_inline int parse_udphdr(struct hdr_cursor *nh, void *data_end, struct udphdr **udphdr)
{
	struct udphdr *udp = (struct udphdr *)nh->pos;
	int payload;

	if ((void *)(udp + 1) > data_end)
		return -1;
	*udphdr = udp;
	nh->pos = udp + 1;
	payload = (int)bpf_ntohs(udp->len) - (int)sizeof(*udp);
	return payload < 0 ? -1 : payload;
}

/* The length of the header with its options, which the packet has; the cursor is before the options. -1 as well for
 * a header that says it is shorter than its fixed part.
 */
static __always_inline int parse_tcphdr(struct hdr_cursor *nh, void *data_end, struct tcphdr **tcphdr)
{
	struct tcphdr *tcp = (struct tcphdr *)nh->pos;
	int length;

	if ((void *)(tcp + 1) > data_end)
		return -1;
	length = tcp->doff * 4;
	if (length < (int)sizeof(*tcp) || (char *)tcp + length > (char *)data_end)
		return -1;
	*tcphdr = tcp;
	nh->pos = tcp + 1;
	return length;
}

#endif
