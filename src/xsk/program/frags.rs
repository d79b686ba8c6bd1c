//! Whether a loaded program reads packets of several fragments, which the kernel does not tell.

use crate::program::load_frags_pass;
use crate::sys::Kernel;
use crate::sys::bpf::MapSpec;
use libbpf_sys::BPF_MAP_TYPE_PROG_ARRAY;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Asked by way of an array of programs to jump to, in which all must be alike in this (kernel/bpf/core.c,
/// `__bpf_prog_map_compatible`): it takes the first whichever it is, and another only if it does the same. In doubt it
/// does not.
pub(super) fn reads_frags(kernel: &Kernel, program: BorrowedFd<'_>) -> io::Result<bool> {
    let array = kernel.map_create(&MapSpec {
        kind: BPF_MAP_TYPE_PROG_ARRAY,
        name: "frags",
        value_size: 4,
        max_entries: 2,
        ..MapSpec::default()
    })?;
    let reader = load_frags_pass(kernel).map_err(|error| error.source)?;
    kernel.map_put_object(&array, 0, reader.as_fd())?;
    match kernel.map_put_object(&array, 1, program) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
