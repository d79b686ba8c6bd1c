#![forbid(unsafe_code)]

//! What outlives the process: programs and links pinned in bpffs, and the lock over them.
//!
//! Owns the `xdp` directory of a bpf file system and everything below it. Never touches an interface, and
//! never removes a pin that the protocol did not put there. In libxdp: the bpffs functions of libxdp.c.

use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::Path;

mod bpffs;
mod elsewhere;
mod layout;
mod lock;
mod scope;
mod store;
mod tree;

pub(crate) use bpffs::{Location, is_missing};
pub(crate) use elsewhere::dispatchers_in;
#[cfg(fuzzing)]
pub(crate) use layout::fuzz as fuzz_path;
pub(crate) use layout::layout_from_environment;
pub use layout::{Auto, Legacy, NetnsInode, PinKey, PinLayout, PinPath};
pub(crate) use lock::{Lock, Patience};
pub(crate) use scope::Scope;
#[cfg(fuzzing)]
pub(crate) use scope::fuzz as fuzz_note;
pub(crate) use store::{OpenPins, PinnedDispatcher, Staging, Store};
pub(crate) use tree::{FoundPins, FoundScope, Mark, Tree};

/// Gives a failed file operation its name and path.
trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| denied(operation, path, error))
    }
}

/// The error of a file operation; in bpffs, a denied one means that the process is not root enough.
fn denied(operation: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = ErrorKind::privileged(error, "access to the pins in bpffs");
    Error::new(operation, path.display(), kind)
}

/// Tries a step of cleaning up a second time: nobody else will do it until the next recovery.
fn twice<T>(step: impl Fn() -> io::Result<T>) -> io::Result<T> {
    step().or_else(|_| step())
}
