//! The fill ring: frames for what is to be received.

use super::anchor::Anchor;
use super::ends::{Producer, Writer, Written};
use super::memory::Mapped;
use super::poisoned;
use crate::error::{Context, Result};
use crate::sys::xsk::RingKind;
use crate::xsk::refusal::{Refusal, Rejected};
use crate::xsk::socket_core::Wake;
use crate::xsk::umem::inner::{Inner, RingCount};
use crate::xsk::umem::{Exclusive, Frame, FrameCache, Kind, Packet};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Takes frames that the kernel may put packets into.
pub struct FillRing<K: Kind = Exclusive> {
    producer: Producer<Mapped<u64>>,
    anchor: Anchor,
    kind: PhantomData<K>,
}

// SAFETY: this end of the ring is this value's alone, wherever it is.
unsafe impl<K: Kind> Send for FillRing<K> {}

impl<K: Kind> fmt::Debug for FillRing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillRing").field("size", &self.producer.size()).finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What a fill ring takes: a [`Frame`], or the frame of a [`Packet`].
pub trait Buffer<K: Kind>: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn umem_of(&self) -> Identity;
    #[doc(hidden)]
    fn give_up(self) -> u64;
}

/// Of a UMEM.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(NonNull<Inner>);

impl<K: Kind> sealed::Sealed for Frame<K> {}
impl<K: Kind> sealed::Sealed for Packet<K> {}

impl<K: Kind> Buffer<K> for Frame<K> {
    #[inline]
    fn umem_of(&self) -> Identity {
        Identity(self.umem())
    }

    #[inline]
    fn give_up(self) -> u64 {
        self.into_base()
    }
}

impl<K: Kind> Buffer<K> for Packet<K> {
    #[inline]
    fn umem_of(&self) -> Identity {
        Identity(self.umem())
    }

    /// The kernel finds the frame by itself, and drops what is in none (`xp_check_aligned`, `xp_check_unaligned`).
    #[inline]
    fn give_up(self) -> u64 {
        self.into_descriptor().address
    }
}

impl<K: Kind> FillRing<K> {
    /// # Safety
    /// `memory` is of the anchor's ring, which has `size` slots, a power of two, and no other producer here.
    pub(crate) unsafe fn new(anchor: Anchor, memory: Mapped<u64>, size: u32) -> Self {
        // SAFETY: as promised.
        let producer = unsafe { Producer::new(size, memory) };
        Self { producer, anchor, kind: PhantomData }
    }

    /// Slots in all.
    pub fn size(&self) -> u32 {
        self.producer.size()
    }

    /// Slots for at most `max` frames.
    ///
    /// # Errors
    /// [`ErrorKind::RingPoisoned`](crate::ErrorKind::RingPoisoned) if the kernel's index cannot be true.
    #[inline]
    pub fn reserve(&mut self, max: u32) -> Result<FillBatch<'_, K>> {
        let umem = self.anchor.umem();
        let count = &self.anchor.count;
        let writer = self.producer.writer(max).map_err(|_| poisoned("fill"))?;
        Ok(FillBatch { writer, umem, count, counted: 0, kind: PhantomData })
    }

    /// Gives the kernel at most `max` frames of a cache; how many.
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve).
    pub fn fill(&mut self, cache: &mut FrameCache<K>, max: u32) -> Result<u32> {
        let mut batch = self.reserve(max)?;
        while batch.left() > 0 {
            let Some(frame) = cache.take() else { break };
            if let Err(rejected) = batch.push(frame) {
                cache.put(rejected.item);
                break;
            }
        }
        Ok(batch.commit())
    }

    /// Whether the kernel sleeps until it is called, although there may be frames in the ring.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.producer.needs_wakeup()
    }

    /// Calls the kernel if it sleeps. To be done after frames were given, and by who waits for packets without poll(2).
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os): `ENXIO` or `ENETDOWN` once the device is gone or down.
    pub fn wake(&self) -> Result<Wake> {
        if !self.needs_wakeup() {
            return Ok(Wake::Skipped);
        }
        self.anchor.socket.wake(RingKind::Fill).during("wake", "the fill ring")
    }

    /// Gives the kernel frames that it cannot have looked at yet, before the socket is bound.
    pub(crate) fn prefill(&mut self, bases: &[u64]) -> io::Result<()> {
        let wrong = || io::Error::other("a fresh fill ring is not empty");
        let wanted = u32::try_from(bases.len()).map_err(|_| wrong())?;
        let mut writer = self.producer.writer(wanted).map_err(|_| wrong())?;
        if writer.left() != wanted {
            return Err(wrong());
        }
        for base in bases {
            writer.write(*base);
        }
        self.anchor.count.give(writer.publish());
        Ok(())
    }

    /// What was prefilled is taken back, since the kernel never got it.
    pub(crate) fn never_bound(self, bases: Vec<u64>) {
        self.anchor.count.take(u32::try_from(bases.len()).unwrap_or(0));
        self.anchor.inner().give_free(bases);
    }
}

/// Free slots of a fill ring, for frames. What is not committed goes back to the UMEM.
pub struct FillBatch<'a, K: Kind = Exclusive> {
    writer: Writer<'a, Mapped<u64>>,
    umem: NonNull<Inner>,
    count: &'a RingCount,
    /// How many of those that are written count as the kernel's already.
    counted: u32,
    kind: PhantomData<K>,
}

impl<K: Kind> fmt::Debug for FillBatch<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillBatch").field("left", &self.left()).finish_non_exhaustive()
    }
}

impl<'a, K: Kind> FillBatch<'a, K> {
    /// Slots that are left.
    #[inline]
    pub fn left(&self) -> u32 {
        self.writer.left()
    }

    /// Puts a frame, or that of a packet, into the next slot.
    ///
    /// # Errors
    /// [`Refusal::Full`] and [`Refusal::OtherUmem`], with the frame.
    #[inline]
    pub fn push<B: Buffer<K>>(&mut self, buffer: B) -> std::result::Result<(), Rejected<B>> {
        if buffer.umem_of() != Identity(self.umem) {
            return Err(Rejected::new(buffer, Refusal::OtherUmem));
        }
        if self.writer.left() == 0 {
            return Err(Rejected::new(buffer, Refusal::Full));
        }
        self.writer.write(buffer.give_up());
        Ok(())
    }

    /// Gives the kernel all that was pushed; how many.
    #[inline]
    pub fn commit(self) -> u32 {
        let mut batch = ManuallyDrop::new(self);
        batch.count.give(batch.writer.written() - batch.counted);
        batch.writer.publish()
    }

    /// Whether it takes the frames of this UMEM.
    #[inline]
    pub(super) fn is_of(&self, umem: NonNull<Inner>) -> bool {
        self.umem == umem
    }

    /// For frames that count as the kernel's, which are to be [counted](Self::count_recycled).
    #[inline]
    pub(super) fn writer(&mut self) -> &mut Writer<'a, Mapped<u64>> {
        &mut self.writer
    }

    /// How many are in it.
    #[inline]
    pub(super) fn written(&self) -> u32 {
        self.writer.written()
    }

    /// So many were recycled.
    #[inline]
    pub(super) fn count_recycled(&mut self, frames: u32) {
        self.counted += frames;
    }
}

/// Gives frames back that were pushed and not committed; `recycled` of them counted as the kernel's.
#[cold]
fn abandon(
    mut written: Written<Mapped<u64>>,
    umem: NonNull<Inner>,
    count: &RingCount,
    recycled: u32,
) {
    // SAFETY: it outlives the ring.
    let inner = unsafe { umem.as_ref() };
    count.take(recycled);
    while let Some(address) = written.take_back() {
        inner.give_back(inner.geometry.base_of(address));
    }
}

impl<K: Kind> Drop for FillBatch<'_, K> {
    #[inline]
    fn drop(&mut self) {
        if self.writer.written() != 0 {
            abandon(self.writer.abandon(), self.umem, self.count, self.counted);
        }
    }
}
