//! Whether somebody uses a default program, whatever its counter says.

use super::code::finder;
use super::pinned;
use super::shared::Shared;
use crate::error::{Context, Result};
use crate::openers::{Object, Openers};
use crate::program::load_xdp_code;
use crate::sys::Kernel;
use crate::sys::bpf::{MapHandle, RunSpec};
use once_cell::sync::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

/// How many queues are looked at in one run: the verifier follows each round of the loop.
const ROUNDS: usize = 1024;

/// Who uses a default program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Somebody does, or may be about to: who, in words.
    By(String),
    /// Nobody does.
    Nobody,
    /// Nobody is seen, and this may hide somebody.
    Unknown(String),
}

/// Looks for users of default programs; for all that are asked for, what processes have open is read once.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    kernel: &'a Kernel,
    /// Bpf file systems in which the map may be pinned.
    bpffs: Vec<PathBuf>,
    openers: OnceCell<Openers>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(kernel: &'a Kernel, bpffs: &[&Path]) -> Self {
        let bpffs = bpffs.iter().map(|path| (*path).to_owned()).collect();
        Self { kernel, bpffs, openers: OnceCell::new() }
    }

    /// Who uses a program, or a map of sockets with programs by these ids; apart from these descriptors of our own.
    ///
    /// A socket that is in the map is used; and so is a map or program that a process has open, since it may be about to put
    /// one into the map, or pinned, since others may. C libxdp keeps the map and the program open for as long as a socket
    /// lives. It also keeps the counter open, for ever (1.6.3, `xsk_socket__delete`): so that is no sign.
    pub(super) fn usage(&self, shared: &Shared, programs: &[u32], own: &[RawFd]) -> Result<Usage> {
        let looked = has_socket(self.kernel, &shared.sockets);
        if looked.during("look for sockets in", "the map of the default AF_XDP program")? {
            return Ok(Usage::By("a socket is in its map".into()));
        }
        let openers = self.openers.get_or_init(Openers::take);
        let programs = programs.iter().copied().map(Object::Program);
        let mut objects = std::iter::once(Object::Map(shared.id)).chain(programs);
        if let Some(process) = objects.find_map(|object| openers.of(object, own)) {
            return Ok(Usage::By(format!("{process} has it open")));
        }
        for bpffs in &self.bpffs {
            if let Some(path) = pinned::pin_of_map(self.kernel, bpffs, shared.id) {
                return Ok(Usage::By(format!("its map is pinned at {}", path.display())));
            }
        }
        Ok(openers.gap().map_or(Usage::Nobody, Usage::Unknown))
    }
}

/// Whether an AF_XDP socket is in the map.
pub(super) fn has_socket(kernel: &Kernel, sockets: &MapHandle) -> io::Result<bool> {
    let end = sockets.info().max_entries;
    for start in (0..end).step_by(ROUNDS) {
        let last = end.min(start.saturating_add(u32::try_from(ROUNDS).unwrap_or(u32::MAX)));
        let map = sockets.as_fd().as_raw_fd().cast_unsigned();
        let program = load_xdp_code(kernel, "xsk_find", &finder(map, start, last));
        let program = program.map_err(|error| {
            log::debug!("the verifier: {}", error.log);
            error.source
        })?;
        let mut run = RunSpec {
            data: &[0; 64],
            output: &mut [],
            context: &[],
            repeat: 1,
            flags: 0,
            batch: 0,
        };
        if kernel.test_run(program.as_fd(), &mut run)?.verdict == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}
