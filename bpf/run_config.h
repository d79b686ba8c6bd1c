/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a component program says its run priority and the actions after which the chain goes on. */
#ifndef OXDP_RUN_CONFIG_H
#define OXDP_RUN_CONFIG_H

#define _CONCAT(x, y) x##y
#define XDP_RUN_CONFIG(f) _CONCAT(_, f) SEC(".xdp_run_config")

#endif
