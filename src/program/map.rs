//! A map of a loaded program.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::bpf::MapInfo;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A BPF map, held open. Its descriptor ([`AsFd`]) can be given to libbpf-rs, aya or any other library.
#[derive(Debug)]
pub struct Map {
    name: String,
    fd: OwnedFd,
    info: MapInfo,
}

/// `BPF_MAP_TYPE_*` whose values are one per CPU; include/uapi/linux/bpf.h.
const PER_CPU: [u32; 4] = [5, 6, 10, 21];

impl Map {
    pub(super) fn new(name: &str, fd: BorrowedFd<'_>) -> Result<Self> {
        let fd = fd.try_clone_to_owned().during("open map", name)?;
        let info = Kernel::default().map_info(fd.as_fd()).during("open map", name)?;
        Ok(Self { name: name.to_owned(), fd, info })
    }

    /// Size of a key, in bytes.
    pub fn key_size(&self) -> usize {
        self.info.key_size as usize
    }

    /// Size of a value, in bytes.
    pub fn value_size(&self) -> usize {
        self.info.value_size as usize
    }

    /// The value at `key`, in the host's byte order. Maps with a value per CPU are not read here.
    ///
    /// # Errors
    /// `ENOENT` if there is no such key; `EINVAL` kind if `key` has another length than the map's keys.
    pub fn lookup(&self, key: &[u8]) -> Result<Vec<u8>> {
        self.single_valued()?;
        Kernel::default()
            .map_lookup(self.fd.as_fd(), &self.info, key)
            .during("look up a key in map", &self.name)
    }

    /// Sets the value at `key`.
    ///
    /// # Errors
    /// `E2BIG` if the map is full or the index out of range; as [`lookup`](Map::lookup) for wrong sizes.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.single_valued()?;
        Kernel::default()
            .map_update(self.fd.as_fd(), &self.info, key, value)
            .during("update map", &self.name)
    }

    fn single_valued(&self) -> Result<()> {
        if PER_CPU.contains(&self.info.kind) {
            let source = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            let message = "the map has a value for each CPU".into();
            return Err(Error::new("use map", &self.name, ErrorKind::Os { source, message }));
        }
        Ok(())
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
