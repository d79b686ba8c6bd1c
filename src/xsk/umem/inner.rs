//! What all handles, rings, frames and packets of a UMEM point to, and when it goes.
//!
//! A frame is two words: it has a plain pointer to its UMEM, and no count of references, which would cost an atomic
//! operation for each packet. So the UMEM must outlive every frame by other means. Handles and rings keep an [`Owner`]
//! together. When the last of them goes, frames are either free, or in the kernel's rings (which are gone), or with the
//! user. The numbers tell how many are with the user: if none, everything goes at once. Else it goes when the last of
//! them is dropped; and if one was forgotten (`mem::forget`), never.

use super::geometry::{Geometry, Place};
use crate::sys::Kernel;
use crate::sys::mmap::Mapping;
use crate::xsk::socket_core::SocketCore;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Memory {
    Owned(Mapping),
    /// Of somebody who has promised that it stays.
    Raw(NonNull<u8>),
}

// SAFETY: memory of the process, not of a thread.
unsafe impl Send for Memory {}
// SAFETY: a shared Memory only tells where it is.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Owned(mapping) => mapping.base(),
            Self::Raw(base) => *base,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    memory: Memory,
    pub(crate) geometry: Geometry,
    /// Whether the kernel knows launch times in TX metadata.
    pub(crate) has_launch_time: bool,
    state: Mutex<State>,
    /// Of the rings that there are.
    traffic: Mutex<Traffic>,
    /// Sockets that are bound with this memory.
    pub(crate) sockets: Mutex<Vec<Weak<SocketCore>>>,
}

#[derive(Debug)]
struct State {
    /// Where each free frame begins.
    free: Vec<u64>,
    /// Frames that were given up, since the kernel told no usable address.
    written_off: u64,
    /// The last owner has gone.
    is_orphan: bool,
}

#[derive(Debug, Default)]
struct Traffic {
    rings: Vec<Arc<RingCount>>,
    /// Sockets that are not closed yet.
    sockets: usize,
    /// Of rings that are no more: frames given to the kernel less those it gave back.
    settled: i64,
}

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

    fn balance(&self) -> i64 {
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

impl Inner {
    pub(crate) fn new(memory: Memory, geometry: Geometry) -> Self {
        // The lowest first, so that few pages are used by a program that needs few frames.
        let free = (0..geometry.frames).rev().map(|frame| geometry.base(frame)).collect();
        let state = State { free, written_off: 0, is_orphan: false };
        let release = || Kernel::default().release().is_none_or(|release| release >= (6, 15));
        Self {
            memory,
            has_launch_time: geometry.tx_metadata > 0 && release(),
            geometry,
            state: Mutex::new(state),
            traffic: Mutex::default(),
            sockets: Mutex::default(),
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The bytes at a place, which [`Geometry::locate`] has found.
    #[inline]
    pub(crate) fn pointer(&self, place: Place) -> NonNull<u8> {
        #[allow(clippy::cast_possible_truncation, reason = "below the length of the memory")]
        let distance = place.base as usize + place.offset as usize;
        // SAFETY: within the memory, whose length is that of the geometry.
        unsafe { self.memory.base().add(distance) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves at most `count` free frames to `to`.
    pub(crate) fn take_free(&self, count: usize, to: &mut Vec<u64>) {
        let mut state = self.state();
        let rest = state.free.len() - count.min(state.free.len());
        to.extend(state.free.drain(rest..));
    }

    /// Takes frames back, all of `from`.
    pub(crate) fn give_free(&self, from: impl IntoIterator<Item = u64>) {
        self.state().free.extend(from);
    }

    /// Takes one back that begins at `base`, or one that is nowhere.
    pub(crate) fn give_back(&self, base: Option<u64>) {
        let mut state = self.state();
        match base {
            Some(base) => state.free.push(base),
            None => state.written_off += 1,
        }
    }

    /// A socket that may get frames, until [`close_socket`](Self::close_socket).
    fn open_socket(&self) {
        self.traffic().sockets += 1;
    }

    fn close_socket(&self) {
        self.traffic().sockets -= 1;
    }

    /// Begins to count for a ring.
    pub(crate) fn count_ring(&self) -> Arc<RingCount> {
        let count = Arc::new(RingCount::default());
        self.traffic().rings.push(count.clone());
        count
    }

    /// A ring is gone: what is in it stays with the kernel.
    pub(crate) fn settle_ring(&self, count: &Arc<RingCount>) {
        let mut traffic = self.traffic();
        traffic.settled += count.balance();
        traffic.rings.retain(|ring| !Arc::ptr_eq(ring, count));
    }

    /// Frames that the kernel never got, of a ring that was not used.
    pub(crate) fn in_kernel(&self) -> u64 {
        let traffic = self.traffic();
        let live: i64 = traffic.rings.iter().map(|ring| ring.balance()).sum();
        u64::try_from(traffic.settled + live).unwrap_or(0)
    }

    /// A descriptor of a socket can have been duplicated, and then the kernel still receives into the old pages. Raw memory
    /// is not exchanged: who gave it has promised to wait.
    fn renew(&self) -> io::Result<()> {
        match &self.memory {
            // SAFETY: called when there is no token for a frame, and those are the only ways to the memory.
            Memory::Owned(mapping) => unsafe { Kernel::default().renew(mapping) },
            Memory::Raw(_) => Ok(()),
        }
    }

    pub(crate) fn census(&self) -> FrameCensus {
        let in_kernel = self.in_kernel();
        let state = self.state();
        let (free, written_off) = (state.free.len() as u64, state.written_off);
        let total = u64::from(self.geometry.frames);
        let held = total.saturating_sub(free + in_kernel + written_off);
        FrameCensus { total, free, in_kernel, written_off, held }
    }

    /// If no socket is open and no frame is in the program's hands: takes back all that the kernel had. How many.
    pub(crate) fn reclaim(&self) -> u64 {
        let mut traffic = self.traffic();
        let mut state = self.state();
        let settled = u64::try_from(traffic.settled).unwrap_or(0);
        let known = state.free.len() as u64 + settled + state.written_off;
        if traffic.sockets != 0 || known != u64::from(self.geometry.frames) {
            return 0;
        }
        if let Err(error) = self.renew() {
            log::debug!(target: "oxdp::xsk", "the frames of a UMEM cannot be taken back: {error}");
            return 0;
        }
        traffic.settled = 0;
        state.written_off = 0;
        let before = state.free.len();
        state.free =
            (0..self.geometry.frames).rev().map(|frame| self.geometry.base(frame)).collect();
        (state.free.len() - before) as u64
    }
}

/// The handles' and rings' share of a UMEM; see the [module](self).
#[derive(Debug)]
pub(crate) struct Owner(NonNull<Inner>);

// SAFETY: Inner is Send and Sync, and who drops an Owner last may be any thread.
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

/// Says that a socket is open; to be dropped after its descriptor.
#[derive(Debug)]
pub(crate) struct OpenSocket(Arc<Owner>);

impl OpenSocket {
    pub(crate) fn new(owner: &Arc<Owner>) -> Self {
        owner.open_socket();
        Self(owner.clone())
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.close_socket();
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
        let in_kernel = self.in_kernel();
        let is_unused = {
            let mut state = self.state();
            state.is_orphan = true;
            is_unused(&state, in_kernel, &self.geometry)
        };
        if is_unused {
            // SAFETY: no owner is left, and no frame or packet, by the numbers.
            unsafe { free_inner(self.0) };
        } else {
            log::debug!(target: "oxdp::xsk", "frames of a UMEM are still held; it goes when they do");
        }
    }
}

fn is_unused(state: &State, in_kernel: u64, geometry: &Geometry) -> bool {
    state.free.len() as u64 + in_kernel + state.written_off == u64::from(geometry.frames)
}

/// Takes a frame back from a token that is dropped: one at `base`, or one that is nowhere.
///
/// # Safety
/// `umem` is that of the token, which is not used any more.
#[cold]
pub(crate) unsafe fn give_back(umem: NonNull<Inner>, base: Option<u64>) {
    let is_last = {
        // SAFETY: the Inner outlives the token.
        let inner = unsafe { umem.as_ref() };
        let in_kernel = inner.in_kernel();
        let mut state = inner.state();
        match base {
            Some(base) => state.free.push(base),
            None => state.written_off += 1,
        }
        state.is_orphan && is_unused(&state, in_kernel, &inner.geometry)
    };
    if is_last {
        // SAFETY: no owner is left, and this was the last token: those that are dropped at the same time wait for the same
        // lock, and only the last of them finds all frames accounted for.
        unsafe { free_inner(umem) };
    }
}

/// # Safety
/// Nobody uses it any more.
unsafe fn free_inner(inner: NonNull<Inner>) {
    // SAFETY: made by `Owner::new` from a Box, and freed once.
    drop(unsafe { Box::from_raw(inner.as_ptr()) });
}
