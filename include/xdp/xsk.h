/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* AF_XDP sockets: the C API of libxdp 1.6.
 *
 * The rings are the caller's structs and are used by the functions here, without a call into the library, which has
 * each of them as a symbol too. One thread at a time uses a ring.
 */

/* libbpf had a header of this name, with the same functions. */
#ifndef __LIBBPF_XSK_H
#define __LIBBPF_XSK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/if_xdp.h>
#include <bpf/libbpf.h>

#ifdef __cplusplus
extern "C" {
#endif

/* With the inline of C99, whoever takes the address of such a function gets that of the library's. */
#if defined(__GNUC_STDC_INLINE__)
#define XDP_ALWAYS_INLINE inline __attribute__((__always_inline__))
#elif defined(__GNUC_GNU_INLINE__)
#define XDP_ALWAYS_INLINE static inline __attribute__((__always_inline__))
#else
#define XDP_ALWAYS_INLINE static inline
#endif

/* A ring that both kinds share the shape of. The indices count up and wrap at 2^32; masked, they are slots.
 *
 *   cached_prod  our own index in a ring that we fill; the other side's, as last seen, in one that we empty
 *   cached_cons  the other way round; in a ring that we fill it is ahead by the ring's size, so that the free slots are
 *                the difference of the two
 *   producer, consumer, ring, flags   in the memory that the kernel shares
 */
#define DEFINE_XSK_RING(name) \
struct name { \
	__u32 cached_prod; \
	__u32 cached_cons; \
	__u32 mask; \
	__u32 size; \
	__u32 *producer; \
	__u32 *consumer; \
	void *ring; \
	__u32 *flags; \
}

DEFINE_XSK_RING(xsk_ring_prod); /* fill and TX: we produce */
DEFINE_XSK_RING(xsk_ring_cons); /* RX and completion: we consume */

struct xsk_umem;
struct xsk_socket;

/* The entry of an index that was reserved or peeked at. */
XDP_ALWAYS_INLINE __u64 *xsk_ring_prod__fill_addr(struct xsk_ring_prod *fill, __u32 idx)
{
	return (__u64 *)fill->ring + (idx & fill->mask);
}

XDP_ALWAYS_INLINE const __u64 *xsk_ring_cons__comp_addr(const struct xsk_ring_cons *comp, __u32 idx)
{
	return (const __u64 *)comp->ring + (idx & comp->mask);
}

XDP_ALWAYS_INLINE struct xdp_desc *xsk_ring_prod__tx_desc(struct xsk_ring_prod *tx, __u32 idx)
{
	return (struct xdp_desc *)tx->ring + (idx & tx->mask);
}

XDP_ALWAYS_INLINE const struct xdp_desc *xsk_ring_cons__rx_desc(const struct xsk_ring_cons *rx, __u32 idx)
{
	return (const struct xdp_desc *)rx->ring + (idx & rx->mask);
}

/* Whether the kernel waits for a system call. It sets the flag at any time. */
XDP_ALWAYS_INLINE int xsk_ring_prod__needs_wakeup(const struct xsk_ring_prod *r)
{
	return __atomic_load_n(r->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

/* How many slots are free. Looks at the kernel's index only if fewer than `nb` were free the last time: may tell
 * too few.
 */
XDP_ALWAYS_INLINE __u32 xsk_prod_nb_free(struct xsk_ring_prod *r, __u32 nb)
{
	__u32 room = r->cached_cons - r->cached_prod;

	if (room < nb) {
		/* Acquire: the kernel has read the slots that it gave back before we write them. */
		r->cached_cons = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE) + r->size;
		room = r->cached_cons - r->cached_prod;
	}
	return room;
}

/* How many entries there are to take, at most `nb`. Looks at the kernel's index only if none was left. */
XDP_ALWAYS_INLINE __u32 xsk_cons_nb_avail(struct xsk_ring_cons *r, __u32 nb)
{
	__u32 waiting;

	/* Acquire: the kernel has written the entries before we read them. */
	if (r->cached_prod == r->cached_cons)
		r->cached_prod = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
	waiting = r->cached_prod - r->cached_cons;
	return waiting < nb ? waiting : nb;
}

/* Takes `nb` slots to write to, from index `*idx` on; all of them or none, and then returns 0 and leaves `*idx`. */
XDP_ALWAYS_INLINE __u32 xsk_ring_prod__reserve(struct xsk_ring_prod *prod, __u32 nb, __u32 *idx)
{
	if (nb > xsk_prod_nb_free(prod, nb))
		return 0;
	*idx = prod->cached_prod;
	prod->cached_prod += nb;
	return nb;
}

/* Gives the oldest `nb` reserved slots to the kernel. */
XDP_ALWAYS_INLINE void xsk_ring_prod__submit(struct xsk_ring_prod *prod, __u32 nb)
{
	__u32 next = *prod->producer + nb;

	/* Release: what we wrote into the slots is there before the index tells of it. */
	__atomic_store_n(prod->producer, next, __ATOMIC_RELEASE);
}

/* Takes up to `nb` entries to read, from index `*idx` on, and returns how many; for 0 it leaves `*idx`. */
XDP_ALWAYS_INLINE __u32 xsk_ring_cons__peek(struct xsk_ring_cons *cons, __u32 nb, __u32 *idx)
{
	__u32 taken = xsk_cons_nb_avail(cons, nb);

	if (taken) {
		*idx = cons->cached_cons;
		cons->cached_cons += taken;
	}
	return taken;
}

/* Puts the newest `nb` entries back that were taken and not released: the next peek sees them again. */
XDP_ALWAYS_INLINE void xsk_ring_cons__cancel(struct xsk_ring_cons *cons, __u32 nb)
{
	cons->cached_cons -= nb;
}

/* Gives the slots of the oldest `nb` entries that were taken back to the kernel. */
XDP_ALWAYS_INLINE void xsk_ring_cons__release(struct xsk_ring_cons *cons, __u32 nb)
{
	__u32 next = *cons->consumer + nb;

	/* Release: what we read from the slots was read before the index gives them back. */
	__atomic_store_n(cons->consumer, next, __ATOMIC_RELEASE);
}

/* The data at an address of the UMEM. */
XDP_ALWAYS_INLINE void *xsk_umem__get_data(void *umem_area, __u64 addr)
{
	return (char *)umem_area + addr;
}

/* With XDP_UMEM_UNALIGNED_CHUNK_FLAG an address is that of a chunk, and in its upper 16 bits the offset of the
 * data: the two apart, and the sum, which is what xsk_umem__get_data() wants.
 */
XDP_ALWAYS_INLINE __u64 xsk_umem__extract_addr(__u64 addr)
{
	return addr & XSK_UNALIGNED_BUF_ADDR_MASK;
}

XDP_ALWAYS_INLINE __u64 xsk_umem__extract_offset(__u64 addr)
{
	return addr >> XSK_UNALIGNED_BUF_OFFSET_SHIFT;
}

XDP_ALWAYS_INLINE __u64 xsk_umem__add_offset_to_addr(__u64 addr)
{
	return xsk_umem__extract_offset(addr) + xsk_umem__extract_addr(addr);
}

/* Descriptors for poll(2) and the like, which stay the library's; -EINVAL for NULL. */
int xsk_umem__fd(const struct xsk_umem *umem);
int xsk_socket__fd(const struct xsk_socket *xsk);

#define XSK_RING_CONS__DEFAULT_NUM_DESCS 2048
#define XSK_RING_PROD__DEFAULT_NUM_DESCS 2048
#define XSK_UMEM__DEFAULT_FRAME_SHIFT 12
#define XSK_UMEM__DEFAULT_FRAME_SIZE (1 << XSK_UMEM__DEFAULT_FRAME_SHIFT)
#define XSK_UMEM__DEFAULT_FRAME_HEADROOM 0
#define XSK_UMEM__DEFAULT_FLAGS 0
#define XSK_UMEM__DEFAULT_TX_METADATA_LEN 0

/* Sizes of rings are in entries, a power of two. In these four structs, 0 is the default. */
struct xsk_umem_config {
	__u32 fill_size;
	__u32 comp_size;
	__u32 frame_size;
	__u32 frame_headroom;
	__u32 flags; /* XDP_UMEM_… */
};

struct xsk_umem_opts {
	size_t sz; /* of this struct; DECLARE_LIBXDP_OPTS sets it */
	int fd;    /* an AF_XDP socket that is not bound, instead of a new one; it is the library's from then on */
	__u64 size; /* of the memory, in bytes */
	__u32 fill_size;
	__u32 comp_size;
	__u32 frame_size;
	__u32 frame_headroom;
	__u32 flags;
	__u32 tx_metadata_len; /* bytes before each packet that is sent, with XDP_UMEM_TX_METADATA_LEN in flags; kernel 6.8 */
	size_t :0;
};
#define xsk_umem_opts__last_field tx_metadata_len

/* For a socket of a process that may not load programs: puts the default program on the interface, and the socket
 * into its map.
 */
int xsk_setup_xdp_prog(int ifindex, int *xsks_map_fd);
int xsk_socket__update_xskmap(struct xsk_socket *xsk, int xsks_map_fd);

/* The one flag of libxdp_flags: the caller sees to a program. It has two names, as the member. */
#define XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD (1 << 0)
#define XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD (1 << 0)

struct xsk_socket_config {
	__u32 rx_size;
	__u32 tx_size;
	union {
		__u32 libbpf_flags;
		__u32 libxdp_flags;
	};
	__u32 xdp_flags;  /* XDP_FLAGS_SKB_MODE, …: how the default program is attached; 0 is native */
	__u16 bind_flags; /* XDP_COPY, XDP_ZEROCOPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG */
};

struct xsk_socket_opts {
	size_t sz; /* of this struct; DECLARE_LIBXDP_OPTS sets it */
	struct xsk_ring_cons *rx; /* one of the two, or both */
	struct xsk_ring_prod *tx;
	struct xsk_ring_prod *fill; /* both, or neither for those of the UMEM's first socket */
	struct xsk_ring_cons *comp;
	__u32 rx_size;
	__u32 tx_size;
	__u32 libxdp_flags;
	__u32 xdp_flags;
	__u16 bind_flags;
	size_t :0;
};
#define xsk_socket_opts__last_field bind_flags

/* `umem_area` starts at a page and stays the caller's; unmap it after the UMEM is deleted. `config` NULL: all
 * defaults. 0 or a negative errno; NULL and errno from those with opts.
 */
int xsk_umem__create(struct xsk_umem **umem, void *umem_area, __u64 size, struct xsk_ring_prod *fill,
		     struct xsk_ring_cons *comp, const struct xsk_umem_config *config);
int xsk_umem__create_with_fd(struct xsk_umem **umem, int fd, void *umem_area, __u64 size, struct xsk_ring_prod *fill,
			     struct xsk_ring_cons *comp, const struct xsk_umem_config *config);
struct xsk_umem *xsk_umem__create_opts(void *umem_area, struct xsk_ring_prod *fill, struct xsk_ring_cons *comp,
				       struct xsk_umem_opts *opts);

int xsk_socket__create(struct xsk_socket **xsk, const char *ifname, __u32 queue_id, struct xsk_umem *umem,
		       struct xsk_ring_cons *rx, struct xsk_ring_prod *tx, const struct xsk_socket_config *config);
/* One more socket of a UMEM, on another queue or interface with rings of its own. */
int xsk_socket__create_shared(struct xsk_socket **xsk_ptr, const char *ifname, __u32 queue_id, struct xsk_umem *umem,
			      struct xsk_ring_cons *rx, struct xsk_ring_prod *tx, struct xsk_ring_prod *fill,
			      struct xsk_ring_cons *comp, const struct xsk_socket_config *config);
struct xsk_socket *xsk_socket__create_opts(const char *ifname, __u32 queue_id, struct xsk_umem *umem,
					   struct xsk_socket_opts *opts);

/* -EBUSY as long as there are sockets of it. */
int xsk_umem__delete(struct xsk_umem *umem);
void xsk_socket__delete(struct xsk_socket *xsk);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif

/* What tells a program that this is libxdp's. */
#ifndef __LIBXDP_XSK_H
#define __LIBXDP_XSK_H
#endif
