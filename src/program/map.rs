//! A map of a loaded program.

use crate::error::{Context, Result};
use crate::sys::Kernel;
use crate::sys::bpf::MapHandle;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A BPF map, held open. Its descriptor ([`AsFd`]) can be given to libbpf-rs, aya or any other library.
#[derive(Debug)]
pub struct Map {
    name: String,
    handle: MapHandle,
}

impl Map {
    pub(super) fn new(name: &str, fd: OwnedFd) -> Result<Self> {
        let handle = Kernel::default().map_open(fd).during("open map", name)?;
        Ok(Self { name: name.to_owned(), handle })
    }

    /// Size of a key, in bytes.
    pub fn key_size(&self) -> usize {
        self.handle.info().key_size as usize
    }

    /// Size of a value, in bytes.
    pub fn value_size(&self) -> usize {
        self.handle.info().value_size as usize
    }

    /// The value at `key`, in the host's byte order.
    ///
    /// # Errors
    /// `ENOENT` if there is no such key. [`ErrorKind::Os`](crate::ErrorKind::Os) of kind `InvalidInput` if `key`
    /// has another length than the map's keys, and `Unsupported` if the map is no hash, array, LRU hash or LPM
    /// trie: the values of other kinds are not one for each key.
    pub fn lookup(&self, key: &[u8]) -> Result<Vec<u8>> {
        Kernel::default().map_lookup(&self.handle, key).during("look up a key in map", &self.name)
    }

    /// Sets the value at `key`.
    ///
    /// # Errors
    /// `E2BIG` if the map is full or the index out of range; else as [`lookup`](Map::lookup).
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Kernel::default().map_update(&self.handle, key, value).during("update map", &self.name)
    }

    /// Puts an AF_XDP socket at `index` of an XSKMAP, for bpf_redirect_map() to find. It leaves the map when it is closed.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) of kind `InvalidInput` for another kind of map; `E2BIG` for an index that the map has not; `EBADF` or `EOPNOTSUPP`
    /// for a descriptor that is no such socket.
    pub fn set_socket(&self, index: u32, socket: impl AsFd) -> Result<()> {
        let set = Kernel::default().map_put_object(&self.handle, index, socket.as_fd());
        set.during("put a socket into map", &self.name)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
