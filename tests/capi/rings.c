/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* The functions of two xsk.h beside each other: compiled with TWIN=ours and TWIN=theirs for the functions, and without
 * for who calls them. The same random steps are made with both, each from the same memory, wrong ones among them, and
 * the memory must be the same afterwards, to the last byte.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_xdp.h>
#include <linux/types.h>

typedef __u64 operation(void *ring, __u32 count, __u32 *index, __u64 value);

#ifdef TWIN
#include <xdp/xsk.h>

#define NAMED(twin) LIST_OF(twin)
#define LIST_OF(twin) operations_of_##twin
/* Not static, so that the assembler's text has a function for each. */
#define OPERATION(name) \
	__u64 name(void *ring, __u32 count, __u32 *index, __u64 value); \
	__u64 name(__attribute__((unused)) void *ring, __attribute__((unused)) __u32 count, \
		   __attribute__((unused)) __u32 *index, __attribute__((unused)) __u64 value)

#define JOINED(twin, name) JOIN(twin, name)
#define JOIN(twin, name) twin##_##name
#define OP(name) OPERATION(JOINED(TWIN, name))

OP(nb_free) { return xsk_prod_nb_free((struct xsk_ring_prod *)ring, count); }
OP(reserve) { return xsk_ring_prod__reserve((struct xsk_ring_prod *)ring, count, index); }
OP(submit) { xsk_ring_prod__submit((struct xsk_ring_prod *)ring, count); return 0; }
OP(needs_wakeup) { return xsk_ring_prod__needs_wakeup((struct xsk_ring_prod *)ring); }
OP(fill_addr) { return *xsk_ring_prod__fill_addr((struct xsk_ring_prod *)ring, *index) = value; }
OP(tx_desc) { return xsk_ring_prod__tx_desc((struct xsk_ring_prod *)ring, *index)->addr = value; }
OP(nb_avail) { return xsk_cons_nb_avail((struct xsk_ring_cons *)ring, count); }
OP(peek) { return xsk_ring_cons__peek((struct xsk_ring_cons *)ring, count, index); }
OP(cancel) { xsk_ring_cons__cancel((struct xsk_ring_cons *)ring, count); return 0; }
OP(release) { xsk_ring_cons__release((struct xsk_ring_cons *)ring, count); return 0; }
OP(comp_addr) { return *xsk_ring_cons__comp_addr((struct xsk_ring_cons *)ring, *index); }
OP(rx_desc) { return xsk_ring_cons__rx_desc((struct xsk_ring_cons *)ring, *index)->addr; }
OP(get_data) { return (char *)xsk_umem__get_data(ring, value >> 20) - (char *)ring; }
OP(extract_addr) { return xsk_umem__extract_addr(value); }
OP(extract_offset) { return xsk_umem__extract_offset(value); }
OP(add_offset) { return xsk_umem__add_offset_to_addr(value); }

extern operation *const NAMED(TWIN)[];
#define E(name) JOINED(TWIN, name)
operation *const NAMED(TWIN)[] = {
	E(nb_free), E(reserve), E(submit), E(needs_wakeup), E(fill_addr), E(tx_desc), E(nb_avail), E(peek),
	E(cancel), E(release), E(comp_addr), E(rx_desc), E(get_data), E(extract_addr), E(extract_offset), E(add_offset),
	NULL,
};

#else

extern operation *const operations_of_ours[], *const operations_of_theirs[];

static const char *const names[] = {
	"nb_free", "reserve", "submit", "needs_wakeup", "fill_addr", "tx_desc", "nb_avail", "peek",
	"cancel", "release", "comp_addr", "rx_desc", "get_data", "extract_addr", "extract_offset", "add_offset",
};
#define NAMES (sizeof(names) / sizeof(*names))

struct ring { /* as both headers have it */
	__u32 cached_prod, cached_cons, mask, size;
	__u32 *producer, *consumer;
	void *ring;
	__u32 *flags;
};
_Static_assert(sizeof(struct ring) == 48, "a ring has 48 bytes");

#define SLOTS 64

static struct world {
	struct ring ring;
	__u32 producer, consumer, flags, index;
	struct xdp_desc slots[SLOTS];
} world, before, after;

static __u64 random_state = 0x9e3779b97f4a7c15;

static __u32 random_below(__u32 limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 16) % limit;
}

/* Most counts fit into a ring. */
static __u32 random_count(void)
{
	return random_below(8) ? random_below(SLOTS / 2) : random_below(0xffffffff);
}

/* A ring of a random size, whose indices are about to wrap. */
static void begin(void)
{
	size_t i;

	memset(&world, 0, sizeof(world));
	world.ring.size = 1U << random_below(7);
	world.ring.mask = world.ring.size - 1;
	world.ring.producer = &world.producer;
	world.ring.consumer = &world.consumer;
	world.ring.ring = world.slots;
	world.ring.flags = &world.flags;
	world.producer = world.consumer = 0U - random_below(3 * SLOTS);
	world.ring.cached_prod = world.ring.cached_cons = world.producer;
	if (random_below(2))
		world.ring.cached_cons += world.ring.size;
	for (i = 0; i < SLOTS; i++)
		world.slots[i].addr = random_state * (i + 1);
}

/* What the other side does meanwhile. */
static void other_side(void)
{
	switch (random_below(4)) {
	case 0:
		world.producer += random_below(world.ring.size + 1);
		break;
	case 1:
		world.consumer += random_below(world.ring.size + 1);
		break;
	case 2:
		world.flags = random_below(4);
		break;
	}
}

static int step(size_t i)
{
	size_t which = random_below(NAMES);
	__u32 count = random_count();
	__u64 value = ((__u64)random_count() << 32) | random_count(), ours, theirs;

	other_side();
	before = world;
	ours = operations_of_ours[which](&world.ring, count, &world.index, value);
	after = world;
	world = before;
	theirs = operations_of_theirs[which](&world.ring, count, &world.index, value);
	if (ours == theirs && !memcmp(&world, &after, sizeof(world)))
		return 0;
	fprintf(stderr, "step %zu: %s(%u) differs: %llu, and theirs %llu\n", i, names[which], count, ours, theirs);
	return 1;
}

int main(int argc, char **argv)
{
	size_t i, steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;

	if (operations_of_ours[NAMES] || operations_of_theirs[NAMES])
		return 2;
	for (i = 0; i < steps; i++) {
		if (i % 1000 == 0)
			begin();
		if (step(i))
			return 1;
	}
	printf("%zu steps, %zu functions: no difference\n", steps, NAMES);
	return 0;
}

#endif
