//! What all users of a default program share: its map of sockets and its counter.

use super::NAME;
use crate::dispatcher::View;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::program::kernel_btf;
use crate::sys::Kernel;
use crate::sys::bpf::{MapHandle, ProgramInfo};
use libbpf_sys::BPF_MAP_TYPE_ARRAY;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// The newest version of the protocol between users.
const VERSION: u32 = 1;
const SOCKETS: &str = "xsks_map";
/// As C libxdp looks for it: libbpf makes it of the beginning of the object's name and that of the section.
pub(super) const COUNTER: &str = "xsk_def_.data";
/// Size of the counter, in bytes.
const COUNTER_SIZE: usize = 4;

/// The maps of a default program, open.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) sockets: MapHandle,
    /// Id of the map of sockets.
    pub(super) id: u32,
    /// None in programs of libxdp before 1.3, which nobody takes off.
    counter: Option<MapHandle>,
}

impl Shared {
    /// The maps of a loaded program; `None` if it is no default program.
    ///
    /// # Errors
    /// [`ErrorKind::DefaultProgramVersion`]
    pub(crate) fn of(kernel: &Kernel, program: BorrowedFd<'_>) -> Result<Option<Self>> {
        const WHAT: &str = "a default AF_XDP program";
        let info = kernel.prog_info(program).during("query", WHAT)?;
        if info.name != NAME {
            return Ok(None);
        }
        let version = version(kernel, &info);
        match version.map_err(by_id).during("read the BTF of", WHAT)? {
            None => return Ok(None),
            Some(found) if found > VERSION => {
                let kind = ErrorKind::DefaultProgramVersion { found };
                return Err(Error::new("use", WHAT, kind));
            }
            Some(_) => {}
        }
        let shared = Self::in_maps(kernel, &info.map_ids);
        shared.map_err(by_id).during("open the maps of", WHAT)
    }

    fn in_maps(kernel: &Kernel, ids: &[u32]) -> io::Result<Option<Self>> {
        let (mut sockets, mut counter) = (None, None);
        for id in ids {
            let map = kernel.map_open(kernel.map_by_id(*id)?)?;
            let info = map.info();
            let is_counter = (info.kind, info.key_size) == (BPF_MAP_TYPE_ARRAY, 4)
                && info.value_size as usize >= COUNTER_SIZE;
            match map.name() {
                SOCKETS if info.is_of_sockets() => sockets = Some((map, *id)),
                COUNTER if is_counter => counter = Some(map),
                _ => {}
            }
        }
        Ok(sockets.map(|(sockets, id)| Self { sockets, id, counter }))
    }

    /// How many use the program, as they have counted; `None` if it does not count.
    pub(super) fn count(&self, kernel: &Kernel) -> Result<Option<i32>> {
        Ok(self.value(kernel)?.and_then(|value| Some(i32::from_ne_bytes(*value.first_chunk()?))))
    }

    /// Changes the count, under the lock.
    pub(super) fn set_count(&self, kernel: &Kernel, count: i32) -> Result<()> {
        let (Some(counter), Some(mut value)) = (&self.counter, self.value(kernel)?) else {
            return Ok(());
        };
        if let Some(first) = value.first_chunk_mut() {
            *first = count.to_ne_bytes();
        }
        kernel.map_update(counter, &[0; 4], &value).during("change", COUNTER)
    }

    /// All of the program's variables.
    fn value(&self, kernel: &Kernel) -> Result<Option<Vec<u8>>> {
        let counter = self.counter.as_ref();
        counter.map(|map| kernel.map_lookup(map, &[0; 4])).transpose().during("read", COUNTER)
    }

    /// Both maps.
    pub(super) fn maps(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.sockets.as_fd(), self.counter.as_ref().map(MapHandle::as_fd))
    }

    /// The descriptors of this value, and of the look that it was found by, which are no use of the program.
    pub(super) fn descriptors(&self, view: &View<'_>) -> Vec<RawFd> {
        let programs = view.programs.iter().map(|running| running.fd.as_raw_fd());
        programs.chain([self.descriptor()]).collect()
    }

    /// The descriptor of this value that else counts as use of the program.
    pub(super) fn descriptor(&self) -> RawFd {
        self.sockets.as_fd().as_raw_fd()
    }
}

/// What is opened by its id needs a privilege.
fn by_id(error: io::Error) -> ErrorKind {
    ErrorKind::privileged(error, "CAP_SYS_ADMIN")
}

fn version(kernel: &Kernel, info: &ProgramInfo) -> io::Result<Option<u32>> {
    let Some(btf) = kernel_btf(kernel, info)? else { return Ok(None) };
    let variable = btf.variable("xdp_metadata", "xsk_prog_version");
    Ok(variable.and_then(|(definition, ..)| btf.encoded_number(definition)))
}
