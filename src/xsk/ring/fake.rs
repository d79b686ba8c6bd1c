//! Rings in ordinary memory, for tests: with the kernel's end of each, which does what it is told.

use super::anchor::Anchor;
use super::memory::{Descriptor, Mapped};
use super::{CompletionRing, FillRing, RxRing, TxRing};
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::{Kind, Umem};
use std::any::Any;
use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What stays as long as a ring does.
pub(crate) trait Stays: Any + Debug + Send + Sync {}
impl<T: Any + Debug + Send + Sync> Stays for T {}
pub(crate) type Shared = Arc<dyn Stays>;

/// A ring's memory. The words and the slots are allocations of their own, so that a sanitizer sees who leaves them.
#[derive(Debug)]
pub(crate) struct FakeRing<E> {
    producer: NonNull<u32>,
    consumer: NonNull<u32>,
    flags: NonNull<u32>,
    slots: NonNull<[E]>,
}

// SAFETY: words are accessed as atomics, and a slot by the end whose it is.
unsafe impl<E: Send> Send for FakeRing<E> {}
// SAFETY: as above.
unsafe impl<E: Send> Sync for FakeRing<E> {}

fn boxed<T: ?Sized>(value: Box<T>) -> NonNull<T> {
    NonNull::from(Box::leak(value))
}

impl<E: Copy + Default> FakeRing<E> {
    /// An empty one, whose indices are at `start`.
    pub(crate) fn new(size: u32, start: u32) -> Arc<Self> {
        let slots = boxed(vec![E::default(); size as usize].into_boxed_slice());
        let word = |value: u32| boxed(Box::new(value));
        let (producer, consumer, flags) = (word(start), word(start), word(0));
        Arc::new(Self { producer, consumer, flags, slots })
    }

    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(0)
    }

    pub(crate) fn memory(&self) -> Mapped<E> {
        let words = (self.producer.as_ptr(), self.consumer.as_ptr(), self.flags.as_ptr());
        // SAFETY: aligned and there; who uses it keeps this.
        unsafe { Mapped::new(words.0, words.1, self.slots.as_ptr().cast(), words.2) }
    }

    pub(crate) fn producer(&self) -> &AtomicU32 {
        // SAFETY: as long as this, and atomic for everybody.
        unsafe { AtomicU32::from_ptr(self.producer.as_ptr()) }
    }

    pub(crate) fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as long as this, and atomic for everybody.
        unsafe { AtomicU32::from_ptr(self.consumer.as_ptr()) }
    }

    pub(crate) fn flags(&self) -> &AtomicU32 {
        // SAFETY: as long as this, and atomic for everybody.
        unsafe { AtomicU32::from_ptr(self.flags.as_ptr()) }
    }

    /// Where producer, consumer, slots and flags are.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> [usize; 4] {
        let slots = self.slots.cast::<u32>();
        [self.producer, self.consumer, slots, self.flags].map(|place| place.addr().get())
    }

    /// Which slot is meant.
    pub(super) fn index(&self, index: u32) -> usize {
        (index & (self.size() - 1)) as usize
    }

    fn slot(&self, index: u32) -> *mut E {
        // SAFETY: below the number of slots.
        unsafe { self.slots.as_ptr().cast::<E>().add(self.index(index)) }
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        let producer = self.producer().load(Ordering::Relaxed);
        producer.wrapping_sub(self.consumer().load(Ordering::Acquire)) >= self.size()
    }

    /// As the kernel gives: `false` if the ring is full.
    pub(crate) fn give(&self, entry: E) -> bool {
        let producer = self.producer().load(Ordering::Relaxed);
        let used = producer.wrapping_sub(self.consumer().load(Ordering::Acquire));
        if used >= self.size() {
            return false;
        }
        // SAFETY: a slot that is the kernel's.
        unsafe { self.slot(producer).write_volatile(entry) };
        self.producer().store(producer.wrapping_add(1), Ordering::Release);
        true
    }

    /// As the kernel takes.
    pub(crate) fn take(&self) -> Option<E> {
        let consumer = self.consumer().load(Ordering::Relaxed);
        if self.producer().load(Ordering::Acquire) == consumer {
            return None;
        }
        // SAFETY: a slot that is the kernel's.
        let entry = unsafe { self.slot(consumer).read_volatile() };
        self.consumer().store(consumer.wrapping_add(1), Ordering::Release);
        Some(entry)
    }
}

impl<E> Drop for FakeRing<E> {
    fn drop(&mut self) {
        for word in [self.producer, self.consumer, self.flags] {
            // SAFETY: from a Box, and freed once.
            drop(unsafe { Box::from_raw(word.as_ptr()) });
        }
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.slots.as_ptr()) });
    }
}

fn anchor<K: Kind>(memory: Shared, socket: &Arc<SocketCore>, umem: &Umem<K>) -> Anchor {
    Anchor::fake(memory, socket, umem.owner())
}

pub(crate) fn fill<K: Kind>(
    ring: &Arc<FakeRing<u64>>,
    socket: &Arc<SocketCore>,
    umem: &Umem<K>,
) -> FillRing<K> {
    // SAFETY: tests make one producer for each ring.
    unsafe { FillRing::new(anchor(ring.clone(), socket, umem), ring.memory(), ring.size()) }
}

pub(crate) fn completion<K: Kind>(
    ring: &Arc<FakeRing<u64>>,
    socket: &Arc<SocketCore>,
    umem: &Umem<K>,
) -> CompletionRing<K> {
    // SAFETY: tests make one consumer for each ring.
    unsafe { CompletionRing::new(anchor(ring.clone(), socket, umem), ring.memory(), ring.size()) }
}

pub(crate) fn rx<K: Kind>(
    ring: &Arc<FakeRing<Descriptor>>,
    socket: &Arc<SocketCore>,
    umem: &Umem<K>,
    multi_buffer: bool,
) -> RxRing<K> {
    let anchor = anchor(ring.clone(), socket, umem);
    // SAFETY: tests make one consumer for each ring.
    unsafe { RxRing::new(anchor, ring.memory(), ring.size(), multi_buffer) }
}

pub(crate) fn tx<K: Kind>(
    ring: &Arc<FakeRing<Descriptor>>,
    socket: &Arc<SocketCore>,
    umem: &Umem<K>,
    max_fragments: u32,
) -> TxRing<K> {
    let anchor = anchor(ring.clone(), socket, umem);
    // SAFETY: tests make one producer for each ring.
    unsafe { TxRing::new(anchor, ring.memory(), ring.size()) }.with_max_fragments(max_fragments)
}
