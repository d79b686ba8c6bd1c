/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The dispatcher as protocol version 2 has it: no byte for chains that are bound to a device. */
#define XDP_DISPATCHER_VERSION 2
#include "xdp_dispatcher.c"
