//! The RX ring: packets that were received.

use super::anchor::Anchor;
use super::ends::{Consumer, Reader, transfer};
use super::fill::FillBatch;
use super::memory::{Descriptor, Mapped, XDP_PKT_CONTD};
use super::poisoned;
use crate::error::{Error, ErrorKind, Result};
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::count::RingCount;
use crate::xsk::umem::inner::Inner;
use crate::xsk::umem::{Exclusive, Kind, Packet, PacketView};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// Gives packets that the kernel has received.
pub struct RxRing<K: Kind = Exclusive> {
    consumer: Consumer<Mapped<Descriptor>>,
    anchor: Anchor,
    multi_buffer: bool,
    kind: PhantomData<K>,
}

// SAFETY: this end of the ring is this value's alone, wherever it is.
unsafe impl<K: Kind> Send for RxRing<K> {}

impl<K: Kind> fmt::Debug for RxRing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxRing").field("size", &self.consumer.size()).finish_non_exhaustive()
    }
}

/// To wait for packets with poll(2) or epoll(7).
impl<K: Kind> AsFd for RxRing<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.anchor.socket.fd.as_fd()
    }
}

impl<K: Kind> RxRing<K> {
    /// # Safety
    /// `memory` is of the anchor's ring, which has `size` slots, a power of two, and no other consumer here.
    pub(crate) unsafe fn new(
        anchor: Anchor,
        memory: Mapped<Descriptor>,
        size: u32,
        multi_buffer: bool,
    ) -> Self {
        // SAFETY: as promised.
        let consumer = unsafe { Consumer::new(size, memory) };
        Self { consumer, anchor, multi_buffer, kind: PhantomData }
    }

    /// Slots in all.
    pub fn size(&self) -> u32 {
        self.consumer.size()
    }

    pub(crate) fn socket(&self) -> &SocketCore {
        &self.anchor.socket
    }

    /// Whether no packet has come.
    ///
    /// # Errors
    /// As for [`peek`](Self::peek).
    pub fn is_empty(&mut self) -> Result<bool> {
        self.consumer.is_empty().map_err(|_| poisoned("RX"))
    }

    /// At most `max` packets.
    ///
    /// # Errors
    /// [`ErrorKind::RingPoisoned`] if the kernel's index cannot be true. [`ErrorKind::MultiBuffer`] if the socket was
    /// bound with multi-buffer: [`packets`](Self::packets) keeps fragments together.
    #[inline]
    pub fn peek(&mut self, max: u32) -> Result<RxBatch<'_, K>> {
        if self.multi_buffer {
            return Err(fragmented());
        }
        self.claim(max)
    }

    /// Looks at what the kernel has put there since.
    pub(super) fn refresh(&mut self) {
        self.consumer.refresh();
    }

    #[inline]
    pub(super) fn claim(&mut self, max: u32) -> Result<RxBatch<'_, K>> {
        let umem = self.anchor.umem();
        let count = &self.anchor.count;
        let reader = self.consumer.reader(max).map_err(|_| poisoned("RX"))?;
        count.take(reader.left());
        Ok(RxBatch { reader, umem, count, kind: PhantomData })
    }
}

#[cold]
fn fragmented() -> Error {
    Error::new("read", "the RX ring", ErrorKind::MultiBuffer)
}

/// Packets of an RX ring, read one after the other. Those that are not read stay in the ring.
pub struct RxBatch<'a, K: Kind = Exclusive> {
    reader: Reader<'a, Mapped<Descriptor>>,
    umem: NonNull<Inner>,
    count: &'a RingCount,
    kind: PhantomData<K>,
}

impl<K: Kind> fmt::Debug for RxBatch<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxBatch").field("left", &self.reader.left()).finish_non_exhaustive()
    }
}

impl<K: Kind> Iterator for RxBatch<'_, K> {
    type Item = Packet<K>;

    #[inline]
    fn next(&mut self) -> Option<Packet<K>> {
        let descriptor = received(self.reader.read()?);
        let descriptor = self.inner().taken(descriptor);
        // SAFETY: the kernel has given the frame, and this is the only time that the slot is read.
        Some(unsafe { Packet::new(self.umem, descriptor) })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.reader.left() as usize;
        (left, Some(left))
    }
}

impl<K: Kind> ExactSizeIterator for RxBatch<'_, K> {}

impl<K: Kind> RxBatch<'_, K> {
    /// Looks at packets and gives their frames back at once: as many as both batches have. How many. A fill batch of another
    /// UMEM takes none.
    #[inline]
    pub fn recycle(
        &mut self,
        fill: &mut FillBatch<'_, K>,
        mut look: impl FnMut(PacketView<'_, K>),
    ) -> u32 {
        if !fill.is_of(self.umem) {
            return 0;
        }
        let (umem, before) = (self.umem, fill.written());
        // Counts what was done even if `look` panics: the packet that it was about is read again later.
        let both = Recycling { rx: self, fill, before };
        transfer(&mut both.rx.reader, both.fill.writer(), |descriptor| {
            // SAFETY: it outlives the ring that is borrowed.
            let descriptor = unsafe { umem.as_ref() }.lent(descriptor);
            // SAFETY: the kernel has given the frame, and nobody else has it for as long as the view is lent.
            look(unsafe { PacketView::new(umem, descriptor) });
            descriptor.address
        })
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: it outlives the ring that is borrowed.
        unsafe { self.umem.as_ref() }
    }

    /// Packets, or fragments, that are left.
    pub(super) fn left(&self) -> u32 {
        self.reader.left()
    }

    /// The options of the packet, or fragment, so many behind the next.
    pub(super) fn options_at(&self, ahead: u32) -> Option<u32> {
        Some(self.reader.at(ahead)?.options)
    }
}

/// What is received asks for nothing: the options of packets to send are the program's.
#[inline]
fn received(descriptor: Descriptor) -> Descriptor {
    Descriptor { options: descriptor.options & XDP_PKT_CONTD, ..descriptor }
}

struct Recycling<'a, 'rx, 'fill, K: Kind> {
    rx: &'a mut RxBatch<'rx, K>,
    fill: &'a mut FillBatch<'fill, K>,
    /// What the fill batch had before.
    before: u32,
}

impl<K: Kind> Drop for Recycling<'_, '_, '_, K> {
    #[inline]
    fn drop(&mut self) {
        let done = self.fill.written() - self.before;
        self.rx.count.give(done);
        self.fill.count_recycled(done);
    }
}

impl<K: Kind> Drop for RxBatch<'_, K> {
    #[inline]
    fn drop(&mut self) {
        self.count.give(self.reader.left());
    }
}
