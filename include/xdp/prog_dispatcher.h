/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The record that a dispatcher carries in its one map: protocol version 3. Version 2 ends before is_xdp_devbound. */
#ifndef __PROG_DISPATCHER_H
#define __PROG_DISPATCHER_H

#include <linux/types.h>

#define XDP_METADATA_SECTION "xdp_metadata" /* the BTF section of version numbers */
#define XDP_DISPATCHER_VERSION 3
#define XDP_DISPATCHER_MAGIC 236 /* the sum of the letters X, D and P */
/* What a slot returns that no program is in. Its bit is set in all chain_call_actions, so that the chain goes on. */
#define XDP_DISPATCHER_RETVAL 31

#ifndef MAX_DISPATCHER_ACTIONS
#define MAX_DISPATCHER_ACTIONS 10 /* slots */
#endif

struct xdp_dispatcher_config {
	__u8 magic;              /* XDP_DISPATCHER_MAGIC; version 1 has no such member */
	__u8 dispatcher_version; /* XDP_DISPATCHER_VERSION */
	__u8 num_progs_enabled;  /* slots in use, from the first on */
	__u8 is_xdp_frags;       /* 1 if it was loaded with BPF_F_XDP_HAS_FRAGS */
	__u32 chain_call_actions[MAX_DISPATCHER_ACTIONS]; /* bit i: go on after return value i */
	__u32 run_prios[MAX_DISPATCHER_ACTIONS];
	__u32 program_flags[MAX_DISPATCHER_ACTIONS]; /* BPF_F_XDP_HAS_FRAGS, BPF_F_XDP_DEV_BOUND_ONLY */
	__u8 is_xdp_devbound;    /* 1 if it was loaded with BPF_F_XDP_DEV_BOUND_ONLY */
};

#endif
