/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A run config with an entry that no version of the protocol has. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../../bpf/run_config.h"

struct {
	__uint(priority, 5);
	__uint(surprise, 1);
} XDP_RUN_CONFIG(odd);

SEC("xdp")
int odd(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
