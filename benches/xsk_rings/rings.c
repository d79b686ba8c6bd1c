/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* What benches/xsk_rings.rs compares with: a program's loop over the inline functions of libxdp's <xdp/xsk.h>. */
#include <stdlib.h>
#include <sys/mman.h>
#include <xdp/xsk.h>

struct rings {
	struct xsk_ring_cons rx;
	struct xsk_ring_prod fill;
	unsigned char *packets;
};

/* Where the words of each ring are; as in src/xsk/ring/bench.rs. */
enum { PRODUCER = 0, CONSUMER = 128, FLAGS = 196, ENTRIES = 320 };

static unsigned char *map(int file, off_t offset, size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, offset);

	return memory == MAP_FAILED ? NULL : memory;
}

/* The rings in a file, which a simulation has begun. As libxdp sets them up. */
struct rings *rings_new(int file, __u32 size, unsigned char *packets)
{
	struct rings *rings = calloc(1, sizeof(*rings));
	unsigned char *rx = map(file, XDP_PGOFF_RX_RING, ENTRIES + size * sizeof(struct xdp_desc));
	unsigned char *fill = map(file, XDP_UMEM_PGOFF_FILL_RING, ENTRIES + size * sizeof(__u64));

	if (!rings || !rx || !fill)
		return NULL;
	rings->packets = packets;
	rings->rx.mask = rings->fill.mask = size - 1;
	rings->rx.size = rings->fill.size = size;
	rings->rx.producer = (__u32 *)(rx + PRODUCER);
	rings->rx.consumer = (__u32 *)(rx + CONSUMER);
	rings->rx.flags = (__u32 *)(rx + FLAGS);
	rings->rx.ring = rx + ENTRIES;
	rings->rx.cached_prod = *rings->rx.producer;
	rings->rx.cached_cons = *rings->rx.consumer;
	rings->fill.producer = (__u32 *)(fill + PRODUCER);
	rings->fill.consumer = (__u32 *)(fill + CONSUMER);
	rings->fill.flags = (__u32 *)(fill + FLAGS);
	rings->fill.ring = fill + ENTRIES;
	rings->fill.cached_prod = *rings->fill.producer;
	rings->fill.cached_cons = *rings->fill.consumer + size;
	return rings;
}

/* Receives at most so many packets and gives their frames back; their bytes. */
__u64 rings_step(struct rings *rings, __u32 batch)
{
	__u32 count, from = 0, to = 0;
	__u64 bytes = 0;

	count = xsk_ring_cons__peek(&rings->rx, batch, &from);
	if (xsk_ring_prod__reserve(&rings->fill, count, &to) != count) {
		xsk_ring_cons__cancel(&rings->rx, count);
		return 0;
	}
	for (__u32 i = 0; i < count; i++) {
		const struct xdp_desc *packet = xsk_ring_cons__rx_desc(&rings->rx, from++);

		*xsk_ring_prod__fill_addr(&rings->fill, to++) = packet->addr;
		bytes += packet->len;
	}
	xsk_ring_prod__submit(&rings->fill, count);
	xsk_ring_cons__release(&rings->rx, count);
	return bytes;
}

/* The same, and looks at the first byte of each packet. */
__u64 rings_look(struct rings *rings, __u32 batch)
{
	__u32 count, from = 0, to = 0;
	__u64 bytes = 0;

	count = xsk_ring_cons__peek(&rings->rx, batch, &from);
	if (xsk_ring_prod__reserve(&rings->fill, count, &to) != count) {
		xsk_ring_cons__cancel(&rings->rx, count);
		return 0;
	}
	for (__u32 i = 0; i < count; i++) {
		const struct xdp_desc *packet = xsk_ring_cons__rx_desc(&rings->rx, from++);
		const unsigned char *data = xsk_umem__get_data(rings->packets, packet->addr);

		bytes += packet->len + data[0];
		*xsk_ring_prod__fill_addr(&rings->fill, to++) = packet->addr;
	}
	xsk_ring_prod__submit(&rings->fill, count);
	xsk_ring_cons__release(&rings->rx, count);
	return bytes;
}
