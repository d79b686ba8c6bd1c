/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Turns every packet it gets into the next UDP packet of a stream, and sends it out of an interface. Made for test
 * runs with live frames, whose packets are used again and again: the headers are written anew each time, since
 * whoever got the packet may have changed them. The payload stays as it is.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Everything in front of the UDP header, the longer of the two kinds; in words, since that is how it is copied. */
#define IPV4_HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr))
#define IPV6_HEADERS (sizeof(struct ethhdr) + sizeof(struct ipv6hdr))
#define WORDS ((IPV6_HEADERS + 7) / 8)

struct ports {
	__u16 first; /* host byte order */
	__u16 more;  /* ports that follow the first */
};

volatile const __u64 headers[WORDS] = {};
volatile const __u8 is_ipv6 = 0;
/* UDP header and payload, in bytes. */
volatile const __u16 udp_length = 0;
/* Sum of all that the UDP checksum covers except the ports: 16-bit words in host byte order, carries not folded. */
volatile const __u32 sum = 0;
volatile const __u32 out = 0;
volatile const struct ports source = {};
volatile const struct ports destination = {};
/* Packet n of this program is packet start + n * stride of the stream. */
volatile const __u64 start = 0;
volatile const __u64 stride = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} made SEC(".maps");

static __always_inline __u16 port(const volatile struct ports *ports, __u64 number)
{
	return ports->first + number % ((__u64)ports->more + 1);
}

static __always_inline void write_udp(struct udphdr *udp, __u64 number)
{
	__u16 to = port(&destination, number);
	/* All sources for each destination, so that two ranges give every pair of ports. */
	__u16 from = port(&source, number / ((__u64)destination.more + 1));
	__u64 total = (__u64)sum + from + to;

	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	udp->source = bpf_htons(from);
	udp->dest = bpf_htons(to);
	udp->len = bpf_htons(udp_length);
	/* Zero would say that there is no checksum. */
	udp->check = total == 0xffff ? 0xffff : bpf_htons(~total);
}

SEC("xdp")
int xdp_flood(struct xdp_md *ctx)
{
	__u64 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u64 length = is_ipv6 ? IPV6_HEADERS : IPV4_HEADERS;
	struct udphdr *udp = (void *)data + length;
	__u64 *count;
	__u32 key = 0;

	count = bpf_map_lookup_elem(&made, &key);
	if (!count || (void *)(udp + 1) > end)
		return XDP_ABORTED;
	/* The last word may reach into the UDP header, which is written next. */
#pragma unroll
	for (int word = 0; word < WORDS; word++)
		if (word * 8 < length)
			data[word] = headers[word];
	/* Only one test run at a time uses a program's map. */
	write_udp(udp, start + (*count)++ * stride);
	return bpf_redirect(out, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
