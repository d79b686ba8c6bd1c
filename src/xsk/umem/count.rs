//! How many frames have gone through the rings.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has gone through one ring. Written by its owner only, once for each batch.
#[derive(Debug, Default)]
pub(crate) struct RingCount {
    given: AtomicU64,
    taken: AtomicU64,
}

impl RingCount {
    #[inline]
    pub(crate) fn give(&self, frames: u32) {
        self.given.store(self.given.load(Relaxed).wrapping_add(u64::from(frames)), Relaxed);
    }

    #[inline]
    pub(crate) fn take(&self, frames: u32) {
        self.taken.store(self.taken.load(Relaxed).wrapping_add(u64::from(frames)), Relaxed);
    }

    /// Frames given to the kernel less those it gave back. Below zero if another ring gave them, or if it lies.
    pub(crate) fn balance(&self) -> i64 {
        self.given.load(Relaxed).wrapping_sub(self.taken.load(Relaxed)).cast_signed()
    }
}

/// Where the frames of a UMEM are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameCensus {
    /// All frames.
    pub total: u64,
    /// Those that can be taken.
    pub free: u64,
    /// Those in rings and in the kernel's hands.
    pub in_kernel: u64,
    /// Those that are written off, since the kernel gave an address that is in no frame.
    pub written_off: u64,
    /// The rest: in frames, packets and caches of the program, and those that were forgotten.
    pub held: u64,
}
