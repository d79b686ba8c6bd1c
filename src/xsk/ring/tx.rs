//! The TX ring: packets to send.

use super::anchor::Anchor;
use super::ends::{Producer, Writer, Written};
use super::fragments::Fragments;
use super::memory::{Descriptor, Mapped, XDP_PKT_CONTD, XDP_TX_METADATA};
use super::poisoned;
use crate::error::{Context, Result};
use crate::sys::xsk::RingKind;
use crate::xsk::refusal::{Refusal, Rejected};
use crate::xsk::socket_core::{SocketCore, Wake};
use crate::xsk::umem::audit::Holder;
use crate::xsk::umem::count::RingCount;
use crate::xsk::umem::inner::Inner;
use crate::xsk::umem::{Exclusive, FrameCache, Kind, Packet, Place};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// Takes packets for the kernel to send.
pub struct TxRing<K: Kind = Exclusive> {
    producer: Producer<Mapped<Descriptor>>,
    anchor: Anchor,
    /// 1 without multi-buffer.
    max_fragments: u32,
    kind: PhantomData<K>,
}

// SAFETY: this end of the ring is this value's alone, wherever it is.
unsafe impl<K: Kind> Send for TxRing<K> {}

impl<K: Kind> fmt::Debug for TxRing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxRing").field("size", &self.producer.size()).finish_non_exhaustive()
    }
}

/// To wait for room with poll(2) or epoll(7): it is writable while at most half of it is full.
impl<K: Kind> AsFd for TxRing<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.anchor.socket.fd.as_fd()
    }
}

impl<K: Kind> TxRing<K> {
    /// # Safety
    /// `memory` is of the anchor's ring, which has `size` slots, a power of two, and no other producer here.
    pub(crate) unsafe fn new(anchor: Anchor, memory: Mapped<Descriptor>, size: u32) -> Self {
        // SAFETY: as promised.
        let producer = unsafe { Producer::new(size, memory) };
        Self { producer, anchor, max_fragments: 1, kind: PhantomData }
    }

    /// Takes packets of so many fragments.
    pub(crate) fn with_max_fragments(self, max_fragments: u32) -> Self {
        Self { max_fragments, ..self }
    }

    /// Slots in all.
    pub fn size(&self) -> u32 {
        self.producer.size()
    }

    /// Packets, or fragments, that the kernel has not taken yet. In copy mode kernels before 6.17 tell of none that they
    /// have taken before they have found the ring empty.
    pub fn pending(&self) -> u32 {
        self.producer.pending()
    }

    pub(crate) fn socket(&self) -> &SocketCore {
        &self.anchor.socket
    }

    /// Slots for at most `max` packets, or fragments.
    ///
    /// # Errors
    /// [`ErrorKind::RingPoisoned`](crate::ErrorKind::RingPoisoned) if the kernel's index cannot be true.
    #[inline]
    pub fn reserve(&mut self, max: u32) -> Result<TxBatch<'_, K>> {
        let (umem, max_fragments) = (self.anchor.umem(), self.max_fragments);
        let count = &self.anchor.count;
        let writer = self.producer.writer(max).map_err(|_| poisoned("TX"))?;
        Ok(TxBatch { writer, umem, count, max_fragments, kind: PhantomData })
    }

    /// Whether the kernel sleeps until it is called, although there may be packets in the ring. Always, on a socket that was
    /// bound without [need-wakeup](super::super::SocketBuilder::need_wakeup): it does not say then, and in copy mode it does.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.producer.needs_wakeup() || !self.anchor.socket.settings.tells_of_sleep()
    }

    /// Calls the kernel if it [may sleep](Self::needs_wakeup). In copy mode one call sends at most 32 packets, 16 on kernel 5.10 (or the
    /// [budget](super::super::SocketBuilder::tx_budget)): to be done again while packets are [pending](Self::pending).
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os): `ENXIO` or `ENETDOWN` once the device is gone or down.
    pub fn wake(&self) -> Result<Wake> {
        if !self.needs_wakeup() {
            return Ok(Wake::Skipped);
        }
        self.anchor.socket.wake(RingKind::Tx).during("wake", "the TX ring")
    }
}

/// Free slots of a TX ring, for packets. What is not committed goes back to the UMEM.
pub struct TxBatch<'a, K: Kind = Exclusive> {
    writer: Writer<'a, Mapped<Descriptor>>,
    umem: NonNull<Inner>,
    count: &'a RingCount,
    max_fragments: u32,
    kind: PhantomData<K>,
}

impl<K: Kind> fmt::Debug for TxBatch<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxBatch").field("left", &self.left()).finish_non_exhaustive()
    }
}

impl<K: Kind> TxBatch<'_, K> {
    /// Slots that are left.
    #[inline]
    pub fn left(&self) -> u32 {
        self.writer.left()
    }

    /// Puts a packet into the next slot.
    ///
    /// # Errors
    /// [`Refusal`], with the packet. Everything is checked that makes the kernel drop a packet without a word.
    #[inline]
    pub fn push(&mut self, packet: Packet<K>) -> std::result::Result<(), Rejected<Packet<K>>> {
        if let Err(refusal) = self.check(&packet) {
            return Err(Rejected::new(packet, refusal));
        }
        if self.writer.left() == 0 {
            return Err(Rejected::new(packet, Refusal::Full));
        }
        self.put(packet, 0);
        Ok(())
    }

    /// Puts frames of a cache into all slots, as far as there are frames, each as a packet of `length` bytes of whatever it
    /// holds, behind the UMEM's headroom and TX metadata; how many. For who sends the same again and again.
    ///
    /// # Errors
    /// [`Refusal::OtherUmem`], [`Refusal::Empty`], and [`Refusal::TooLong`] for a packet that does not fit into a frame;
    /// the cache keeps its frames then.
    #[inline]
    pub fn push_frames(
        &mut self,
        cache: &mut FrameCache<K>,
        length: u32,
    ) -> std::result::Result<u32, Refusal> {
        // SAFETY: it outlives the ring that is borrowed.
        let inner = unsafe { self.umem.as_ref() };
        if !cache.is_of(self.umem) {
            return Err(Refusal::OtherUmem);
        }
        if length == 0 {
            return Err(Refusal::Empty);
        }
        let offset = inner.geometry.packet_offset(length).ok_or(Refusal::TooLong)?;
        let before = self.writer.left();
        while self.writer.left() > 0
            && let Some(frame) = cache.take()
        {
            let place = Place { base: frame.into_base(), offset };
            let address = inner.geometry.address(place);
            inner.given(address, Holder::Program);
            self.writer.write(Descriptor { address, length, options: 0 });
        }
        Ok(before - self.writer.left())
    }

    /// Puts a packet into as many slots as it has fragments; all of them or none.
    ///
    /// # Errors
    /// [`Refusal`], with the packet: [`TooManyFragments`](Refusal::TooManyFragments) for more than 18 or, in zero-copy
    /// mode, more than the device takes.
    pub fn push_fragments(
        &mut self,
        packet: Fragments<K>,
    ) -> std::result::Result<(), Rejected<Fragments<K>>> {
        if let Err(refusal) = self.check_fragments(&packet) {
            return Err(Rejected::new(packet, refusal));
        }
        let mut continued = packet.count();
        for fragment in packet {
            continued -= 1;
            self.put(fragment, if continued > 0 { XDP_PKT_CONTD } else { 0 });
        }
        Ok(())
    }

    /// Into a slot that there is, after the checks.
    #[inline]
    fn put(&mut self, packet: Packet<K>, more: u32) {
        let descriptor = packet.into_descriptor();
        self.inner().given(descriptor.address, Holder::Program);
        let options = descriptor.options & XDP_TX_METADATA | more;
        self.writer.write(Descriptor { options, ..descriptor });
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: it outlives the ring that is borrowed.
        unsafe { self.umem.as_ref() }
    }

    #[inline]
    fn check(&self, packet: &Packet<K>) -> std::result::Result<(), Refusal> {
        if packet.umem() != self.umem {
            return Err(Refusal::OtherUmem);
        }
        let place = packet.place()?;
        if packet.is_empty() {
            return Err(Refusal::Empty);
        }
        if place.offset < packet.inner().geometry.tx_metadata {
            return Err(Refusal::NoRoomForMetadata);
        }
        Ok(())
    }

    fn check_fragments(&self, packet: &Fragments<K>) -> std::result::Result<(), Refusal> {
        match u32::try_from(packet.count()) {
            Ok(2..) if self.max_fragments == 1 => return Err(Refusal::NoMultiBuffer),
            Ok(count) if count > self.max_fragments => return Err(Refusal::TooManyFragments),
            Ok(count) if count > self.left() => return Err(Refusal::Full),
            Ok(_) => {}
            Err(_) => return Err(Refusal::TooManyFragments),
        }
        packet.iter().try_for_each(|fragment| self.check(fragment))
    }

    /// Gives the kernel all that was pushed; how many slots. It may need to be [woken](TxRing::wake).
    #[inline]
    pub fn commit(self) -> u32 {
        let mut batch = ManuallyDrop::new(self);
        batch.count.give(batch.writer.written());
        batch.writer.publish()
    }
}

/// Gives frames back of packets that were pushed and not committed.
#[cold]
fn abandon<K: Kind>(mut written: Written<Mapped<Descriptor>>, umem: NonNull<Inner>) {
    while let Some(descriptor) = written.take_back() {
        // SAFETY: it outlives the ring.
        let descriptor = unsafe { umem.as_ref() }.taken(descriptor);
        // SAFETY: pushed by its owner, never published, and read back once.
        drop(unsafe { Packet::<K>::new(umem, descriptor) });
    }
}

impl<K: Kind> Drop for TxBatch<'_, K> {
    #[inline]
    fn drop(&mut self) {
        if self.writer.written() != 0 {
            abandon::<K>(self.writer.abandon(), self.umem);
        }
    }
}
