//! Where ours differs from C libxdp, and why. What stands here as a reason stands in docs/upstream-quirks.md too.

use super::Library::{self, V1_3, V1_6};
use super::{Allowed, ERRNO_TOO, OVERFLOWN};

const BOTH: &[Library] = &[V1_3, V1_6];
const THIRD: &[Library] = &[V1_3];
const SIXTH: &[Library] = &[V1_6];

const NO_XDP: &str = "what is no XDP program is opened, and fails when it is attached";
const OTHER_OBJECT: &str = "any descriptor of an object in the kernel is taken for a program";
const RUN_CONFIG: &str = "the priority counts and the actions do not";
const PIN: &str = "crashes for a program that is not from an object";
const PIN_NULL: &str = "NULL as the path is followed: crash";
const EMPTY: &str = "without any action it leaves the buffer as it was";
const OVERFLOW: &str = "it writes a 0 behind the buffer";
const UNSPEC: &str = "a program in skb mode cannot be taken off a device that has a native mode";
const NATIVE_BUSY: &str = "a program alone in the other mode is `-EEXIST`";
const HARDWARE: &str = "a device without offload is `-EINVAL`";
const SORTED: &str = "the caller's array is sorted";
const ERRNO: &str = "`errno` stays as it was, or as the last system call left it";
const ERROR_FOLLOWED: &str = "an errno in a pointer is followed: crash";
const PROGRAM_ERROR: &str = "such a pointer is followed: crash";
const MULTI: &str = "NULL among the programs is followed: crash";
const ARRAY: &str = "an errno in place of the array is looked at late, or followed";
const FIND_NULL: &str = "NULL is printed into a path";
const MULTIPROG_NULL: &str = "NULL is followed: crash | R (the first)";
const ZERO: &str = "0 as a size is not the default in 1.3";
const CACHED: &str = "a struct that is not zeroed does not work";
const NAME_NULL: &str = "NULL as the interface's name is followed: crash";
const MAP_NULL: &str = "NULL as the socket is followed: crash";
const NO_RINGS: &str = "without rings it is `-EFAULT` in 1.3, and takes the UMEM's in 1.6";
const TWICE: &str = "the same program twice: it runs twice";
const TWICE_OFF: &str = "a program named twice counts twice";
const HOLE: &str = "leaves a hole in the new list";
const LOADED: &str = "where the mode is another one, the program is loaded all the same";
const NO_FRAGS: &str = "the default program does not take packets of several fragments";
const LOST_PIN: &str = "the count is of those that were read before the lost one";
const FAILED_LOAD: &str = "after a failed load the same program cannot be attached again";

const fn row(
    scenario: &'static str,
    peers: &'static [Library],
    call: &'static str,
    theirs: &'static str,
    ours: &'static str,
    why: &'static str,
) -> Allowed {
    Allowed { scenario, peers, call, theirs, ours, why }
}

#[rustfmt::skip]
pub(super) const ALLOWED: &[Allowed] = &[
    row("open", BOTH, "xdp_program__open_file(\"tests/bpf/prebuilt/socket_filter.o\", NULL, NULL)", "a pointer", "error EINVAL, errno EINVAL", NO_XDP),
    row("open", BOTH, "program", "program \"socket_filter\": priority 50, actions 0x4, frags 0, no id, no descriptor, object, BTF, tag none", "no program", NO_XDP),
    row("kernel", BOTH, "xdp_program__from_fd(filter_fd)", "a pointer", "error EINVAL, errno EINVAL", NO_XDP),
    row("kernel", BOTH, "program", "program \"socket_filter\": priority 50, actions 0x4, frags 0, id, descriptor, no object, BTF, tag 59f4a931744dcdc6", "no program", NO_XDP),
    row("kernel", BOTH, "good(xdp_program__from_fd(map))", "true", "false", OTHER_OBJECT),
    row("kernel", BOTH, "xdp_program__from_id(filter_id)", "a pointer", "error EINVAL, errno EINVAL", NO_XDP),
    row("kernel", BOTH, "program", "program \"drop_and_go_on\": priority 5, actions 0x4, frags 0, id, descriptor, no object, BTF, tag b11459a0e11ca14c", "program \"drop_and_go_on\": priority 5, actions 0x2, frags 0, id, descriptor, no object, BTF, tag b11459a0e11ca14c", RUN_CONFIG),
    row("run", BOTH, "xdp_program__pin(program, NULL)", "crash", "-EINVAL, errno EINVAL", PIN_NULL),
    row("run", BOTH, "xdp_program__pin(program, PIN)", "crash", "0", PIN),
    row("run", BOTH, "xdp_program__test_run(program, &opts, flags)", "-ENOEXEC, errno ENOEXEC", "-EINVAL, errno EINVAL", NO_XDP),
    row("skip", BOTH, "interface", "skb, alone, 0 programs, frags 0; main program \"drop_and_go_on\": priority 5, actions 0x4, frags 0, id, descriptor, no object, BTF, tag b11459a0e11ca14c; no hardware program", "skb, alone, 0 programs, frags 0; main program \"drop_and_go_on\": priority 5, actions 0x2, frags 0, id, descriptor, no object, BTF, tag b11459a0e11ca14c; no hardware program", RUN_CONFIG),
    row("skip", BOTH, "xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0)", "-EBUSY, errno EBUSY", "0", UNSPEC),
    row("skip", BOTH, "interface", "skb, alone, 0 programs, frags 0; main program \"packet_counter\": priority 20, actions 0x4, frags 0, id, descriptor, no object, BTF, tag bf1ebd36c51e01ec; no hardware program", "ENOENT", UNSPEC),
    row("skip", BOTH, "xdp_multiprog__detach(multiprog)", "0", "there is none", UNSPEC),
    row("skip", BOTH, "xdp_program__attach(second, UPLINK, XDP_MODE_NATIVE, 0)", "-EEXIST, errno EEXIST", "-EBUSY, errno EBUSY", NATIVE_BUSY),
    row("alone", BOTH, "xdp_program__detach(program, UPLINK, XDP_MODE_UNSPEC, 0)", "-EBUSY, errno EBUSY", "0", UNSPEC),
    row("alone", BOTH, "interface", "skb, alone, 0 programs, frags 0; main program \"packet_counter\": priority 20, actions 0x4, frags 0, id, descriptor, no object, BTF, tag bf1ebd36c51e01ec; no hardware program", "ENOENT", UNSPEC),
    row("alone", BOTH, "xdp_multiprog__detach(multiprog)", "0", "there is none", UNSPEC),
    row("alone", BOTH, "xdp_program__attach(program, UPLINK, XDP_MODE_HW, 0)", "-EINVAL, errno EINVAL", "-EOPNOTSUPP, errno EOPNOTSUPP", HARDWARE),
    row("several_alone", BOTH, "first", "program \"udp_filter\": priority 10, actions 0x4, frags 0, no id, no descriptor, object, BTF, tag none", "program \"packet_counter\": priority 20, actions 0x4, frags 0, no id, no descriptor, object, BTF, tag none", SORTED),
    row("options", SIXTH, "socket_create_opts(NULL, 0, umem, &of_socket)", "crash", "NULL, errno EFAULT", NAME_NULL),
    row("umems", THIRD, "xsk_umem__create(&umem, area + offset, size, &fill, &comp, &config)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", THIRD, "xsk_umem__create(&umem, area + offset, size, &fill, &comp, &config)", "-EINVAL, errno EINVAL", "0", ZERO),
    row("umems", THIRD, "fill", "none", "cached_prod 0, cached_cons 2048, mask 0x7ff, size 2048, producer 0, consumer 0, flags 0, entries", ZERO),
    row("umems", THIRD, "comp", "none", "cached_prod 0, cached_cons 0, mask 0x1f, size 32, producer 0, consumer 0, flags 0, entries", ZERO),
    row("umems", THIRD, "xsk_umem__delete(umem)", "there is none", "0", ZERO),
    row("umems", THIRD, "fill", "none", "cached_prod 0, cached_cons 64, mask 0x3f, size 64, producer 0, consumer 0, flags 0, entries", ZERO),
    row("umems", THIRD, "comp", "none", "cached_prod 0, cached_cons 0, mask 0x7ff, size 2048, producer 0, consumer 0, flags 0, entries", ZERO),
    row("umems", BOTH, "xsk_umem__create(NULL, area, SIZE, &fill, &comp, NULL)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", THIRD, "xsk_umem__create(&umem, NULL, SIZE, &fill, &comp, NULL)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", THIRD, "xsk_umem__create(&umem, NULL, 0, &fill, &comp, NULL)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", THIRD, "xsk_umem__create(&umem, area, SIZE, NULL, &comp, NULL)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", THIRD, "xsk_umem__create(&umem, area, SIZE, &fill, NULL, NULL)", "untouched", ERRNO_TOO, ERRNO),
    row("umems", BOTH, "xsk_umem__create(&umem, area, SIZE, ERROR, &comp, NULL)", "crash", "-EFAULT, errno EFAULT", ERROR_FOLLOWED),
    row("umems", BOTH, "xsk_umem__create(&umem, area, SIZE, &fill, ERROR, NULL)", "crash", "-EFAULT, errno EFAULT", ERROR_FOLLOWED),
    row("umems", BOTH, "xsk_umem__create(&umem, area, SIZE, &fill, &comp, ERROR)", "crash", "-EFAULT, errno EFAULT", ERROR_FOLLOWED),
    row("umems", BOTH, "xsk_umem__create(ERROR, area, SIZE, &fill, &comp, NULL)", "crash", "-EFAULT, errno EFAULT", ERROR_FOLLOWED),
    row("umems", BOTH, "xsk_umem__delete(ERROR)", "crash", "-EINVAL, errno EINVAL", ERROR_FOLLOWED),
    row("umems", BOTH, "xsk_umem__fd(ERROR)", "crash", "-EINVAL, errno untouched", ERROR_FOLLOWED),
    row("umems", BOTH, "fill", "cached_prod 1431655765, cached_cons 64, mask 0x3f, size 64, producer 0, consumer 0, flags 0, entries", "cached_prod 0, cached_cons 64, mask 0x3f, size 64, producer 0, consumer 0, flags 0, entries", CACHED),
    row("umems", BOTH, "comp", "cached_prod 1431655765, cached_cons 1431655765, mask 0x1f, size 32, producer 0, consumer 0, flags 0, entries", "cached_prod 0, cached_cons 0, mask 0x1f, size 32, producer 0, consumer 0, flags 0, entries", CACHED),
    row("sockets", BOTH, "xsk_umem__delete(umem)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", THIRD, "xsk_socket__create(&sock, \"uplink\", 0, umem, NULL, NULL, &config)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", THIRD, "xsk_socket__create(&sock, \"uplink\", 0, umem, &rx, NULL, &config)", "-EINVAL, errno EINVAL", "0", ZERO),
    row("sockets", THIRD, "xsk_socket__create(&sock, \"uplink\", 0, umem, &rx, &tx, &config)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", BOTH, "xsk_socket__create(NULL, \"uplink\", 0, umem, &rx, &tx, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", BOTH, "xsk_socket__create(&sock, NULL, 0, umem, &rx, &tx, &plain)", "crash", "-EFAULT, errno EFAULT", NAME_NULL),
    row("sockets", BOTH, "xsk_socket__create(&sock, \"uplink\", 0, NULL, &rx, &tx, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", BOTH, "xsk_socket__create(&sock, \"uplink\", 0, ERROR, &rx, &tx, &plain)", "crash", "-EFAULT, errno EFAULT", ERROR_FOLLOWED),
    row("sockets", THIRD, "xsk_socket__create_shared(&sock, \"uplink\", 0, umem, &rx, &tx, NULL, &comp, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", THIRD, "xsk_socket__create_shared(&sock, \"uplink\", 0, umem, &rx, &tx, &fill, NULL, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", BOTH, "xsk_socket__create_shared(NULL, \"uplink\", 0, umem, &rx, &tx, &fill, &comp, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("sockets", BOTH, "xsk_socket__update_xskmap(NULL, 0)", "crash", "-EINVAL, errno EINVAL", MAP_NULL),
    row("sockets", BOTH, "xsk_socket__delete(ERROR)", "crash", "done", ERROR_FOLLOWED),
    row("sockets", BOTH, "xsk_socket__fd(ERROR)", "crash", "-EINVAL, errno untouched", ERROR_FOLLOWED),
    row("sockets", BOTH, "xsk_socket__update_xskmap(ERROR, 0)", "crash", "-EINVAL, errno EINVAL", ERROR_FOLLOWED),
    row("sockets", THIRD, "xsk_socket__create_shared(&sock, \"uplink\", 0, umem, &rx, &tx, NULL, NULL, &plain)", "-EFAULT, errno untouched", "0", NO_RINGS),
    row("native_pieces", BOTH, "xsk_socket__create(&sock, \"second\", 0, umem, &rx, &tx, &config)", "-ERANGE, errno ERANGE", "0", NO_FRAGS),
    row("shared", BOTH, "xsk_umem__delete(umem)", "untouched", ERRNO_TOO, ERRNO),
    row("shared", THIRD, "xsk_socket__create(&other, \"uplink\", 1, umem, &rx2, &tx2, &plain)", "untouched", ERRNO_TOO, ERRNO),
    row("default_program", BOTH, "xsk_setup_xdp_prog(0, &map)", "ENXIO", ERRNO_TOO, ERRNO),
    row("default_program", BOTH, "xsk_setup_xdp_prog(-1, &map)", "ENXIO", ERRNO_TOO, ERRNO),
    row("default_program", BOTH, "xsk_setup_xdp_prog(12345, &map)", "ENXIO", ERRNO_TOO, ERRNO),
    row("garbage", BOTH, "xdp_program__close(ERROR)", "crash", "done", PROGRAM_ERROR),
    row("garbage", BOTH, "xdp_program__btf(ERROR)", "crash", "NULL, errno 0", PROGRAM_ERROR),
    row("garbage", BOTH, "xdp_program__is_attached(ERROR, 10)", "crash", "unspec", PROGRAM_ERROR),
    row("garbage", BOTH, "xdp_program__detach(NULL, 10, XDP_MODE_SKB, 0)", "untouched", ERRNO_TOO, ERRNO),
    row("garbage", BOTH, "xdp_program__detach(ERROR, 10, XDP_MODE_SKB, 0)", "untouched", ERRNO_TOO, ERRNO),
    row("garbage", BOTH, "xdp_program__attach_multi(ERROR, 1, 10, XDP_MODE_SKB, 0)", "crash", "-EINVAL, errno EINVAL", ARRAY),
    row("garbage", BOTH, "xdp_program__detach_multi(ERROR, 1, 10, XDP_MODE_SKB, 0)", "-ENOENT, errno ENOENT", "-EINVAL, errno EINVAL", ARRAY),
    row("garbage", BOTH, "xdp_program__find_file(NULL, NULL, NULL)", "error ENOENT, errno ENOENT", "error EINVAL, errno EINVAL", FIND_NULL),
    row("garbage", BOTH, "xdp_program__attach_multi(none, 1, 10, XDP_MODE_SKB, 0)", "crash", "-EINVAL, errno EINVAL", MULTI),
    row("garbage", BOTH, "xdp_program__attach_multi(error, 1, 10, XDP_MODE_SKB, 0)", "crash", "-EINVAL, errno EINVAL", MULTI),
    row("garbage", BOTH, "xdp_program__attach_multi(mixed, 2, 10, XDP_MODE_SKB, 0)", "crash", "-EINVAL, errno EINVAL", MULTI),
    row("garbage", BOTH, "xdp_multiprog__xdp_frags_support(NULL)", "crash", "false", MULTIPROG_NULL),
    row("garbage", BOTH, "xdp_multiprog__xdp_frags_support(ERROR)", "crash", "false", MULTIPROG_NULL),
    row("chains", BOTH, "drop", "program \"xdp_drop\": priority 50, actions 0x4, frags 0, id, descriptor, object, BTF, tag 57cd311f2e27366b", "program \"xdp_drop\": priority 50, actions 0x4, frags 0, no id, no descriptor, object, BTF, tag none", LOADED),
    row("chains", BOTH, "interface", "ENOENT", "native, chain, 1 programs, frags 0; \"xdp_dispatcher\"; no hardware program; member \"xdp_pass\": priority 50, actions 0x4, frags 0, id, descriptor, no object, BTF, tag 3b185187f1855c4c", TWICE_OFF),
    row("chains", BOTH, "interface", "skb, alone, 1 programs, frags 0; main program \"xdp_dispatcher\": priority 50, actions 0x4, frags 0, id, descriptor, no object, BTF, tag 90f686eb86991928; no hardware program", "skb, alone, 0 programs, frags 0; main program \"xdp_dispatcher\": priority 50, actions 0x4, frags 0, id, descriptor, no object, BTF, tag 715a88e2e911f0ed; no hardware program", LOST_PIN),
    row("chains", BOTH, "xdp_multiprog__detach(multiprog)", "there is none", "0", TWICE_OFF),
    row("chains", BOTH, "xdp_program__attach_multi(&pass, 1, UPLINK, XDP_MODE_NATIVE, 0)", "0", "-EEXIST, errno EEXIST", TWICE),
    row("chains", BOTH, "xdp_program__detach(pass, UPLINK, XDP_MODE_NATIVE, 0)", "crash", "0", HOLE),
    row("chains", BOTH, "xdp_multiprog__detach(multiprog)", "0", "there is none", HOLE),
    row("chains", BOTH, "xdp_program__attach(program, UPLINK, XDP_MODE_SKB, 0)", "-EINVAL, errno EINVAL", "-EBADF, errno EBADF", FAILED_LOAD),
    row("chains", BOTH, "xdp_program__attach(program, UPLINK, XDP_MODE_HW, 0)", "-EINVAL, errno EINVAL", "-EOPNOTSUPP, errno EOPNOTSUPP", HARDWARE),
    row("settings", BOTH, "the buffer", "\"~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\"", "\"\"", EMPTY),
    row("settings", BOTH, "the buffer", OVERFLOWN, OVERFLOWN, OVERFLOW),
];
