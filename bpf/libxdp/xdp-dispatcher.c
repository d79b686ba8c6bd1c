/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The dispatcher as C libxdp looks for it in a file: with a program beside it, on which it tries whether a slot can be
 * replaced twice. For programs that have C libxdp in them; ours has its dispatcher in itself.
 */
#include "../xdp_dispatcher.c"

SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
