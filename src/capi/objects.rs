//! Where BPF objects are that are asked for by name.

use super::entry::Errno;
use crate::sys::Kernel;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// Where they are installed; `make install` says.
const OBJECTS: &str = match option_env!("OXDP_BPF_OBJECT_PATH") {
    Some(path) => path,
    None => "/usr/lib/bpf",
};

/// The path of an object: in `LIBXDP_OBJECT_PATH` if that is set, and nowhere else then.
pub(super) fn find(name: &CStr) -> Result<CString, Errno> {
    let folder = Kernel::default().variable("LIBXDP_OBJECT_PATH");
    let folder = folder.map_or_else(|| OBJECTS.into(), OsString::into_vec);
    let path = [&folder, &b"/"[..], name.to_bytes()].concat();
    let path = CString::new(path).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: path ends in NUL.
    if unsafe { libc::access(path.as_ptr(), libc::F_OK) } == 0 {
        return Ok(path);
    }
    log::warn!("no BPF object {}", path.to_string_lossy());
    Err(Errno(libc::ENOENT))
}
