//! The completion ring: frames of packets that were sent.

use super::anchor::Anchor;
use super::ends::{Consumer, Reader, transfer};
use super::fill::FillBatch;
use super::memory::{Descriptor, Mapped};
use super::poisoned;
use crate::error::Result;
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::count::RingCount;
use crate::xsk::umem::inner::Inner;
use crate::xsk::umem::{BadDescriptor, Exclusive, Frame, FrameCache, Kind, Packet};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Gives frames back whose packets were sent.
pub struct CompletionRing<K: Kind = Exclusive> {
    consumer: Consumer<Mapped<u64>>,
    anchor: Anchor,
    kind: PhantomData<K>,
}

// SAFETY: this end of the ring is this value's alone, wherever it is.
unsafe impl<K: Kind> Send for CompletionRing<K> {}

impl<K: Kind> fmt::Debug for CompletionRing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionRing")
            .field("size", &self.consumer.size())
            .finish_non_exhaustive()
    }
}

impl<K: Kind> CompletionRing<K> {
    /// # Safety
    /// `memory` is of the anchor's ring, which has `size` slots, a power of two, and no other consumer here.
    pub(crate) unsafe fn new(anchor: Anchor, memory: Mapped<u64>, size: u32) -> Self {
        // SAFETY: as promised.
        let consumer = unsafe { Consumer::new(size, memory) };
        Self { consumer, anchor, kind: PhantomData }
    }

    /// Slots in all.
    pub fn size(&self) -> u32 {
        self.consumer.size()
    }

    pub(crate) fn socket(&self) -> &SocketCore {
        &self.anchor.socket
    }

    /// Whether no packet was sent.
    ///
    /// # Errors
    /// As for [`peek`](Self::peek).
    pub fn is_empty(&mut self) -> Result<bool> {
        self.consumer.is_empty().map_err(|_| poisoned("completion"))
    }

    /// At most `max` frames whose packets were sent.
    ///
    /// # Errors
    /// [`ErrorKind::RingPoisoned`](crate::ErrorKind::RingPoisoned) if the kernel's index cannot be true.
    #[inline]
    pub fn peek(&mut self, max: u32) -> Result<CompletionBatch<'_, K>> {
        let umem = self.anchor.umem();
        let count = &self.anchor.count;
        let reader = self.consumer.reader(max).map_err(|_| poisoned("completion"))?;
        count.take(reader.left());
        Ok(CompletionBatch { reader, umem, count, kind: PhantomData })
    }

    /// Puts all frames whose packets were sent into a cache; how many. What is in no frame is written off.
    ///
    /// # Errors
    /// As for [`peek`](Self::peek).
    pub fn drain(&mut self, cache: &mut FrameCache<K>) -> Result<u32> {
        let size = self.size();
        let mut drained = 0;
        for completed in self.peek(size)? {
            drained += 1;
            if let Ok(frame) = completed.into_frame() {
                cache.put(frame);
            }
        }
        Ok(drained)
    }
}

/// A packet that was sent. Its frame goes back to the UMEM if it is dropped.
#[derive(Debug)]
pub struct Completed<K: Kind = Exclusive>(Packet<K>);

impl<K: Kind> Completed<K> {
    /// Its frame, whatever it holds.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames; the frame is written off then.
    #[inline]
    pub fn into_frame(self) -> std::result::Result<Frame<K>, BadDescriptor> {
        self.0.into_frame()
    }

    /// When the device, or the driver, sent the packet, in nanoseconds of its clock, if that was asked for; since kernel
    /// 6.8.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames, or the UMEM has no TX metadata.
    pub fn tx_timestamp(&self) -> std::result::Result<u64, BadDescriptor> {
        self.0.completed_timestamp()
    }
}

/// Frames of a completion ring, read one after the other. Those that are not read stay in the ring.
pub struct CompletionBatch<'a, K: Kind = Exclusive> {
    reader: Reader<'a, Mapped<u64>>,
    umem: NonNull<Inner>,
    count: &'a RingCount,
    kind: PhantomData<K>,
}

impl<K: Kind> fmt::Debug for CompletionBatch<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionBatch").field("left", &self.reader.left()).finish_non_exhaustive()
    }
}

impl<K: Kind> Iterator for CompletionBatch<'_, K> {
    type Item = Completed<K>;

    #[inline]
    fn next(&mut self) -> Option<Completed<K>> {
        let address = self.reader.read()?;
        let descriptor = self.inner().taken(Descriptor { address, length: 0, options: 0 });
        // SAFETY: the kernel has given the frame back, and this is the only time that the slot is read.
        Some(Completed(unsafe { Packet::new(self.umem, descriptor) }))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.reader.left() as usize;
        (left, Some(left))
    }
}

impl<K: Kind> ExactSizeIterator for CompletionBatch<'_, K> {}

impl<K: Kind> CompletionBatch<'_, K> {
    /// Gives frames to a fill ring at once: as many as both batches have. How many. A fill batch of another UMEM takes
    /// none.
    #[inline]
    pub fn recycle(&mut self, fill: &mut FillBatch<'_, K>) -> u32 {
        if !fill.is_of(self.umem) {
            return 0;
        }
        let umem = self.umem;
        let done = transfer(&mut self.reader, fill.writer(), |address| {
            // SAFETY: it outlives the ring that is borrowed.
            let inner = unsafe { umem.as_ref() };
            inner.lent(Descriptor { address, length: 0, options: 0 }).address
        });
        self.count.give(done);
        fill.count_recycled(done);
        done
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: it outlives the ring that is borrowed.
        unsafe { self.umem.as_ref() }
    }
}

impl<K: Kind> Drop for CompletionBatch<'_, K> {
    #[inline]
    fn drop(&mut self) {
        self.count.give(self.reader.left());
    }
}
