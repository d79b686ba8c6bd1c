//! Memory whose frames go to and fro between a program and the kernel.
//!
//! Owns the memory, the list of free frames, and the rule that each frame has one owner at a time: a [`Frame`], a
//! [`Packet`], a ring, or the kernel. Knows nothing of sockets but which are bound with it. In libxdp it is `xsk_umem`,
//! which leaves memory and frames to the program.

pub(crate) mod audit;
mod cache;
pub(crate) mod count;
mod frame;
mod geometry;
#[cfg(any(test, fuzzing))]
pub(crate) mod heap;
pub(crate) mod inner;
mod kind;
mod memory;
mod metadata;

pub use cache::FrameCache;
pub use count::FrameCensus;
pub use frame::{BadDescriptor, Frame, Packet, PacketView};
pub(crate) use geometry::Geometry;
pub(crate) use geometry::Place;
pub use geometry::{Chunks, MIN_CHUNK_SIZE, UmemRule, XDP_PACKET_HEADROOM};
pub use kind::{Exclusive, Kind, Shared};
pub use metadata::{RxMetadata, TxMetadata};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::mmap::{Backing, Mapping, Pages};
use inner::{Inner, Owner};
use memory::Memory;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// Whether a UMEM's memory is to come from the pool of huge pages (Documentation/admin-guide/mm/hugetlbpage.rst): fewer
/// misses of the TLB, and in zero-copy mode of the IOMMU's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    No,
    /// Huge pages if the pool has enough; [`Umem::huge_pages`] tells. Else transparent ones where the kernel finds some
    /// (Documentation/admin-guide/mm/transhuge.rst): it may take its time to make room for them.
    Try,
    /// Huge pages, or an error.
    Require,
}

/// Memory for packets, cut into frames of equal size. Cheap to clone: all clones are the same memory.
///
/// A UMEM is no descriptor, unlike libxdp's: sockets register it as they need, so that the first of them can be closed as
/// well as any other.
pub struct Umem<K: Kind = Exclusive> {
    owner: Arc<Owner>,
    huge_pages: bool,
    kind: PhantomData<K>,
}

impl<K: Kind> Clone for Umem<K> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone(), ..*self }
    }
}

impl<K: Kind> fmt::Debug for Umem<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("geometry", &self.owner.geometry)
            .field("huge_pages", &self.huge_pages)
            .finish_non_exhaustive()
    }
}

impl Umem {
    /// A UMEM of 4096 frames of 4096 bytes, unless told otherwise.
    pub fn builder() -> UmemBuilder {
        UmemBuilder::default()
    }
}

impl<K: Kind> Umem<K> {
    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Whether the memory is of huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// Bytes of a frame.
    pub fn chunk_size(&self) -> u32 {
        self.owner.geometry.chunk_size
    }

    /// Frames in all.
    pub fn frames(&self) -> u32 {
        self.owner.geometry.frames
    }

    /// Bytes before each packet to send that are for its metadata.
    pub fn tx_metadata_length(&self) -> u32 {
        self.owner.geometry.tx_metadata
    }

    /// A free frame, if there is one. Takes a lock; a [`FrameCache`] seldom does.
    pub fn frame(&self) -> Option<Frame<K>> {
        let mut base = Vec::with_capacity(1);
        self.owner.take_free(1, &mut base);
        // SAFETY: it was free.
        Some(unsafe { self.owner.frame(base.pop()?) })
    }

    /// Free frames and a store of them for one thread.
    pub fn cache(&self) -> FrameCache<K> {
        FrameCache::new(self.clone())
    }

    /// Where all frames are.
    pub fn census(&self) -> FrameCensus {
        self.owner.census()
    }

    /// Takes back what sockets that are closed had in the kernel's hands; how many frames.
    ///
    /// Only when no ring and no [`Socket`](super::Socket) of this UMEM is left and the program holds no frame, since only then it
    /// is known which those are. Else nothing is done.
    ///
    /// The kernel may go on writing to those frames for some time, or for as long as a copy of a socket's descriptor is open
    /// somewhere. So the UMEM gets fresh memory, zeroed, and the kernel keeps the old until then. One that is shared with others
    /// by a file keeps its memory: there, what was sent to a socket that is closed may show up in a frame later. One over
    /// memory that was [given](UmemBuilder::build_raw) cannot be reclaimed.
    pub fn reclaim(&self) -> u64 {
        self.owner.reclaim()
    }
}

impl<K: Kind> Umem<K> {
    /// In memory of the heap.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn on_heap(geometry: Geometry, alive: &heap::Alive) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "a few kilobytes")]
        let heap = heap::Heap::new(geometry.length() as usize, alive);
        Self::over(Memory::Heap(heap), geometry, false)
    }

    fn over(memory: Memory, geometry: Geometry, huge_pages: bool) -> Self {
        let owner = Arc::new(Owner::new(Inner::new(memory, geometry)));
        Self { owner, huge_pages, kind: PhantomData }
    }
}

/// What a UMEM is to be.
#[derive(Clone, Debug)]
pub struct UmemBuilder {
    geometry: Geometry,
    huge_pages: HugePages,
}

impl Default for UmemBuilder {
    fn default() -> Self {
        let geometry = Geometry {
            chunks: Chunks::Aligned,
            chunk_size: 4096,
            frames: 4096,
            headroom: 0,
            tx_metadata: 0,
        };
        Self { geometry, huge_pages: HugePages::No }
    }
}

impl UmemBuilder {
    /// How many frames; at most 2³¹. Not for memory that is given.
    #[must_use]
    pub fn frames(mut self, frames: u32) -> Self {
        self.geometry.frames = frames;
        self
    }

    /// Bytes of a frame: from 2048 to a page, even, and a power of two if chunks are aligned.
    #[must_use]
    pub fn chunk_size(mut self, bytes: u32) -> Self {
        self.geometry.chunk_size = bytes;
        self
    }

    /// Aligned chunks, or those of any size.
    #[must_use]
    pub fn chunks(mut self, chunks: Chunks) -> Self {
        self.geometry.chunks = chunks;
        self
    }

    /// Bytes that are free before a received packet besides the kernel's own 256, and before one to send.
    #[must_use]
    pub fn headroom(mut self, bytes: u32) -> Self {
        self.geometry.headroom = bytes;
        self
    }

    /// A place for metadata ([`TxMetadata`](super::TxMetadata)) before each packet to send: 0, or from 24 bytes to 248
    /// in steps of 8. Since kernel 6.8.
    #[must_use]
    pub fn tx_metadata(mut self, bytes: u32) -> Self {
        self.geometry.tx_metadata = bytes;
        self
    }

    /// Whether its memory is to be of huge pages. Not for memory that is given.
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// In memory of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Umem`] for the kernel's rule that is broken; [`ErrorKind::Os`] if there is no memory.
    pub fn build(self) -> Result<Umem> {
        let kernel = Kernel::default();
        self.check(&kernel)?;
        let (mapping, pages) = self.map(&kernel).during("map", self.object())?;
        let memory = Memory::Own { mapping, pages };
        Ok(Umem::over(memory, self.geometry, pages == Pages::Pool))
    }

    /// In the memory of a file, as of memfd_create(2), from its beginning to its end. Other processes may map it too.
    ///
    /// # Errors
    /// As for [`build`](Self::build), and if the file cannot be mapped or has another size than whole chunks.
    pub fn build_shared(mut self, file: &OwnedFd) -> Result<Umem<Shared>> {
        let kernel = Kernel::default();
        let length = kernel.file_length(file.as_fd()).during("measure", self.object())?;
        self.fit(length)?;
        self.check(&kernel)?;
        let backing = Backing::Shared(file.as_fd(), 0);
        let mapping = kernel.map(length, backing).during("map", self.object())?;
        self.fits_memory(mapping.base(), length)?;
        Ok(Umem::over(Memory::File(mapping), self.geometry, false))
    }

    /// In memory that is given.
    ///
    /// # Errors
    /// As for [`build`](Self::build), and if the memory does not begin on a page or is not of whole chunks.
    ///
    /// # Safety
    /// The memory is initialized, stays mapped, and is used by nobody else, for as long as the UMEM, a socket of it, or
    /// the kernel uses it: the kernel may go on for some time after the last socket is closed. It is safe to unmap it
    /// then, but not to use it for something else.
    pub unsafe fn build_raw(mut self, base: NonNull<u8>, length: usize) -> Result<Umem> {
        let kernel = Kernel::default();
        self.fit(length)?;
        self.check(&kernel)?;
        self.fits_memory(base, length)?;
        Ok(Umem::over(Memory::Raw(base), self.geometry, false))
    }

    fn object(&self) -> String {
        format!("a UMEM of {} chunks of {} bytes", self.geometry.frames, self.geometry.chunk_size)
    }

    fn check(&self, kernel: &Kernel) -> Result<()> {
        self.geometry.check(kernel.page_size()).during("lay out", self.object())
    }

    /// As many frames as the memory has room for.
    fn fit(&mut self, length: usize) -> Result<()> {
        let chunk_size = self.geometry.chunk_size;
        let frames = length.checked_div(chunk_size as usize).unwrap_or(0);
        let rule = match u32::try_from(frames) {
            Ok(0) => UmemRule::NoFrames { length, chunk_size },
            Ok(frames) => {
                self.geometry.frames = frames;
                return Ok(());
            }
            Err(_) => UmemRule::TooMuch { frames, chunk_size },
        };
        Err(Error::new("lay out", self.object(), rule))
    }

    fn fits_memory(&self, base: NonNull<u8>, length: usize) -> Result<()> {
        let (address, chunk_size) = (base.addr().get(), self.geometry.chunk_size);
        let page = Kernel::default().page_size() as usize;
        if address.is_multiple_of(page) && length.is_multiple_of(chunk_size as usize) {
            return Ok(());
        }
        Err(Error::new("lay out", self.object(), UmemRule::Memory { address, length, chunk_size }))
    }

    fn map(&self, kernel: &Kernel) -> io::Result<(Mapping, Pages)> {
        let length = usize::try_from(self.geometry.length()).map_err(io::Error::other)?;
        let map = |length, pages| Ok((kernel.map(length, Backing::Anonymous(pages))?, pages));
        if self.huge_pages == HugePages::No {
            return map(length, Pages::Ordinary);
        }
        let whole = |page| map(length.next_multiple_of(page), Pages::Pool);
        match kernel.huge_page_size().and_then(whole) {
            Err(error) if self.huge_pages == HugePages::Try => {
                log::info!(target: "oxdp::xsk", "no huge pages of the pool for a UMEM: {error}");
                map(length, Pages::Transparent)
            }
            other => other,
        }
    }
}

impl From<UmemRule> for ErrorKind {
    fn from(rule: UmemRule) -> Self {
        Self::Umem(rule)
    }
}
