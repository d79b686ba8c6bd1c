//! How memory is cut into frames: the kernel's rules, and where an address of the kernel's lies. Pure.

use crate::sys::xsk::XDP_UMEM_UNALIGNED_CHUNK_FLAG;

/// What the kernel keeps free before a packet that it receives; include/uapi/linux/bpf.h.
pub const XDP_PACKET_HEADROOM: u32 = 256;
/// The least that a chunk can have; include/net/xdp_sock_drv.h.
pub const MIN_CHUNK_SIZE: u32 = 2048;
/// Where the offset is in an address of an unaligned chunk; `XSK_UNALIGNED_BUF_OFFSET_SHIFT`.
const OFFSET_SHIFT: u32 = 48;
/// What newer kernels want to be left of a chunk behind both headrooms, where a cache line has 64 bytes.
const MIN_ROOM: u32 = 448;
const BASE_MASK: u64 = (1 << OFFSET_SHIFT) - 1;
/// `xsk_tx_metadata` since kernel 6.15 (with launch time).
pub(crate) const TX_METADATA_SIZE: u32 = 24;

/// Which chunk sizes are possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chunks {
    /// A power of two, from 2048 bytes to a page. The kernel finds the start of a chunk by itself.
    #[default]
    Aligned,
    /// Any even size from 2048 bytes to a page. In the rings an address carries the offset into its chunk (in its upper 16 bits).
    Unaligned,
}

/// A rule for UMEMs that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UmemRule {
    /// net/xdp/xdp_umem.c: `XDP_UMEM_MIN_CHUNK_SIZE`, and no more than a page.
    #[error("a chunk has from {MIN_CHUNK_SIZE} bytes to {page} (a page), not {chunk_size}")]
    ChunkSize {
        /// Bytes that were asked for.
        chunk_size: u32,
        /// Bytes in a page.
        page: u32,
    },
    /// Aligned chunks only.
    #[error("a chunk of {chunk_size} bytes is no power of two; unaligned chunks can have any size")]
    ChunkPowerOfTwo {
        /// Bytes that were asked for.
        chunk_size: u32,
    },
    /// Unaligned chunks too. A frame would begin at an odd address, and newer kernels (6.18 was seen to) clear the lowest
    /// bit of an address in the completion ring.
    #[error("a chunk of {chunk_size} bytes has an odd size")]
    ChunkOdd {
        /// Bytes that were asked for.
        chunk_size: u32,
    },
    /// The kernel's own headroom and the caller's must leave something of the chunk: a byte, and in
    /// kernels since 2026 (6.1.y and 6.18.y were seen to) 448: `skb_shared_info`, and a packet of 128.
    #[error(
        "a headroom of {headroom} bytes and the kernel's {XDP_PACKET_HEADROOM} leave too little of a chunk of {chunk_size}"
    )]
    Headroom {
        /// Bytes that were asked for.
        headroom: u32,
        /// Bytes of a chunk.
        chunk_size: u32,
    },
    /// net/xdp/xdp_umem.c: `tx_metadata_len`.
    #[error(
        "TX metadata has a length of 0 or of {TX_METADATA_SIZE} to 248 bytes, in steps of 8, not {length}"
    )]
    TxMetadataLength {
        /// Bytes that were asked for.
        length: u32,
    },
    /// Memory for not a single chunk.
    #[error("no chunk of {chunk_size} bytes fits into {length} bytes")]
    NoFrames {
        /// Bytes of memory.
        length: usize,
        /// Bytes of a chunk.
        chunk_size: u32,
    },
    /// More than addresses and counters hold.
    #[error("{frames} chunks of {chunk_size} bytes are more than 2^31 chunks or 2^47 bytes")]
    TooMuch {
        /// Chunks.
        frames: usize,
        /// Bytes of a chunk.
        chunk_size: u32,
    },
    /// The memory must begin on a page, and end with a whole chunk.
    #[error(
        "the memory must begin on a page and be a multiple of {chunk_size} bytes (a chunk); it has {length} at {address:#x}"
    )]
    Memory {
        /// Where it begins.
        address: usize,
        /// Bytes.
        length: usize,
        /// Bytes of a chunk.
        chunk_size: u32,
    },
}

/// How a UMEM is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) chunks: Chunks,
    /// Bytes.
    pub(crate) chunk_size: u32,
    pub(crate) frames: u32,
    /// Bytes between the kernel's own headroom and a packet.
    pub(crate) headroom: u32,
    /// Bytes before a packet to send; 0 for none.
    pub(crate) tx_metadata: u32,
}

/// A place in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the frame begins, from the beginning of the memory.
    pub(crate) base: u64,
    /// From there.
    pub(crate) offset: u32,
}

impl Geometry {
    /// Checks everything that the kernel wants, so that a refusal has a name.
    pub(crate) fn check(&self, page: u32) -> Result<(), UmemRule> {
        let Self { chunk_size, headroom, frames, tx_metadata: length, .. } = *self;
        if !(MIN_CHUNK_SIZE..=page).contains(&chunk_size) {
            return Err(UmemRule::ChunkSize { chunk_size, page });
        }
        if self.chunks == Chunks::Aligned && !chunk_size.is_power_of_two() {
            return Err(UmemRule::ChunkPowerOfTwo { chunk_size });
        }
        if !chunk_size.is_multiple_of(2) {
            return Err(UmemRule::ChunkOdd { chunk_size });
        }
        if headroom >= chunk_size - XDP_PACKET_HEADROOM {
            return Err(UmemRule::Headroom { headroom, chunk_size });
        }
        if length != 0 && !((TX_METADATA_SIZE..256).contains(&length) && length.is_multiple_of(8)) {
            return Err(UmemRule::TxMetadataLength { length });
        }
        if frames == 0 {
            return Err(UmemRule::NoFrames { length: 0, chunk_size });
        }
        if frames > 1 << 31 || self.length() >= 1 << 47 {
            return Err(UmemRule::TooMuch { frames: frames as usize, chunk_size });
        }
        Ok(())
    }

    /// Whether only older kernels take such a headroom.
    pub(crate) fn is_tight(&self) -> bool {
        self.headroom > self.chunk_size - XDP_PACKET_HEADROOM - MIN_ROOM
    }

    /// Bytes in all.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        u64::from(self.frames) * u64::from(self.chunk_size)
    }

    /// For `struct xdp_umem_reg`.
    pub(crate) fn flags(&self) -> u32 {
        match self.chunks {
            Chunks::Aligned => 0,
            Chunks::Unaligned => XDP_UMEM_UNALIGNED_CHUNK_FLAG,
        }
    }

    /// Where an address from a ring lies, if it and the bytes behind it are within one frame.
    #[inline]
    pub(crate) fn locate(&self, address: u64, length: u32) -> Option<Place> {
        match self.chunks {
            Chunks::Aligned => {
                let offset = low(address) & (self.chunk_size - 1);
                // Before the end of the memory if its frame is, whose size divides that.
                let fits = length <= self.chunk_size - offset && address < self.length();
                fits.then(|| Place { base: address - u64::from(offset), offset })
            }
            Chunks::Unaligned => self.unaligned(address, length),
        }
    }

    #[inline]
    fn unaligned(&self, address: u64, length: u32) -> Option<Place> {
        let place = Place { base: address & BASE_MASK, offset: low(address >> OFFSET_SHIFT) };
        let fits = u64::from(place.offset) + u64::from(length) <= u64::from(self.chunk_size);
        // Or it would lie in two frames.
        let is_base = place.base.is_multiple_of(u64::from(self.chunk_size));
        (fits && place.base < self.length() && is_base).then_some(place)
    }

    /// Where the frame begins that an address from a ring is in.
    #[inline]
    pub(crate) fn base_of(&self, address: u64) -> Option<u64> {
        match self.chunks {
            Chunks::Aligned => {
                let offset = address & u64::from(self.chunk_size - 1);
                (address < self.length()).then_some(address - offset)
            }
            Chunks::Unaligned => self.unaligned(address, 0).map(|place| place.base),
        }
    }

    /// The address of a place, as rings have it.
    #[inline]
    pub(crate) fn address(&self, place: Place) -> u64 {
        match self.chunks {
            Chunks::Aligned => place.base + u64::from(place.offset),
            Chunks::Unaligned => place.base | u64::from(place.offset) << OFFSET_SHIFT,
        }
    }

    /// Where a frame begins.
    #[inline]
    pub(crate) fn base(&self, frame: u32) -> u64 {
        u64::from(frame) * u64::from(self.chunk_size)
    }

    /// Where a packet to send begins, so that something can be put before it; bytes from the beginning of its frame.
    #[inline]
    pub(crate) fn tx_offset(&self) -> u32 {
        self.headroom.max(self.tx_metadata)
    }

    /// Where in its frame a packet of so many bytes begins, if it fits.
    #[inline]
    pub(crate) fn packet_offset(&self, length: u32) -> Option<u32> {
        let offset = self.tx_offset();
        self.has_room(offset, length).then_some(offset)
    }

    /// Whether so many bytes from an offset on are within a frame.
    #[inline]
    pub(crate) fn has_room(&self, offset: u32, length: u32) -> bool {
        // The end of a frame is the next frame's address.
        let fits = u64::from(offset) + u64::from(length) <= u64::from(self.chunk_size);
        fits && offset != self.chunk_size
    }
}

/// The lower half.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(chunks: Chunks, chunk_size: u32) -> Geometry {
        Geometry { chunks, chunk_size, frames: 5, headroom: 0, tx_metadata: 0 }
    }

    #[test]
    fn each_rule_has_its_name() {
        let good = geometry(Chunks::Aligned, 4096);
        assert_eq!(good.check(4096), Ok(()));
        assert_eq!(geometry(Chunks::Unaligned, 3000).check(4096), Ok(()));
        for chunk_size in [0, 1, 2047, 4097, 8192] {
            let rule = UmemRule::ChunkSize { chunk_size, page: 4096 };
            assert_eq!(Geometry { chunk_size, ..good }.check(4096), Err(rule));
        }
        let rule = UmemRule::ChunkPowerOfTwo { chunk_size: 3000 };
        assert_eq!(geometry(Chunks::Aligned, 3000).check(4096), Err(rule));
        let rule = UmemRule::ChunkOdd { chunk_size: 3001 };
        assert_eq!(geometry(Chunks::Unaligned, 3001).check(4096), Err(rule));
        let rule = UmemRule::Headroom { headroom: 3840, chunk_size: 4096 };
        assert_eq!(Geometry { headroom: 3840, ..good }.check(4096), Err(rule));
        assert_eq!(Geometry { headroom: 3839, ..good }.check(4096), Ok(()));
        for length in [1, 8, 16, 23, 25, 256] {
            let rule = UmemRule::TxMetadataLength { length };
            assert_eq!(Geometry { tx_metadata: length, ..good }.check(4096), Err(rule));
        }
        let rule = UmemRule::NoFrames { length: 0, chunk_size: 4096 };
        assert_eq!(Geometry { frames: 0, ..good }.check(4096), Err(rule));
        assert!(Geometry { frames: u32::MAX, ..good }.check(4096).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_is_located_leaves_its_frame(
            unaligned: bool, address: u64, near in 0..40_000_u64, far: bool, length: u32, short in 0..5000_u32, long: bool,
        ) {
            let (chunks, size) = if unaligned { (Chunks::Unaligned, 3000) } else { (Chunks::Aligned, 4096) };
            let geometry = geometry(chunks, size);
            let address = if far { address } else { near };
            prop_assert_eq!(geometry.base_of(address), geometry.locate(address, 0).map(|place| place.base));
            let length = if long { length } else { short };
            if let Some(place) = geometry.locate(address, length) {
                prop_assert!(place.base.is_multiple_of(u64::from(size)));
                prop_assert!(place.base < geometry.length());
                prop_assert!(u64::from(place.offset) + u64::from(length) <= u64::from(size));
                prop_assert_eq!(geometry.address(place), address);
                prop_assert_eq!(geometry.base_of(address), Some(place.base));
            }
        }

        #[test]
        fn every_place_in_a_frame_is_found(unaligned: bool, frame in 0..5_u32, offset in 0..3000_u32) {
            let (chunks, size) = if unaligned { (Chunks::Unaligned, 3000) } else { (Chunks::Aligned, 4096) };
            let geometry = geometry(chunks, size);
            let place = Place { base: geometry.base(frame), offset };
            prop_assert_eq!(geometry.locate(geometry.address(place), size - offset), Some(place));
            prop_assert_eq!(geometry.locate(geometry.address(place), size - offset + 1), None);
        }
    }
}
