#![forbid(unsafe_code)]

//! The door for the fuzz targets in `fuzz/`: readers of what others wrote, which the library does not show. Only in
//! builds with `--cfg fuzzing`.
//!
//! Each takes any bytes, and panics if the reader breaks a promise of its own.

/// An ELF object, loaded by libbpf.
pub fn load(elf: &[u8]) {
    crate::program::fuzz_load(elf);
}

/// BTF, and what a program's run config in it says.
pub fn btf(data: &[u8]) {
    crate::program::fuzz_btf(data);
}

/// The record in a dispatcher's map.
pub fn config(data: &[u8]) {
    crate::dispatcher::fuzz_config(data);
}

/// The path of a pin below `xdp`, or the note in a scope.
pub fn pins(text: &str) {
    crate::pins::fuzz_path(text);
    crate::pins::fuzz_note(text);
}

/// An answer over netlink: rtnetlink, generic, about sockets.
pub fn netlink(data: &[u8]) {
    crate::sys::netlink::fuzz(data);
    crate::sys::genl::fuzz(data);
    crate::sys::sock_diag::fuzz(data);
}

/// What a program does with rings, frames and packets, and what the kernel says, which may be lies. Nothing is forgotten, so that nothing leaks.
pub fn rings(moves: &[u8]) {
    let rules = crate::xsk::drill::Rules { lies: true, forgets: false };
    crate::xsk::drill::drill(moves, rules);
}
