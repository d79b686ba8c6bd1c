/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Two programs, one of which counts. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <xdp/xdp_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} whole_seen SEC(".maps");

struct {
	__uint(priority, 7);
	__uint(XDP_PASS, 1);
	__uint(XDP_TX, 1);
} XDP_RUN_CONFIG(whole_counts);

SEC("xdp")
int whole_counts(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&whole_seen, &zero);

	(void)ctx;
	if (seen)
		__sync_fetch_and_add(seen, 1);
	return XDP_PASS;
}

SEC("xdp")
int whole_passes(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
