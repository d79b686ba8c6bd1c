//! `libxdp.so.1`: the functions of C libxdp 1.6, and those of `xdp/oxdp.h`.
//!
//! Only with the feature `capi`, for `make install`, which links this with the system's libbpf: `struct bpf_object *` crosses
//! the border, so there must not be another libbpf in here. Every entry goes through [`entry`], which lets no panic out.
//! What a function does is in its header; here is said where it is not what its name says.
//!
//! Nothing of a caller is trusted: NULL, and an error in place of a pointer as `linux/err.h` has them, are answered as C
//! libxdp answers them, where it does not crash.

#![allow(
    non_camel_case_types,
    non_snake_case,
    unreachable_pub,
    clippy::missing_safety_doc,
    reason = "names are C's, the linker reaches them, and what a caller has to care for is in the headers"
)]

mod attach;
mod entry;
mod extra;
mod messages;
mod multiprog;
mod objects;
mod options;
mod program;
mod properties;
mod settings;
mod xsk;
