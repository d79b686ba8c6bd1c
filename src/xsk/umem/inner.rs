//! What all handles, rings, frames and packets of a UMEM point to, and when it goes.
//!
//! A frame is two words: it has a plain pointer to its UMEM, and no count of references, which would cost an atomic
//! operation for each packet. So the UMEM must outlive every frame by other means. Handles and rings keep an [`Owner`]
//! together. When the last of them goes, frames are either free, or in the kernel's rings (which are gone), or with the
//! user. The numbers tell how many are with the user: if none, everything goes at once. Else it goes when the last of
//! them is dropped; and if one was forgotten (`mem::forget`), never.
//!
//! The numbers count tokens, not frames: each is counted where it is made and where it ends, whatever its address. So a
//! kernel that gives a frame twice, or one that it never had, does not make the memory go too early.

use super::audit::{Audit, Holder};
use super::count::{FrameCensus, RingCount};
use super::geometry::{Geometry, Place};
use super::memory::Memory;
use crate::sys::Kernel;
use crate::xsk::ring::memory::Descriptor;
use crate::xsk::socket_core::SocketCore;
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Debug)]
pub(crate) struct Inner {
    /// Where the memory begins. It changes only while nobody has a frame; who gets one later has had the lock of the books
    /// after that, or made a ring, which takes it too.
    base: AtomicPtr<u8>,
    pub(crate) geometry: Geometry,
    /// Whether the kernel knows launch times in TX metadata.
    pub(crate) has_launch_time: bool,
    books: Mutex<Books>,
    /// Sockets that are bound with this memory.
    pub(crate) sockets: Mutex<Vec<Weak<SocketCore>>>,
    /// Who may still look at this: one for all owners; one for each thread that is giving a frame back; and once the owners
    /// have gone, one for each frame that is out.
    visitors: AtomicU64,
    audit: Audit,
}

/// All under one lock: a decision needs numbers that belong together.
#[derive(Debug)]
struct Books {
    memory: Memory,
    /// Where each free frame begins.
    free: Vec<u64>,
    /// Frames that were given up, since the kernel told no usable address.
    written_off: u64,
    /// The last owner has gone.
    is_orphan: bool,
    /// Of the rings that there are.
    rings: Vec<Arc<RingCount>>,
    /// Of rings that are no more: frames given to the kernel less those it gave back.
    settled: i64,
}

impl Books {
    fn in_kernel(&self) -> i64 {
        self.settled + self.rings.iter().map(|ring| ring.balance()).sum::<i64>()
    }

    /// Frames, packets and bases in caches, and those that were forgotten.
    fn held(&self, geometry: &Geometry) -> i64 {
        let known = (self.free.len() as u64 + self.written_off).cast_signed() + self.in_kernel();
        i64::from(geometry.frames) - known
    }

    /// Takes one back that begins at `base`, or one that is nowhere.
    fn take_back(&mut self, base: Option<u64>) {
        match base {
            Some(base) => self.free.push(base),
            None => self.written_off += 1,
        }
    }
}

/// All frames, the lowest last, so that few pages are used by a program that needs few frames.
fn all(geometry: &Geometry) -> Vec<u64> {
    (0..geometry.frames).rev().map(|frame| geometry.base(frame)).collect()
}

impl Inner {
    pub(crate) fn new(memory: Memory, geometry: Geometry) -> Self {
        let base = AtomicPtr::new(memory.base().as_ptr());
        let (free, rings) = (all(&geometry), Vec::new());
        let books =
            Books { memory, free, written_off: 0, is_orphan: false, rings, settled: 0 }.into();
        let (sockets, visitors) = (Mutex::default(), AtomicU64::new(1));
        let audit = Audit::new(geometry.frames);
        let release = || Kernel::default().release().is_none_or(|release| release >= (6, 15));
        let has_launch_time = geometry.tx_metadata > 0 && release();
        Self { base, geometry, has_launch_time, books, sockets, visitors, audit }
    }

    /// Where the memory begins.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.load(Relaxed)
    }

    /// The bytes at a place, which [`Geometry::locate`] has found.
    #[inline]
    pub(crate) fn pointer(&self, place: Place) -> NonNull<u8> {
        #[allow(clippy::cast_possible_truncation, reason = "below the length of the memory")]
        let distance = place.base as usize + place.offset as usize;
        // SAFETY: within the memory, whose length is that of the geometry.
        let first = unsafe { self.base().add(distance) };
        // SAFETY: the base is not null, and the memory does not wrap around.
        unsafe { NonNull::new_unchecked(first) }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves at most `count` free frames to `to`.
    pub(crate) fn take_free(&self, count: usize, to: &mut Vec<u64>) {
        let mut books = self.books();
        let rest = books.free.len() - count.min(books.free.len());
        to.extend(books.free.drain(rest..));
    }

    /// Takes frames back, all of `from`.
    pub(crate) fn give_free(&self, from: impl IntoIterator<Item = u64>) {
        self.books().free.extend(from);
    }

    /// Takes one back that begins at `base`, or one that is nowhere, from a ring that it was not given with.
    pub(crate) fn give_back(&self, base: Option<u64>) {
        self.pass(base, Holder::Program, Holder::Free);
        self.books().take_back(base);
    }

    /// A frame changes hands, if it is one.
    #[inline]
    pub(crate) fn pass(&self, base: Option<u64>, from: Holder, to: Holder) {
        let is_right = self.audit.pass(&self.geometry, base, from, to);
        debug_assert!(is_right, "a frame at {base:?} was not in the hands of {from:?}");
    }

    /// What goes into a ring.
    #[inline]
    pub(crate) fn given(&self, address: u64, from: Holder) {
        if Audit::IS_ON {
            self.pass(self.base_of(address), from, Holder::Kernel);
        }
    }

    /// What comes out of a ring, to be somebody's; a place outside of all frames if the kernel cannot have had it.
    #[inline]
    pub(crate) fn taken(&self, descriptor: Descriptor) -> Descriptor {
        self.audited(descriptor, Holder::Program)
    }

    /// What is in a ring and stays there, to be looked at; a place outside of all frames if it is somebody's.
    #[inline]
    pub(crate) fn lent(&self, descriptor: Descriptor) -> Descriptor {
        self.audited(descriptor, Holder::Kernel)
    }

    #[inline]
    fn audited(&self, descriptor: Descriptor, to: Holder) -> Descriptor {
        if !Audit::IS_ON {
            return descriptor;
        }
        let base = self.base_of(descriptor.address);
        if self.audit.pass(&self.geometry, base, Holder::Kernel, to) {
            return descriptor;
        }
        log::error!(target: "oxdp::xsk", "the kernel gave a frame that it has not: {descriptor:?}");
        Descriptor { address: u64::MAX, ..descriptor }
    }

    fn base_of(&self, address: u64) -> Option<u64> {
        Some(self.geometry.locate(address, 0)?.base)
    }

    /// Begins to count for a ring.
    pub(crate) fn count_ring(&self) -> Arc<RingCount> {
        let count = Arc::new(RingCount::default());
        self.books().rings.push(count.clone());
        count
    }

    /// A ring is gone: what is in it stays with the kernel.
    pub(crate) fn settle_ring(&self, count: &Arc<RingCount>) {
        let mut books = self.books();
        books.settled += count.balance();
        books.rings.retain(|ring| !Arc::ptr_eq(ring, count));
    }

    pub(crate) fn census(&self) -> FrameCensus {
        let books = self.books();
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        FrameCensus {
            total: u64::from(self.geometry.frames),
            free: books.free.len() as u64,
            in_kernel: count(books.in_kernel()),
            written_off: books.written_off,
            held: count(books.held(&self.geometry)),
        }
    }

    /// If no ring and no socket is left and no frame is in the program's hands: takes back all that the kernel had. How
    /// many.
    pub(crate) fn reclaim(&self) -> u64 {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut books = self.books();
        let is_used = !books.rings.is_empty() || books.held(&self.geometry) != 0;
        let is_whole = books.settled == 0 && books.written_off == 0;
        if is_used || is_whole || sockets.iter().any(|socket| socket.strong_count() > 0) {
            return 0;
        }
        match books.memory.renewed() {
            Ok(Some(memory)) => {
                self.base.store(memory.base().as_ptr(), Relaxed);
                books.memory = memory;
            }
            Ok(None) => {}
            Err(error) => {
                log::warn!(target: "oxdp::xsk", "no fresh memory for a UMEM: {error}");
                return 0;
            }
        }
        sockets.clear();
        self.audit.reset();
        let before = books.free.len();
        books.free = all(&self.geometry);
        (books.settled, books.written_off) = (0, 0);
        books.free.len().saturating_sub(before) as u64
    }
}

/// The handles' and rings' share of a UMEM; see the [module](self).
#[derive(Debug)]
pub(crate) struct Owner(NonNull<Inner>);

/// Compiles only for what may be dropped by any thread and seen by all.
const fn for_all_threads<T: Send + Sync>() {}
const _: () = for_all_threads::<Inner>();

// SAFETY: Inner is Send and Sync (above), and who drops an Owner last may be any thread.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Owner {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(NonNull::from(Box::leak(Box::new(inner))))
    }

    /// For frames and packets, which the Inner outlives.
    #[inline]
    pub(crate) fn pointer(&self) -> NonNull<Inner> {
        self.0
    }
}

impl std::ops::Deref for Owner {
    type Target = Inner;

    #[inline]
    fn deref(&self) -> &Inner {
        // SAFETY: it goes with the last Owner at the earliest.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let held = {
            let mut books = self.books();
            books.is_orphan = true;
            let held = u64::try_from(books.held(&self.geometry)).unwrap_or(0);
            // Each of them is a visitor from now on: those that come back do so after this lock.
            self.visitors.fetch_add(held, Relaxed);
            held
        };
        if held > 0 {
            log::debug!(target: "oxdp::xsk", "{held} frames of a UMEM are still held; it goes with them");
        }
        // SAFETY: the owners' own.
        unsafe { leave(self.0, 1) };
    }
}

/// Takes a frame back from a token that is dropped: one at `base`, or one that is nowhere.
///
/// # Safety
/// `umem` is that of the token, which is not used any more.
#[cold]
pub(crate) unsafe fn give_back(umem: NonNull<Inner>, base: Option<u64>) {
    // SAFETY: the Inner outlives the token.
    let inner = unsafe { umem.as_ref() };
    // So that it stays while its lock is let go, whoever gets that next.
    inner.visitors.fetch_add(1, Relaxed);
    inner.pass(base, Holder::Program, Holder::Free);
    let was_orphan = {
        let mut books = inner.books();
        books.take_back(base);
        books.is_orphan
    };
    // SAFETY: this call's own, and the token's, which counts since the owners have gone.
    unsafe { leave(umem, 1 + u64::from(was_orphan)) };
}

/// # Safety
/// So many visitors are the caller's own, and do not look at it any more.
unsafe fn leave(umem: NonNull<Inner>, visitors: u64) {
    let before = {
        // SAFETY: there is a visitor, the caller.
        let inner = unsafe { umem.as_ref() };
        // What others did with it is done before it goes.
        inner.visitors.fetch_sub(visitors, AcqRel)
    };
    if before == visitors {
        // SAFETY: made by `Owner::new` from a Box; only the last visitor comes here.
        drop(unsafe { Box::from_raw(umem.as_ptr()) });
    }
}

#[cfg(test)]
#[path = "inner_tests.rs"]
mod tests;
