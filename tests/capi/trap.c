/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* trap OBJECT LIBXDP VERSION: an object that the caller's libbpf has opened is given to libxdp, and its map is read by the
 * caller's libbpf. There must be one libbpf in the process, of that version, and LIBXDP alone.
 *
 * With LOADED it is not linked to libxdp, but opens it with dlopen(3) for itself alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <xdp/libxdp.h>

#include "whole.h"

#define COUNT 16

#ifdef LOADED
#define FUNCTION(name) static __typeof__(name) *p_##name
FUNCTION(libxdp_get_error);
FUNCTION(xdp_program__from_bpf_obj);
FUNCTION(xdp_program__bpf_obj);
FUNCTION(xdp_program__attach);
FUNCTION(xdp_program__detach);
FUNCTION(xdp_program__fd);
FUNCTION(xdp_program__close);

static void load(const char *path)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	check(handle);
#define FIND(name) check((p_##name = (__typeof__(name) *)dlsym(handle, #name)))
	FIND(libxdp_get_error);
	FIND(xdp_program__from_bpf_obj);
	FIND(xdp_program__bpf_obj);
	FIND(xdp_program__attach);
	FIND(xdp_program__detach);
	FIND(xdp_program__fd);
	FIND(xdp_program__close);
	check(!dlsym(RTLD_DEFAULT, "xdp_program__attach"));
}
#define libxdp_get_error p_libxdp_get_error
#define xdp_program__from_bpf_obj p_xdp_program__from_bpf_obj
#define xdp_program__bpf_obj p_xdp_program__bpf_obj
#define xdp_program__attach p_xdp_program__attach
#define xdp_program__detach p_xdp_program__detach
#define xdp_program__fd p_xdp_program__fd
#define xdp_program__close p_xdp_program__close
#else
static void load(const char *path)
{
	(void)path;
}
#endif

struct found {
	char libxdp[PATH_MAX];
	int libxdps, libbpfs;
};

static int look(struct dl_phdr_info *info, size_t size, void *data)
{
	struct found *found = data;

	(void)size;
	found->libbpfs += strstr(info->dlpi_name, "/libbpf.so") != NULL;
	if (strstr(info->dlpi_name, "/libxdp.so")) {
		found->libxdps++;
		check(realpath(info->dlpi_name, found->libxdp));
	}
	return 0;
}

static __u64 seen_in(const struct bpf_map *map)
{
	__u32 zero = 0;
	__u64 seen = 0;

	check(bpf_map__fd(map) >= 0 && bpf_map_lookup_elem(bpf_map__fd(map), &zero, &seen) == 0);
	return seen;
}

int main(int argc, char **argv)
{
	struct found found = { 0 };
	struct xdp_program *program;
	struct bpf_object *object;
	struct bpf_program *own;
	struct bpf_map *map;
	char path[PATH_MAX], version[16];
	int ifindex, far;

	check(argc == 4 && realpath(argv[2], path));
	load(path);
	dl_iterate_phdr(look, &found);
	check(found.libbpfs == 1 && found.libxdps == 1 && strcmp(found.libxdp, path) == 0);
	snprintf(version, sizeof(version), "%u.%u", libbpf_major_version(), libbpf_minor_version());
	check(strcmp(version, argv[3]) == 0);

	ifindex = (int)if_nametoindex(NEAR);
	far = frames_of(FAR);
	object = bpf_object__open(argv[1]);
	check(object);
	own = bpf_object__find_program_by_name(object, "whole_counts");
	map = bpf_object__find_map_by_name(object, "whole_seen");
	check(own && map);
	program = xdp_program__from_bpf_obj(object, "xdp");
	check(libxdp_get_error(program) == 0 && xdp_program__bpf_obj(program) == object);
	check(xdp_program__attach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	/* What libxdp has loaded, the caller's libbpf knows as loaded. */
	check(bpf_program__fd(own) >= 0 && xdp_program__fd(program) >= 0);
	check(seen_in(map) == 0);
	send_frames(far, COUNT);
	check(seen_in(map) == COUNT);
	check(xdp_program__detach(program, ifindex, XDP_MODE_SKB, 0) == 0);
	xdp_program__close(program);
	/* The object stays the caller's. */
	check(seen_in(map) == COUNT);
	bpf_object__close(object);
	close(far);
	printf("trap: libbpf %s, %d frames counted\n", version, COUNT);
	return 0;
}
