//! The two ends of a ring, laid out as C programs have them, with the arithmetic of C's inline functions.
//!
//! Indices run freely through all 32 bits and wrap; the slot is the index modulo the size. Each end keeps a copy of the
//! other's index, and looks at the real one only when the copy is not enough: that cache line moves between processors.
//!
//! Orderings, for an entry and for the bytes of the frame that it is about: the producer writes both, then stores its index
//! with Release; the consumer loads that index with Acquire, then reads both. When it has read the slot it stores its own
//! index with Release, and the producer loads that with Acquire before it writes the slot again. (The kernel can do with
//! a control dependency there, include "net/xdp/xsk_queue.h"; this language has none.)

use super::memory::{RingMemory, Word};
use crate::sys::xsk::XDP_RING_NEED_WAKEUP;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The other end's index cannot be true: it is further away than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jumped;

/// As `struct xsk_ring_prod`.
#[repr(C)]
#[derive(Clone, Debug)]
pub(crate) struct Producer<M> {
    /// The next slot to write.
    next: u32,
    /// The consumer's index when it was last looked at, and the size: the slot to stop before.
    limit: u32,
    mask: u32,
    size: u32,
    memory: M,
}

/// As `struct xsk_ring_cons`.
#[repr(C)]
#[derive(Clone, Debug)]
pub(crate) struct Consumer<M> {
    /// The producer's index when it was last looked at: the slot to stop before.
    limit: u32,
    /// The next slot to read.
    next: u32,
    mask: u32,
    size: u32,
    memory: M,
}

impl<M: RingMemory> Producer<M> {
    /// Of a ring from where it stands.
    ///
    /// # Safety
    /// `memory` has `size` slots, which is a power of two. Nobody else uses this end of it.
    pub(crate) unsafe fn new(size: u32, memory: M) -> Self {
        let next = memory.load(Word::Producer, Relaxed);
        let limit = memory.load(Word::Consumer, Acquire).wrapping_add(size);
        Self { next, limit, mask: size.wrapping_sub(1), size, memory }
    }

    /// How many slots are free; looks at the consumer only if those known to be are fewer than `wanted`.
    #[inline]
    pub(crate) fn free(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= wanted {
            return known;
        }
        self.limit = self.memory.load(Word::Consumer, Acquire).wrapping_add(self.size);
        self.limit.wrapping_sub(self.next)
    }

    /// At most `wanted` free slots, for a [`Writer`].
    #[inline]
    pub(crate) fn writer(&mut self, wanted: u32) -> Result<Writer<'_, M>, Jumped> {
        let free = self.free(wanted);
        if free > self.size {
            return Err(self.jumped());
        }
        let (next, memory, mask) = (self.next, self.memory, self.mask);
        let limit = next.wrapping_add(free.min(wanted));
        Ok(Writer { producer: self, memory, mask, next, limit })
    }

    /// What was seen is forgotten, so that it is looked at again.
    #[cold]
    fn jumped(&mut self) -> Jumped {
        self.limit = self.next;
        Jumped
    }

    /// All slots before `next` are the consumer's.
    #[inline]
    fn publish(&mut self, next: u32) {
        self.next = next;
        self.memory.store(Word::Producer, next, Release);
    }

    /// Whether the kernel sleeps until it is called.
    ///
    /// The kernel sets its flag and then looks at the ring; here the ring is written and then the flag read. Without a
    /// full fence between, both could see the other's old state and sleep.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.memory.fence();
        self.memory.load(Word::Flags, Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }

    /// Slots in all.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Slots that are not known to be read: written, and whatever the consumer has been at for.
    pub(crate) fn pending(&self) -> u32 {
        self.next.wrapping_sub(self.memory.load(Word::Consumer, Acquire)).min(self.size)
    }
}

impl<M: RingMemory> Consumer<M> {
    /// Of a ring from where it stands.
    ///
    /// # Safety
    /// `memory` has `size` slots, which is a power of two. Nobody else uses this end of it.
    pub(crate) unsafe fn new(size: u32, memory: M) -> Self {
        let limit = memory.load(Word::Producer, Acquire);
        let next = memory.load(Word::Consumer, Relaxed);
        Self { limit, next, mask: size.wrapping_sub(1), size, memory }
    }

    /// How many slots can be read; looks at the producer only if none is known.
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        if self.limit == self.next {
            self.limit = self.memory.load(Word::Producer, Acquire);
        }
        self.limit.wrapping_sub(self.next)
    }

    /// Looks at the producer, whatever is known.
    pub(crate) fn refresh(&mut self) {
        self.limit = self.memory.load(Word::Producer, Acquire);
    }

    /// Whether nothing can be read.
    pub(crate) fn is_empty(&mut self) -> Result<bool, Jumped> {
        match self.available() {
            available if available > self.size => Err(self.jumped()),
            available => Ok(available == 0),
        }
    }

    /// At most `wanted` slots that are filled, for a [`Reader`].
    ///
    /// They count as read from here on, until the reader says otherwise: one that is forgotten loses entries, and none is
    /// ever read twice.
    #[inline]
    pub(crate) fn reader(&mut self, wanted: u32) -> Result<Reader<'_, M>, Jumped> {
        let available = self.available();
        if available > self.size {
            return Err(self.jumped());
        }
        let (next, memory, mask) = (self.next, self.memory, self.mask);
        let limit = next.wrapping_add(available.min(wanted));
        self.next = limit;
        Ok(Reader { consumer: self, memory, mask, next, limit })
    }

    /// What was seen is forgotten, so that it is looked at again.
    #[cold]
    fn jumped(&mut self) -> Jumped {
        self.limit = self.next;
        Jumped
    }

    /// All slots before `next` have been read.
    #[inline]
    fn release(&mut self, next: u32) {
        self.next = next;
        self.memory.store(Word::Consumer, next, Release);
    }

    /// Slots in all.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }
}

/// Free slots, being written. Nothing is published before [`publish`](Self::publish).
#[derive(Debug)]
pub(crate) struct Writer<'a, M: RingMemory> {
    producer: &'a mut Producer<M>,
    // Copies, so that they stay in registers: the compiler cannot know that a write to a slot leaves them alone.
    memory: M,
    mask: u32,
    next: u32,
    limit: u32,
}

impl<M: RingMemory> Writer<'_, M> {
    /// Slots that are left.
    #[inline]
    pub(crate) fn left(&self) -> u32 {
        self.limit.wrapping_sub(self.next)
    }

    /// How many are written and not published.
    #[inline]
    pub(crate) fn written(&self) -> u32 {
        self.next.wrapping_sub(self.producer.next)
    }

    /// Writes the next slot; not if none is left.
    #[inline]
    pub(crate) fn write(&mut self, entry: M::Entry) -> bool {
        if self.next == self.limit {
            return false;
        }
        // SAFETY: masked, so below the size; free, so the consumer does not look at it before it is published.
        unsafe { self.memory.write(self.next & self.mask, entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// What is written is not to be published.
    pub(crate) fn abandon(&mut self) -> Written<M> {
        let Self { memory, mask, next, .. } = *self;
        self.next = self.producer.next;
        Written { memory, mask, first: self.next, next }
    }

    /// Gives the consumer what is written; how many slots.
    #[inline]
    pub(crate) fn publish(&mut self) -> u32 {
        let written = self.written();
        self.producer.publish(self.next);
        written
    }
}

/// Slots that were written and are not published.
#[derive(Debug)]
pub(crate) struct Written<M> {
    memory: M,
    mask: u32,
    first: u32,
    next: u32,
}

impl<M: RingMemory> Written<M> {
    /// Takes the last one back, with what was written.
    pub(crate) fn take_back(&mut self) -> Option<M::Entry> {
        if self.next == self.first {
            return None;
        }
        self.next = self.next.wrapping_sub(1);
        // SAFETY: masked, so below the size; not published, so the consumer does not touch it.
        Some(unsafe { self.memory.read(self.next & self.mask) })
    }
}

/// Filled slots, being read. Those that were read are the producer's again when it is dropped; the others are read by the
/// next reader.
#[derive(Debug)]
pub(crate) struct Reader<'a, M: RingMemory> {
    consumer: &'a mut Consumer<M>,
    memory: M,
    mask: u32,
    next: u32,
    limit: u32,
}

impl<M: RingMemory> Reader<'_, M> {
    /// Slots that are left.
    #[inline]
    pub(crate) fn left(&self) -> u32 {
        self.limit.wrapping_sub(self.next)
    }

    /// Reads the next slot.
    #[inline]
    pub(crate) fn read(&mut self) -> Option<M::Entry> {
        let entry = self.at(0)?;
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// What the slot `ahead` of the next holds.
    #[inline]
    pub(crate) fn at(&self, ahead: u32) -> Option<M::Entry> {
        if ahead >= self.left() {
            return None;
        }
        // SAFETY: masked, so below the size; filled and not released, so the producer does not write it.
        Some(unsafe { self.memory.read(self.next.wrapping_add(ahead) & self.mask) })
    }
}

impl<M: RingMemory> Drop for Reader<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.consumer.release(self.next);
    }
}

/// Reads slots of one ring and writes as many of another, as far as both reach; how many.
///
/// If `each` panics, the slot that it was about is not read, and those before it are.
#[inline]
pub(crate) fn transfer<R: RingMemory, W: RingMemory>(
    reader: &mut Reader<'_, R>,
    writer: &mut Writer<'_, W>,
    mut each: impl FnMut(R::Entry) -> W::Entry,
) -> u32 {
    let count = reader.left().min(writer.left());
    let mut left = count;
    while left > 0 {
        left -= transfer_row(reader, writer, left, &mut each);
    }
    count
}

/// The same for at most `most` slots, no more than are left: as far as they lie in a row in both rings, so that the loop
/// need not look for the ends of these. How many.
#[inline]
fn transfer_row<R: RingMemory, W: RingMemory>(
    reader: &mut Reader<'_, R>,
    writer: &mut Writer<'_, W>,
    most: u32,
    each: &mut impl FnMut(R::Entry) -> W::Entry,
) -> u32 {
    let (from, slot) = (reader.memory, reader.next & reader.mask);
    let (to, free) = (writer.memory, writer.next & writer.mask);
    let in_row = (reader.mask - slot).min(writer.mask - free) + 1;
    let row = in_row.min(most);
    let mut moved = Moved { reader, writer, count: 0 };
    while moved.count < row {
        // SAFETY: the row ends within the ring.
        let slot = unsafe { slot.unchecked_add(moved.count) };
        // SAFETY: below the size; filled and not released, so the producer does not write it.
        let entry = each(unsafe { from.read(slot) });
        // SAFETY: the row ends within the ring.
        let free = unsafe { free.unchecked_add(moved.count) };
        // SAFETY: below the size; free, so the consumer does not look at it before it is published.
        unsafe { to.write(free, entry) };
        moved.count += 1;
    }
    row
}

/// So many slots count as read, and as many as written, when it is dropped.
struct Moved<'a, 'r, 'w, R: RingMemory, W: RingMemory> {
    reader: &'a mut Reader<'r, R>,
    writer: &'a mut Writer<'w, W>,
    count: u32,
}

impl<R: RingMemory, W: RingMemory> Drop for Moved<'_, '_, '_, R, W> {
    #[inline]
    fn drop(&mut self) {
        self.reader.next = self.reader.next.wrapping_add(self.count);
        self.writer.next = self.writer.next.wrapping_add(self.count);
    }
}

/// What C's inline functions of `xsk.h` do, for programs that hold these structures themselves.
#[cfg(test)]
#[allow(dead_code, reason = "compared with C's own")]
pub(crate) mod c_like {
    use super::*;

    impl<M: RingMemory> Producer<M> {
        /// `xsk_ring_prod__reserve`: all of them or none; the index of the first.
        pub(crate) fn reserve(&mut self, count: u32) -> Option<u32> {
            if self.free(count) < count {
                return None;
            }
            let first = self.next;
            self.next = self.next.wrapping_add(count);
            Some(first)
        }

        /// `xsk_ring_prod__submit`.
        pub(crate) fn submit(&mut self, count: u32) {
            let producer = self.memory.load(Word::Producer, Relaxed);
            self.memory.store(Word::Producer, producer.wrapping_add(count), Release);
        }
    }

    impl<M: RingMemory> Consumer<M> {
        /// `xsk_ring_cons__peek`: at most so many; how many, and the index of the first.
        pub(crate) fn claim(&mut self, count: u32) -> (u32, u32) {
            let (first, count) = (self.next, self.available().min(count));
            self.next = self.next.wrapping_add(count);
            (count, first)
        }

        /// `xsk_ring_cons__cancel`.
        pub(crate) fn cancel(&mut self, count: u32) {
            self.next = self.next.wrapping_sub(count);
        }

        /// `xsk_ring_cons__release`.
        pub(crate) fn give_back(&mut self, count: u32) {
            let consumer = self.memory.load(Word::Consumer, Relaxed);
            self.memory.store(Word::Consumer, consumer.wrapping_add(count), Release);
        }
    }
}
