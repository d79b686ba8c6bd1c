/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The default AF_XDP program for kernels up to 5.2, where a redirect has no answer of its own for queues without a socket.
 * For programs that have C libxdp in them; ours needs a newer kernel.
 */
#define XSK_LOOK_FIRST
#include "../xsk_def_prog.c"
