// SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
/*
 * The inline functions of C libxdp's xsk.h, as functions that a test can call: for producers (p_) and consumers (c_).
 * Built and loaded by src/xsk/ring/against_c.rs.
 */
#include <xdp/xsk.h>

unsigned long p_size(void)
{
	return sizeof(struct xsk_ring_prod);
}

unsigned long c_size(void)
{
	return sizeof(struct xsk_ring_cons);
}

__u32 p_free(struct xsk_ring_prod *ring, __u32 count)
{
	return xsk_prod_nb_free(ring, count);
}

__u32 p_reserve(struct xsk_ring_prod *ring, __u32 count, __u32 *first)
{
	return xsk_ring_prod__reserve(ring, count, first);
}

void p_submit(struct xsk_ring_prod *ring, __u32 count)
{
	xsk_ring_prod__submit(ring, count);
}

int p_needs_wakeup(struct xsk_ring_prod *ring)
{
	return xsk_ring_prod__needs_wakeup(ring);
}

__u64 *p_slot(struct xsk_ring_prod *ring, __u32 index)
{
	return xsk_ring_prod__fill_addr(ring, index);
}

__u32 c_available(struct xsk_ring_cons *ring, __u32 count)
{
	return xsk_cons_nb_avail(ring, count);
}

__u32 c_peek(struct xsk_ring_cons *ring, __u32 count, __u32 *first)
{
	return xsk_ring_cons__peek(ring, count, first);
}

void c_cancel(struct xsk_ring_cons *ring, __u32 count)
{
	xsk_ring_cons__cancel(ring, count);
}

void c_release(struct xsk_ring_cons *ring, __u32 count)
{
	xsk_ring_cons__release(ring, count);
}

const __u64 *c_slot(struct xsk_ring_cons *ring, __u32 index)
{
	return xsk_ring_cons__comp_addr(ring, index);
}
