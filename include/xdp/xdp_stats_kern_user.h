/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The counters that xdp_stats_kern.h keeps, for the BPF program and for who reads them. */
#ifndef __XDP_STATS_KERN_USER_H
#define __XDP_STATS_KERN_USER_H

/* vmlinux.h has the types as well, and does not go together with the kernel's headers. */
#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

/* Of one CPU and one action. */
struct xdp_stats_record {
	union {
		__u64 packets;
		__u64 rx_packets;
	};
	union {
		__u64 bytes;
		__u64 rx_bytes;
	};
};

#ifndef XDP_ACTION_MAX
#define XDP_ACTION_MAX (XDP_REDIRECT + 1)
#endif

#define XDP_STATS_MAP_NAME xdp_stats_map

#endif
