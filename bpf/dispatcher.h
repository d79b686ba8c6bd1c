/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The dispatcher's wire format, protocol version 3 (or 2). Names and layout are the protocol's;
 * src/dispatcher/config.rs reads and writes the same bytes.
 */
#ifndef OXDP_DISPATCHER_H
#define OXDP_DISPATCHER_H

#include <linux/types.h>

#define XDP_METADATA_SECTION "xdp_metadata"
#ifndef XDP_DISPATCHER_VERSION
#define XDP_DISPATCHER_VERSION 3
#endif
#define XDP_DISPATCHER_MAGIC 236 /* 'X' + 'D' + 'P' */
#define XDP_DISPATCHER_RETVAL 31 /* what an empty slot returns: "go on" */
#define MAX_DISPATCHER_ACTIONS 10

struct xdp_dispatcher_config {
	__u8 magic;
	__u8 dispatcher_version;
	__u8 num_progs_enabled;
	__u8 is_xdp_frags;
	__u32 chain_call_actions[MAX_DISPATCHER_ACTIONS];
	__u32 run_prios[MAX_DISPATCHER_ACTIONS];
	__u32 program_flags[MAX_DISPATCHER_ACTIONS];
#if XDP_DISPATCHER_VERSION > 2
	__u8 is_xdp_devbound;
#endif
};

#endif
