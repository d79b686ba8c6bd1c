//! Frames at hand for one thread.

use super::Umem;
use super::audit::Holder;
use super::frame::Frame;
use super::inner::Inner;
use super::kind::{Exclusive, Kind};
use std::ptr::NonNull;

/// Frames that are moved between a cache and its UMEM at once.
const SLAB: usize = 64;

/// Free frames at hand for one thread: it takes the UMEM's lock at most once for 64 frames that are taken or put back.
///
/// What is in it goes back to the UMEM when it is dropped.
#[derive(Debug)]
pub struct FrameCache<K: Kind = Exclusive> {
    umem: Umem<K>,
    /// At most two slabs: after one was moved, there is room and stock for another before the next move.
    bases: Vec<u64>,
}

impl<K: Kind> FrameCache<K> {
    pub(super) fn new(umem: Umem<K>) -> Self {
        Self { umem, bases: Vec::with_capacity(2 * SLAB) }
    }

    /// A free frame, if this cache or the UMEM has one.
    #[inline]
    pub fn take(&mut self) -> Option<Frame<K>> {
        if self.bases.is_empty() {
            self.umem.owner().take_free(SLAB, &mut self.bases);
        }
        let base = self.bases.pop()?;
        // SAFETY: it was free, or put here in place of its frame.
        Some(unsafe { self.umem.owner().frame(base) })
    }

    /// Whether it has the frames of this UMEM.
    #[inline]
    pub(crate) fn is_of(&self, umem: NonNull<Inner>) -> bool {
        self.umem.owner().pointer() == umem
    }

    /// Puts a frame back. One of another UMEM goes to that one.
    #[inline]
    pub fn put(&mut self, frame: Frame<K>) {
        if !self.is_of(frame.umem()) {
            return;
        }
        let base = frame.into_base();
        self.umem.owner().pass(Some(base), Holder::Program, Holder::Free);
        self.bases.push(base);
        if self.bases.len() == 2 * SLAB {
            self.umem.owner().give_free(self.bases.drain(..SLAB));
        }
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.bases.len()
    }

    /// Whether it has none at hand.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }
}

impl<K: Kind> Drop for FrameCache<K> {
    fn drop(&mut self) {
        self.umem.owner().give_free(self.bases.drain(..));
    }
}
