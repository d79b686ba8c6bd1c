/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* What a program sees of the headers, in C and in C++: printed, and with CALLS compiled only. PEER is the version of
 * the headers, 103 or 106: those of 1.3 have less.
 *
 * An exact type is asked for everywhere: in C++ by the language, in C by the compiler, for which an enum is an
 * unsigned int.
 */
#include <linux/if_link.h>
#include <xdp/libxdp.h>
#include <xdp/xsk.h>
#include <xdp/prog_dispatcher.h>
#include <xdp/xdp_helpers.h>
#include <xdp/xdp_stats_kern_user.h>
#ifndef __cplusplus
#include <xdp/parsing_helpers.h>
#endif

#ifdef __cplusplus
#include <type_traits>
#define SAME(a, b) static_assert(std::is_same<a, b>::value, #a " is not " #b)
#else
#define SAME(a, b) _Static_assert(__builtin_types_compatible_p(a, b), #a " is not " #b)
#endif

#ifdef CALLS

/* A pointer of the type that the function has to have. tests/capi/layout counts these. */
#define FUNCTION(type, name, ...) \
	extern type (*const pointer_to_##name)(__VA_ARGS__); \
	type (*const pointer_to_##name)(__VA_ARGS__) = name

FUNCTION(long, libxdp_get_error, const void *);
FUNCTION(libxdp_print_fn_t, libxdp_set_print, libxdp_print_fn_t);
FUNCTION(int, libxdp_strerror, int, char *, size_t);
FUNCTION(int, libxdp_clean_references, int);

FUNCTION(struct xdp_program *, xdp_program__from_bpf_obj, struct bpf_object *, const char *);
FUNCTION(struct xdp_program *, xdp_program__find_file, const char *, const char *, struct bpf_object_open_opts *);
FUNCTION(struct xdp_program *, xdp_program__open_file, const char *, const char *, struct bpf_object_open_opts *);
FUNCTION(struct xdp_program *, xdp_program__from_fd, int);
FUNCTION(struct xdp_program *, xdp_program__from_id, __u32);
FUNCTION(struct xdp_program *, xdp_program__from_pin, const char *);
FUNCTION(struct xdp_program *, xdp_program__clone, struct xdp_program *, unsigned int);
FUNCTION(struct xdp_program *, xdp_program__create, struct xdp_program_opts *);
FUNCTION(void, xdp_program__close, struct xdp_program *);
FUNCTION(int, xdp_program__test_run, struct xdp_program *, struct bpf_test_run_opts *, unsigned int);
FUNCTION(enum xdp_attach_mode, xdp_program__is_attached, const struct xdp_program *, int);
FUNCTION(const char *, xdp_program__name, const struct xdp_program *);
FUNCTION(const unsigned char *, xdp_program__tag, const struct xdp_program *);
FUNCTION(struct bpf_object *, xdp_program__bpf_obj, struct xdp_program *);
FUNCTION(const struct btf *, xdp_program__btf, struct xdp_program *);
FUNCTION(uint32_t, xdp_program__id, const struct xdp_program *);
FUNCTION(int, xdp_program__fd, const struct xdp_program *);
FUNCTION(unsigned int, xdp_program__run_prio, const struct xdp_program *);
FUNCTION(int, xdp_program__set_run_prio, struct xdp_program *, unsigned int);
FUNCTION(bool, xdp_program__chain_call_enabled, const struct xdp_program *, enum xdp_action);
FUNCTION(int, xdp_program__set_chain_call_enabled, struct xdp_program *, unsigned int, bool);
FUNCTION(int, xdp_program__print_chain_call_actions, const struct xdp_program *, char *, size_t);
FUNCTION(bool, xdp_program__xdp_frags_support, const struct xdp_program *);
FUNCTION(int, xdp_program__set_xdp_frags_support, struct xdp_program *, bool);
FUNCTION(int, xdp_program__pin, struct xdp_program *, const char *);
FUNCTION(int, xdp_program__attach, struct xdp_program *, int, enum xdp_attach_mode, unsigned int);
FUNCTION(int, xdp_program__attach_multi, struct xdp_program **, size_t, int, enum xdp_attach_mode, unsigned int);
FUNCTION(int, xdp_program__detach, struct xdp_program *, int, enum xdp_attach_mode, unsigned int);
FUNCTION(int, xdp_program__detach_multi, struct xdp_program **, size_t, int, enum xdp_attach_mode, unsigned int);

FUNCTION(struct xdp_multiprog *, xdp_multiprog__get_from_ifindex, int);
FUNCTION(struct xdp_program *, xdp_multiprog__next_prog, const struct xdp_program *, const struct xdp_multiprog *);
FUNCTION(void, xdp_multiprog__close, struct xdp_multiprog *);
FUNCTION(int, xdp_multiprog__detach, struct xdp_multiprog *);
FUNCTION(enum xdp_attach_mode, xdp_multiprog__attach_mode, const struct xdp_multiprog *);
FUNCTION(struct xdp_program *, xdp_multiprog__main_prog, const struct xdp_multiprog *);
FUNCTION(struct xdp_program *, xdp_multiprog__hw_prog, const struct xdp_multiprog *);
FUNCTION(bool, xdp_multiprog__is_legacy, const struct xdp_multiprog *);
FUNCTION(int, xdp_multiprog__program_count, const struct xdp_multiprog *);
FUNCTION(bool, xdp_multiprog__xdp_frags_support, const struct xdp_multiprog *);

FUNCTION(__u64 *, xsk_ring_prod__fill_addr, struct xsk_ring_prod *, __u32);
FUNCTION(const __u64 *, xsk_ring_cons__comp_addr, const struct xsk_ring_cons *, __u32);
FUNCTION(struct xdp_desc *, xsk_ring_prod__tx_desc, struct xsk_ring_prod *, __u32);
FUNCTION(const struct xdp_desc *, xsk_ring_cons__rx_desc, const struct xsk_ring_cons *, __u32);
FUNCTION(int, xsk_ring_prod__needs_wakeup, const struct xsk_ring_prod *);
FUNCTION(__u32, xsk_prod_nb_free, struct xsk_ring_prod *, __u32);
FUNCTION(__u32, xsk_cons_nb_avail, struct xsk_ring_cons *, __u32);
FUNCTION(__u32, xsk_ring_prod__reserve, struct xsk_ring_prod *, __u32, __u32 *);
FUNCTION(void, xsk_ring_prod__submit, struct xsk_ring_prod *, __u32);
FUNCTION(__u32, xsk_ring_cons__peek, struct xsk_ring_cons *, __u32, __u32 *);
FUNCTION(void, xsk_ring_cons__cancel, struct xsk_ring_cons *, __u32);
FUNCTION(void, xsk_ring_cons__release, struct xsk_ring_cons *, __u32);
FUNCTION(void *, xsk_umem__get_data, void *, __u64);
FUNCTION(__u64, xsk_umem__extract_addr, __u64);
FUNCTION(__u64, xsk_umem__extract_offset, __u64);
FUNCTION(__u64, xsk_umem__add_offset_to_addr, __u64);

FUNCTION(int, xsk_umem__fd, const struct xsk_umem *);
FUNCTION(int, xsk_socket__fd, const struct xsk_socket *);
FUNCTION(int, xsk_setup_xdp_prog, int, int *);
FUNCTION(int, xsk_socket__update_xskmap, struct xsk_socket *, int);
FUNCTION(int, xsk_umem__create, struct xsk_umem **, void *, __u64, struct xsk_ring_prod *, struct xsk_ring_cons *,
	 const struct xsk_umem_config *);
FUNCTION(int, xsk_socket__create, struct xsk_socket **, const char *, __u32, struct xsk_umem *, struct xsk_ring_cons *,
	 struct xsk_ring_prod *, const struct xsk_socket_config *);
FUNCTION(int, xsk_socket__create_shared, struct xsk_socket **, const char *, __u32, struct xsk_umem *,
	 struct xsk_ring_cons *, struct xsk_ring_prod *, struct xsk_ring_prod *, struct xsk_ring_cons *,
	 const struct xsk_socket_config *);
FUNCTION(int, xsk_umem__delete, struct xsk_umem *);
FUNCTION(void, xsk_socket__delete, struct xsk_socket *);

#if PEER >= 106
FUNCTION(int, xsk_umem__create_with_fd, struct xsk_umem **, int, void *, __u64, struct xsk_ring_prod *,
	 struct xsk_ring_cons *, const struct xsk_umem_config *);
FUNCTION(struct xsk_umem *, xsk_umem__create_opts, void *, struct xsk_ring_prod *, struct xsk_ring_cons *,
	 struct xsk_umem_opts *);
FUNCTION(struct xsk_socket *, xsk_socket__create_opts, const char *, __u32, struct xsk_umem *,
	 struct xsk_socket_opts *);
FUNCTION(bool, xdp_multiprog__xdp_dev_bound, const struct xdp_multiprog *);
#endif

/* As programs write it. */
int calls(struct xsk_ring_prod *fill, struct xsk_ring_cons *rx, struct xsk_umem *umem, void *area);
int calls(struct xsk_ring_prod *fill, struct xsk_ring_cons *rx, struct xsk_umem *umem, void *area)
{
	struct xsk_socket_config config = {};
	struct xsk_socket *socket = NULL;
	struct xdp_program *program;
	__u32 from = 0, to = 0, count, i;

	DECLARE_LIBXDP_OPTS(xdp_program_opts, by_id, .id = 42);
	program = xdp_program__create(&by_id);
	if (!program || libxdp_get_error(program))
		return 1;
	xdp_program__set_chain_call_enabled(program, XDP_DROP, true);
	if (xdp_program__attach(program, 2, XDP_MODE_NATIVE, 0))
		xdp_program__close(program);

	config.libbpf_flags = XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD;
	config.libxdp_flags |= XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
	config.xdp_flags = XDP_FLAGS_SKB_MODE;
	if (xsk_socket__create(&socket, "eth0", 0, umem, rx, NULL, &config))
		return 1;
	count = xsk_ring_cons__peek(rx, 64, &from);
	if (xsk_ring_prod__reserve(fill, count, &to) != count)
		xsk_ring_cons__cancel(rx, count);
	else
		for (i = 0; i < count; i++) {
			__u64 addr = xsk_ring_cons__rx_desc(rx, from++)->addr;

			*(char *)xsk_umem__get_data(area, xsk_umem__add_offset_to_addr(addr)) = 0;
			*xsk_ring_prod__fill_addr(fill, to++) = xsk_umem__extract_addr(addr);
		}
	xsk_ring_prod__submit(fill, count);
	xsk_ring_cons__release(rx, count);
	return xsk_ring_prod__needs_wakeup(fill);
}

#else

#define STRUCT(type) \
	printf("struct %s: size %zu, alignment %zu\n", #type, sizeof(struct type), __alignof__(struct type))
#define FIELD(type, kind, field) \
	do { \
		SAME(kind, __typeof__(((struct type *)0)->field)); \
		printf("struct %s: %s %s at %zu\n", #type, #kind, #field, offsetof(struct type, field)); \
	} while (0)
#define VALUE(name) printf("%s = %lld\n", #name, (long long)(name))
#define TEXT(name) printf("%s = \"%s\"\n", #name, name)
#define SPELLING(name, macro) printf("%s = %s\n", name, LITERAL(macro))
#define LITERAL(macro) LITERALLY(macro)
#define LITERALLY(...) #__VA_ARGS__

static void libxdp(void)
{
	TEXT(XDP_BPFFS_ENVVAR);
	TEXT(XDP_BPFFS_MOUNT_ENVVAR);
	TEXT(XDP_OBJECT_ENVVAR);
	VALUE(XDP_MODE_UNSPEC);
	VALUE(XDP_MODE_NATIVE);
	VALUE(XDP_MODE_SKB);
	VALUE(XDP_MODE_HW);
	VALUE(sizeof(enum xdp_attach_mode));
	VALUE(LIBXDP_WARN);
	VALUE(LIBXDP_INFO);
	VALUE(LIBXDP_DEBUG);
	SAME(libxdp_print_fn_t, int (*)(enum libxdp_print_level, const char *, va_list));

	STRUCT(xdp_program_opts);
	FIELD(xdp_program_opts, size_t, sz);
	FIELD(xdp_program_opts, struct bpf_object *, obj);
	FIELD(xdp_program_opts, struct bpf_object_open_opts *, opts);
	FIELD(xdp_program_opts, const char *, prog_name);
	FIELD(xdp_program_opts, const char *, find_filename);
	FIELD(xdp_program_opts, const char *, open_filename);
	FIELD(xdp_program_opts, const char *, pin_path);
	FIELD(xdp_program_opts, __u32, id);
	FIELD(xdp_program_opts, int, fd);
	SPELLING("xdp_program_opts__last_field", xdp_program_opts__last_field);
#if PEER >= 106
	VALUE(XDP_ATTACH_DEVBIND);
	VALUE(XDP_ATTACH_FLAGS);
#endif
}

static void helpers(void)
{
	VALUE(XDP_DEFAULT_RUN_PRIO);
	VALUE(XDP_DEFAULT_CHAIN_CALL_ACTIONS);
	SPELLING("XDP_RUN_CONFIG", XDP_RUN_CONFIG(function));
	SPELLING("DECLARE_LIBXDP_OPTS", DECLARE_LIBXDP_OPTS(type, name, .field = 1));

	TEXT(XDP_METADATA_SECTION);
	VALUE(XDP_DISPATCHER_VERSION);
	VALUE(XDP_DISPATCHER_MAGIC);
	VALUE(XDP_DISPATCHER_RETVAL);
	VALUE(MAX_DISPATCHER_ACTIONS);
	STRUCT(xdp_dispatcher_config);
	FIELD(xdp_dispatcher_config, __u8, magic);
	FIELD(xdp_dispatcher_config, __u8, dispatcher_version);
	FIELD(xdp_dispatcher_config, __u8, num_progs_enabled);
	FIELD(xdp_dispatcher_config, __u8, is_xdp_frags);
	FIELD(xdp_dispatcher_config, __u32[10], chain_call_actions);
	FIELD(xdp_dispatcher_config, __u32[10], run_prios);
	FIELD(xdp_dispatcher_config, __u32[10], program_flags);
#if PEER >= 106
	FIELD(xdp_dispatcher_config, __u8, is_xdp_devbound);
#endif

	VALUE(XDP_ACTION_MAX);
	SPELLING("XDP_STATS_MAP_NAME", XDP_STATS_MAP_NAME);
	STRUCT(xdp_stats_record);
	FIELD(xdp_stats_record, __u64, packets);
	FIELD(xdp_stats_record, __u64, rx_packets);
	FIELD(xdp_stats_record, __u64, bytes);
	FIELD(xdp_stats_record, __u64, rx_bytes);
}

#define RING(type) \
	do { \
		STRUCT(type); \
		FIELD(type, __u32, cached_prod); \
		FIELD(type, __u32, cached_cons); \
		FIELD(type, __u32, mask); \
		FIELD(type, __u32, size); \
		FIELD(type, __u32 *, producer); \
		FIELD(type, __u32 *, consumer); \
		FIELD(type, void *, ring); \
		FIELD(type, __u32 *, flags); \
	} while (0)

static void xsk(void)
{
	VALUE(XSK_RING_CONS__DEFAULT_NUM_DESCS);
	VALUE(XSK_RING_PROD__DEFAULT_NUM_DESCS);
	VALUE(XSK_UMEM__DEFAULT_FRAME_SHIFT);
	VALUE(XSK_UMEM__DEFAULT_FRAME_SIZE);
	VALUE(XSK_UMEM__DEFAULT_FRAME_HEADROOM);
	VALUE(XSK_UMEM__DEFAULT_FLAGS);
	VALUE(XSK_LIBBPF_FLAGS__INHIBIT_PROG_LOAD);
	VALUE(XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD);
	RING(xsk_ring_prod);
	RING(xsk_ring_cons);

	STRUCT(xsk_umem_config);
	FIELD(xsk_umem_config, __u32, fill_size);
	FIELD(xsk_umem_config, __u32, comp_size);
	FIELD(xsk_umem_config, __u32, frame_size);
	FIELD(xsk_umem_config, __u32, frame_headroom);
	FIELD(xsk_umem_config, __u32, flags);
	STRUCT(xsk_socket_config);
	FIELD(xsk_socket_config, __u32, rx_size);
	FIELD(xsk_socket_config, __u32, tx_size);
	FIELD(xsk_socket_config, __u32, libbpf_flags);
	FIELD(xsk_socket_config, __u32, libxdp_flags);
	FIELD(xsk_socket_config, __u32, xdp_flags);
	FIELD(xsk_socket_config, __u16, bind_flags);
#if PEER >= 106
	VALUE(XSK_UMEM__DEFAULT_TX_METADATA_LEN);
	STRUCT(xsk_umem_opts);
	FIELD(xsk_umem_opts, size_t, sz);
	FIELD(xsk_umem_opts, int, fd);
	FIELD(xsk_umem_opts, __u64, size);
	FIELD(xsk_umem_opts, __u32, fill_size);
	FIELD(xsk_umem_opts, __u32, comp_size);
	FIELD(xsk_umem_opts, __u32, frame_size);
	FIELD(xsk_umem_opts, __u32, frame_headroom);
	FIELD(xsk_umem_opts, __u32, flags);
	FIELD(xsk_umem_opts, __u32, tx_metadata_len);
	SPELLING("xsk_umem_opts__last_field", xsk_umem_opts__last_field);
	STRUCT(xsk_socket_opts);
	FIELD(xsk_socket_opts, size_t, sz);
	FIELD(xsk_socket_opts, struct xsk_ring_cons *, rx);
	FIELD(xsk_socket_opts, struct xsk_ring_prod *, tx);
	FIELD(xsk_socket_opts, struct xsk_ring_prod *, fill);
	FIELD(xsk_socket_opts, struct xsk_ring_cons *, comp);
	FIELD(xsk_socket_opts, __u32, rx_size);
	FIELD(xsk_socket_opts, __u32, tx_size);
	FIELD(xsk_socket_opts, __u32, libxdp_flags);
	FIELD(xsk_socket_opts, __u32, xdp_flags);
	FIELD(xsk_socket_opts, __u16, bind_flags);
	SPELLING("xsk_socket_opts__last_field", xsk_socket_opts__last_field);
#endif
}

#ifndef __cplusplus
static void parsing(void)
{
	VALUE(VLAN_MAX_DEPTH);
	VALUE(IPV6_EXT_MAX_CHAIN);
	STRUCT(hdr_cursor);
	FIELD(hdr_cursor, void *, pos);
	STRUCT(vlan_hdr);
	FIELD(vlan_hdr, __be16, h_vlan_TCI);
	FIELD(vlan_hdr, __be16, h_vlan_encapsulated_proto);
	STRUCT(icmphdr_common);
	FIELD(icmphdr_common, __u8, type);
	FIELD(icmphdr_common, __u8, code);
	FIELD(icmphdr_common, __sum16, cksum);
#if PEER >= 106
	VALUE(ARPHRD_ETHER);
	VALUE(ARPOP_REQUEST);
	VALUE(ARPOP_REPLY);
	STRUCT(arphdr);
	FIELD(arphdr, __be16, ar_hrd);
	FIELD(arphdr, __be16, ar_pro);
	FIELD(arphdr, unsigned char, ar_hln);
	FIELD(arphdr, unsigned char, ar_pln);
	FIELD(arphdr, __be16, ar_op);
	FIELD(arphdr, unsigned char[6], ar_sha);
	FIELD(arphdr, __be32, ar_sip);
	FIELD(arphdr, unsigned char[6], ar_tha);
	FIELD(arphdr, __be32, ar_tip);
#endif
}
#endif

int main(void)
{
	libxdp();
	helpers();
	xsk();
#ifndef __cplusplus
	parsing();
#endif
	return 0;
}

#endif
