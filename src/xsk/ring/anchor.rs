//! What keeps a ring's memory, socket and UMEM in place.

use super::memory::Mapped;
use crate::sys::Kernel;
use crate::sys::mmap::Mapping;
use crate::sys::xsk::{RingKind, RingOffsets};
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::count::RingCount;
use crate::xsk::umem::inner::{Inner, Owner};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// The mapping of one ring, and what must outlive it. Unmapped first: mapped rings keep a socket from being closed.
#[derive(Debug)]
pub(crate) struct Anchor {
    _mapping: Mapping,
    pub(super) socket: Arc<SocketCore>,
    owner: Arc<Owner>,
    pub(super) count: Arc<RingCount>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.owner.settle_ring(&self.count);
    }
}

impl Anchor {
    /// Maps a ring that has been made with `entries` slots, a power of two.
    pub(crate) fn new<E: Copy>(
        socket: &Arc<SocketCore>,
        owner: &Arc<Owner>,
        ring: RingKind,
        entries: u32,
        at: RingOffsets,
    ) -> io::Result<(Self, Mapped<E>)> {
        let (mapping, memory) = map(&socket.kernel, socket.fd.as_fd(), ring, entries, at)?;
        let (socket, owner, count) = (socket.clone(), owner.clone(), owner.count_ring());
        Ok((Self { _mapping: mapping, socket, owner, count }, memory))
    }

    #[inline]
    pub(super) fn umem(&self) -> NonNull<Inner> {
        self.owner.pointer()
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.owner
    }
}

/// The words and slots of a ring, which are to be used only while the mapping is kept.
pub(crate) fn map<E: Copy>(
    kernel: &Kernel,
    socket: BorrowedFd<'_>,
    ring: RingKind,
    entries: u32,
    at: RingOffsets,
) -> io::Result<(Mapping, Mapped<E>)> {
    let first = usize::try_from(at.entries).map_err(io::Error::other)?;
    let length = first.checked_add(entries as usize * size_of::<E>()).ok_or(libc::EINVAL);
    let length = length.map_err(io::Error::from_raw_os_error)?;
    let mapping = kernel.xsk_map_ring(socket, ring, length)?;
    let word = |offset: u64| place::<u32>(&mapping, offset, 1);
    let (producer, consumer, flags) = (word(at.producer)?, word(at.consumer)?, word(at.flags)?);
    let slots = place::<E>(&mapping, at.entries, entries as usize)?;
    // SAFETY: all within the mapping and aligned, and used no longer than it is kept.
    let memory = unsafe {
        Mapped::new(producer.as_ptr(), consumer.as_ptr(), slots.as_ptr(), flags.as_ptr())
    };
    Ok((mapping, memory))
}

/// `count` values from `offset` on, if they are within the mapping and aligned.
fn place<T>(mapping: &Mapping, offset: u64, count: usize) -> io::Result<NonNull<T>> {
    let wrong = || io::Error::other(format!("the kernel tells an offset of {offset} in a ring"));
    let offset = usize::try_from(offset).map_err(|_| wrong())?;
    let end = offset.checked_add(count * size_of::<T>()).ok_or_else(wrong)?;
    if end > mapping.length() || !offset.is_multiple_of(align_of::<T>()) {
        return Err(wrong());
    }
    // SAFETY: within the mapping.
    Ok(unsafe { mapping.base().add(offset) }.cast())
}
