//! Why something was given back.

#![forbid(unsafe_code)]

use super::umem::BadDescriptor;
use std::fmt;

/// Why a frame or a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The batch has no slot left.
    #[error("no slot is left in the ring")]
    Full,
    /// It belongs to another UMEM than the ring.
    #[error("it is of another UMEM")]
    OtherUmem,
    /// More bytes than its frame has.
    #[error("longer than its frame")]
    TooLong,
    /// Fewer bytes than are needed.
    #[error("shorter than that")]
    TooShort,
    /// The kernel takes no packet without a byte.
    #[error("a packet without a byte cannot be sent")]
    Empty,
    /// The UMEM has a place for metadata before each packet to send, and this one begins too early in its frame.
    #[error("no room for TX metadata before the packet")]
    NoRoomForMetadata,
    /// TX metadata for a packet that begins at an odd address: kernels since 6.18 clear the lowest bit of the address when
    /// they give the frame back, and the metadata would be looked for in the wrong place.
    #[error("TX metadata needs a packet that begins at an even address")]
    OddAddress,
    /// The checksum that TX metadata asks for would be behind the end of the packet, or of its first fragment. The kernel
    /// would refuse all sending from there on, and give the frame back again and again.
    #[error("the checksum is to be behind the end of the packet")]
    ChecksumOutside,
    /// TX metadata with a launch time, which kernels before 6.15 answer as [`ChecksumOutside`](Self::ChecksumOutside).
    #[error("launch times need kernel 6.15 or newer")]
    NoLaunchTime,
    /// More fragments than a packet can have.
    #[error("more fragments than the socket takes")]
    TooManyFragments,
    /// A packet of several fragments, and the socket has no multi-buffer.
    #[error("the socket was bound without multi-buffer")]
    NoMultiBuffer,
    /// The kernel has told a place outside of all frames.
    #[error(transparent)]
    BadDescriptor(#[from] BadDescriptor),
}

/// What was not taken, back in the hands of who gave it, and why.
#[derive(Debug)]
pub struct Rejected<T> {
    /// What was given.
    pub item: T,
    /// Why it was not taken.
    pub refusal: Refusal,
}

impl<T> Rejected<T> {
    #[cold]
    pub(crate) fn new(item: T, refusal: Refusal) -> Self {
        Self { item, refusal }
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.refusal, f)
    }
}

impl<T: fmt::Debug> std::error::Error for Rejected<T> {}
