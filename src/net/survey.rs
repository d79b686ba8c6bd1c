//! All network namespaces that can be seen, and why there may be more.

mod gaps;
mod mounts;
mod sweep;
mod text;
mod view;

use super::Netns;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::Kernel;
use std::path::PathBuf;
use sweep::Sweep;

/// What network namespaces there are, each held open and told once, and what may hide others from this process.
///
/// A namespace lives as long as a thread is in it, or a path, a descriptor or a socket keeps it. All of these are looked
/// through: the threads and descriptors of all processes, and the mounts of all mount namespaces that a process is in;
/// from kernel 6.19 also the kernel's own list, which has all but those that only sockets keep.
///
/// Who keeps a survey, or a [`Netns`] of one, keeps namespaces alive, also for the surveys of others.
///
/// It is a look at a machine that goes on meanwhile, not a picture of one moment: a namespace that is handed from one
/// process to another at that time can be missed. And no process can see a namespace that nothing keeps but a socket or
/// descriptor on its way between processes or in an io_uring, an open file of `/proc/net`, or the kernel itself (a network
/// file system).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The namespaces, by the most telling label of each: a name of `ip netns`, a process, a descriptor, a path.
    pub namespaces: Vec<Netns>,
    /// One line, for people, for each reason why there may be namespaces that are not seen.
    pub gaps: Vec<String>,
    /// The bpf file systems in all mount namespaces that can be seen, each once, those of the caller's first.
    pub bpffs: Vec<BpffsMount>,
}

/// A bpf file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BpffsMount {
    /// Where it can be opened from here: a path of the caller's, or one below `/proc/PID/root` for as long as that
    /// process lives.
    pub path: PathBuf,
    /// The device number that stat(2) tells of everything in it.
    pub device: u64,
}

impl Survey {
    /// Whether nothing is known of that may hide a namespace.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty()
    }

    pub(crate) fn take(kernel: &Kernel) -> Result<Self> {
        Sweep::new(kernel).run().map_err(|source| {
            let message = match source.raw_os_error() {
                Some(libc::EMFILE) => {
                    "each namespace takes a descriptor: raise RLIMIT_NOFILE".into()
                }
                _ => String::new(),
            };
            Error::new("look for", "network namespaces", ErrorKind::Os { source, message })
        })
    }
}

impl Netns {
    /// All network namespaces that this process can see. [`survey`](Netns::survey) tells besides whether there may be
    /// more.
    pub fn all() -> Result<Vec<Self>> {
        Ok(Self::survey()?.namespaces)
    }

    /// All network namespaces that this process can see, and what may hide others.
    ///
    /// Sees most as root, with all capabilities, in the initial PID namespace. Takes a descriptor for each namespace, and
    /// duplicates every socket of every process for a moment, to ask it for its namespace.
    ///
    /// # Errors
    /// `EMFILE` if there are more namespaces than this process may have descriptors. What is closed to this process is no
    /// error, but one of the [`gaps`](Survey::gaps).
    pub fn survey() -> Result<Survey> {
        Survey::take(&Kernel::default())
    }
}
