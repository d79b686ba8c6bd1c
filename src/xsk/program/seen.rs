//! A default program as a recovery sees it.

use super::shared::Shared;
use super::usage::{Usage, Watch};
use crate::error::{Context, ErrorKind, Result};
use crate::sys::Kernel;
use std::io;
use std::os::fd::AsFd;

/// A default program, and who uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many its users say they are; `None` if it does not count.
    pub(crate) count: Option<i32>,
    pub(crate) usage: Usage,
}

/// Looks at a program by its id; `None` if it is no default program, or has gone.
pub(crate) fn look(kernel: &Kernel, watch: &Watch<'_>, program: u32) -> Result<Option<Seen>> {
    let what = || format!("program {program}");
    let fd = match kernel.prog_by_id(program) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN")),
    };
    let fd = fd.during("open", what())?;
    let shared = Shared::of(kernel, fd.as_fd())?;
    drop(fd);
    let Some(shared) = shared else { return Ok(None) };
    let usage = watch.usage(&shared, &[program], &[shared.descriptor()])?;
    Ok(Some(Seen { count: shared.count(kernel)?, usage }))
}
