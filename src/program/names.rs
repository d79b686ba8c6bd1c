//! The names of programs in the kernel, which keeps the first fifteen bytes; BTF has the rest.

use super::Btf;
use crate::sys::Kernel;
use crate::sys::bpf::ProgramInfo;
use std::io;
use std::os::fd::AsFd;

/// Longest name that the kernel keeps, in bytes; a program whose name has as many may have a longer one.
const KERNEL_NAME: usize = 15;

/// The BTF that a loaded program has; `None` if it has none, or none that we can read.
pub(crate) fn kernel_btf(kernel: &Kernel, info: &ProgramInfo) -> io::Result<Option<Btf>> {
    if info.btf_id == 0 {
        return Ok(None);
    }
    let btf = kernel.btf_by_id(info.btf_id)?;
    Ok(Btf::parse(kernel.btf_data(btf.as_fd())?).ok())
}

/// Whether the kernel may have cut the program's name.
pub(crate) fn may_be_cut(info: &ProgramInfo) -> bool {
    info.name.len() == KERNEL_NAME
}

/// The whole name of a program whose name the kernel has cut, if its BTF tells.
pub(crate) fn completed_name(info: &ProgramInfo, btf: Option<&Btf>) -> String {
    let whole = || {
        let name = btf?.function_name(info.function_type?)?;
        name.starts_with(&info.name).then(|| name.to_owned())
    };
    let whole = if may_be_cut(info) { whole() } else { None };
    whole.unwrap_or_else(|| info.name.clone())
}
