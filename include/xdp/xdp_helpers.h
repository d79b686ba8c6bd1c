/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a program says its run priority and the actions after which the chain goes on:
 *
 *	struct {
 *		__uint(priority, 10);
 *		__uint(XDP_PASS, 1);
 *	} XDP_RUN_CONFIG(my_function);
 */
#ifndef __XDP_HELPERS_H
#define __XDP_HELPERS_H

#define _CONCAT(x, y) x##y
#define XDP_RUN_CONFIG(f) _CONCAT(_, f) SEC(".xdp_run_config")

/* What a program has that says nothing. */
#define XDP_DEFAULT_RUN_PRIO 50
#define XDP_DEFAULT_CHAIN_CALL_ACTIONS (1 << XDP_PASS)

#endif
