//! What the two ends of a ring share.

use std::sync::atomic::{AtomicU32, Ordering, fence};

/// A word that one end writes and the other reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Producer,
    Consumer,
    Flags,
}

/// The memory of a ring. A seam: the kernel's own, or a model of it in tests. The orderings are chosen by the caller, so
/// that a model checks the ones that are used.
pub(crate) trait RingMemory: Copy {
    /// An address of a frame, or a descriptor of a packet.
    type Entry: Copy;

    fn load(self, word: Word, order: Ordering) -> u32;

    fn store(self, word: Word, value: u32, order: Ordering);

    /// Sequentially consistent.
    fn fence(self);

    /// # Safety
    /// `slot` is below the number of slots, and the other end does not write it meanwhile.
    unsafe fn read(self, slot: u32) -> Self::Entry;

    /// # Safety
    /// `slot` is below the number of slots, and the other end does not touch it meanwhile.
    unsafe fn write(self, slot: u32, entry: Self::Entry);
}

/// A packet in a ring; `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) options: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && align_of::<Descriptor>() == 8);

/// Of another fragment, which follows; since kernel 6.6.
pub(crate) const XDP_PKT_CONTD: u32 = 1;
/// Of a packet with metadata before it; since kernel 6.8.
pub(crate) const XDP_TX_METADATA: u32 = 1 << 1;

/// A ring that is mapped, by the pointers that C programs have in `struct xsk_ring_prod` and `struct xsk_ring_cons`.
///
/// No reference is ever made to what they point to: the kernel writes there at any time.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Mapped<E> {
    producer: *mut u32,
    consumer: *mut u32,
    entries: *mut E,
    flags: *mut u32,
}

impl<E> Clone for Mapped<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Mapped<E> {}

impl<E> Mapped<E> {
    /// # Safety
    /// For as long as this or a copy is used: the words are aligned and mapped for reading and writing, and accessed by
    /// others only as atomics; `entries` points to the slots, which are mapped likewise.
    pub(crate) unsafe fn new(
        producer: *mut u32,
        consumer: *mut u32,
        entries: *mut E,
        flags: *mut u32,
    ) -> Self {
        Self { producer, consumer, entries, flags }
    }

    #[inline]
    fn word(&self, word: Word) -> &AtomicU32 {
        let word = match word {
            Word::Producer => self.producer,
            Word::Consumer => self.consumer,
            Word::Flags => self.flags,
        };
        // SAFETY: aligned, mapped and atomic for everybody, as promised to `new`.
        unsafe { AtomicU32::from_ptr(word) }
    }
}

/// What a slot of a mapped ring holds.
pub(crate) trait Slot: Copy {
    /// Each byte is read once, so that nothing is checked in one version and used in another.
    ///
    /// # Safety
    /// Mapped and aligned.
    unsafe fn read(slot: *const Self) -> Self;
}

impl Slot for u64 {
    #[inline]
    unsafe fn read(slot: *const Self) -> Self {
        // SAFETY: as promised.
        unsafe { slot.read_volatile() }
    }
}

impl Slot for Descriptor {
    /// As two words, where field by field would be three; oxdp is for little-endian machines.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half and the upper half")]
    unsafe fn read(slot: *const Self) -> Self {
        // SAFETY: as promised; a descriptor has the size of two words, and their alignment.
        let [address, rest] = unsafe { slot.cast::<[u64; 2]>().read_volatile() };
        Self { address, length: rest as u32, options: (rest >> 32) as u32 }
    }
}

impl<E: Slot> RingMemory for Mapped<E> {
    type Entry = E;

    #[inline]
    fn load(self, word: Word, order: Ordering) -> u32 {
        self.word(word).load(order)
    }

    #[inline]
    fn store(self, word: Word, value: u32, order: Ordering) {
        self.word(word).store(value, order);
    }

    #[inline]
    fn fence(self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    unsafe fn read(self, slot: u32) -> E {
        // SAFETY: below the number of slots, so within them.
        let entry = unsafe { self.entries.add(slot as usize) };
        // SAFETY: mapped, as promised to `new`.
        unsafe { E::read(entry) }
    }

    #[inline]
    unsafe fn write(self, slot: u32, value: E) {
        // SAFETY: below the number of slots, so within them.
        let entry = unsafe { self.entries.add(slot as usize) };
        // SAFETY: mapped, as promised to `new`, and nobody else's before the index is stored with Release, which makes this
        // store be done before.
        unsafe { entry.write(value) };
    }
}
