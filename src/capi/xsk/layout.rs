//! Structures that are the caller's.

use crate::capi::entry::Errno;
use crate::capi::options::Options;
use crate::sys::Kernel;
use crate::sys::mmap::Mapping;
use crate::sys::xsk::RingKind;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const RING_SIZE: u32 = 2048;
pub(super) const FRAME_SIZE: u32 = 4096;

/// `struct xsk_ring_prod`, and `struct xsk_ring_cons`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    cached_producer: u32,
    cached_consumer: u32,
    mask: u32,
    size: u32,
    producer: *mut u32,
    consumer: *mut u32,
    entries: *mut u8,
    flags: *mut u32,
}

const _: () = assert!(size_of::<Ring>() == 48);

/// A ring that is mapped, and what a caller is told of it.
#[derive(Debug)]
pub(super) struct Mapped {
    kind: RingKind,
    size: u32,
    /// Where its words are.
    words: [*mut u32; 3],
    entries: *mut u8,
    /// Unmapped when this goes.
    _mapping: Mapping,
}

// SAFETY: the mapping is the process's, not a thread's, and so is what points into it.
unsafe impl Send for Mapped {}
// SAFETY: a shared Mapped only tells where it is, and reads its words as atomics.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a ring that has been made on a socket.
    pub(super) fn new(
        kernel: &Kernel,
        socket: BorrowedFd<'_>,
        kind: RingKind,
        size: u32,
    ) -> Result<Self, Errno> {
        let offsets = kernel.xsk_offsets(socket)?.of(kind);
        let entry = match kind {
            RingKind::Rx | RingKind::Tx => 16,
            RingKind::Fill | RingKind::Completion => 8,
        };
        let place = |offset: u64| usize::try_from(offset).map_err(|_| Errno(libc::EOVERFLOW));
        let entries = place(offsets.entries)?;
        let length = entries.checked_add(size as usize * entry).ok_or(Errno(libc::EOVERFLOW))?;
        let mapping = kernel.xsk_map_ring(socket, kind, length)?;
        let base = mapping.base().as_ptr();
        let word = |offset: u64| -> Result<*mut u32, Errno> {
            let offset = place(offset)?;
            if offset % 4 != 0 || offset + 4 > entries {
                return Err(Errno(libc::EINVAL));
            }
            // SAFETY: within the mapping, which is longer than where its entries begin.
            Ok(unsafe { base.add(offset) }.cast())
        };
        let words = [word(offsets.producer)?, word(offsets.consumer)?, word(offsets.flags)?];
        // SAFETY: as above.
        let entries = unsafe { base.add(entries) };
        Ok(Self { kind, size, words, entries, _mapping: mapping })
    }

    /// As it stands: nothing is taken or reserved that has not been given back.
    pub(super) fn describe(&self) -> Ring {
        let [producer, consumer, flags] = self.words;
        // SAFETY: an aligned word of the mapping, which the kernel may write at any time.
        let at = |word: *mut u32| unsafe { AtomicU32::from_ptr(word) }.load(Ordering::Acquire);
        // A producer's copy is a ring ahead: it is the slot to stop before.
        let ahead = match self.kind {
            RingKind::Fill | RingKind::Tx => self.size,
            RingKind::Rx | RingKind::Completion => 0,
        };
        Ring {
            cached_producer: at(producer),
            cached_consumer: at(consumer).wrapping_add(ahead),
            mask: self.size.wrapping_sub(1),
            size: self.size,
            producer,
            consumer,
            entries: self.entries,
            flags,
        }
    }
}

/// `struct xsk_umem_config`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct UmemConfig {
    pub(super) fill_size: u32,
    pub(super) completion_size: u32,
    pub(super) frame_size: u32,
    pub(super) headroom: u32,
    pub(super) flags: u32,
}

/// `struct xsk_umem_opts`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UmemOptions {
    pub(super) own_size: usize,
    pub(super) fd: i32,
    pub(super) length: u64,
    pub(super) config: UmemConfig,
    pub(super) tx_metadata_length: u32,
}

/// `struct xsk_socket_config`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketConfig {
    pub(super) rx_size: u32,
    pub(super) tx_size: u32,
    pub(super) flags: u32,
    pub(super) xdp_flags: u32,
    pub(super) bind_flags: u16,
}

/// `struct xsk_socket_opts`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    pub(super) own_size: usize,
    pub(super) rx: *mut Ring,
    pub(super) tx: *mut Ring,
    pub(super) fill: *mut Ring,
    pub(super) completion: *mut Ring,
    pub(super) config: SocketConfig,
}

const _: () = assert!(size_of::<UmemOptions>() == 48);
const _: () = assert!(size_of::<SocketOptions>() == 64);

// SAFETY: a size, integers and nothing else, as C has them.
unsafe impl Options for UmemOptions {
    const ENDS: &'static [usize] = &[8, 12, 24, 28, 32, 36, 40, 44, 48];
}

// SAFETY: a size, pointers and integers, as C has them.
unsafe impl Options for SocketOptions {
    const ENDS: &'static [usize] = &[8, 16, 24, 32, 40, 44, 48, 52, 56, 58];
}

/// What a caller has left open.
pub(super) fn or_default(wanted: u32, default: u32) -> u32 {
    if wanted == 0 { default } else { wanted }
}
