/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* No XDP program at all. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("socket")
int socket_filter(struct __sk_buff *skb)
{
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
