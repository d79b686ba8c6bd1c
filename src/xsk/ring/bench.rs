//! The door for `benches/xsk_rings.rs`: rings without a socket, and a kernel that only moves its indices.
//!
//! A file stands in for the socket. Rings are mapped from it at the places where a socket has them, and the kernel's ends
//! are other mappings of the same pages, as they are in truth.

#![allow(clippy::similar_names, reason = "fill and file, which both are called so")]

use super::anchor::{self, Anchor};
use super::ends::{Consumer, Producer, transfer};
use super::memory::{Descriptor, Mapped, RingMemory, Word};
use super::{FillRing, RxRing};
use crate::sys::Kernel;
use crate::sys::mmap::Mapping;
use crate::sys::xsk::{RingKind, RingOffsets};
use crate::xsk::socket_core::{Settings, SocketCore};
use crate::xsk::umem::Umem;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

/// As kernels have them.
const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 128, flags: 196, entries: 320 };
/// What a packet has, in a chunk.
const PACKET: Descriptor = Descriptor { address: 256, length: 64, options: 0 };

/// The other end of an RX ring and a fill ring.
#[derive(Debug)]
pub struct Simulation {
    rx: Mapped<Descriptor>,
    fill: Mapped<u64>,
    /// What has been received.
    index: u32,
    _mappings: (Mapping, Mapping),
}

impl Simulation {
    /// In an empty file; rings of `size` slots, a power of two, that stand at `index`.
    ///
    /// # Errors
    /// If memory is missing.
    pub fn new(backing: &OwnedFd, umem: &Umem, size: u32, index: u32) -> io::Result<Self> {
        File::from(backing.try_clone()?).set_len(1 << 33)?;
        let kernel = Kernel::default();
        let (rx_mapping, rx) = anchor::map(&kernel, backing.as_fd(), RingKind::Rx, size, OFFSETS)?;
        let (fill_mapping, fill) =
            anchor::map(&kernel, backing.as_fd(), RingKind::Fill, size, OFFSETS)?;
        for slot in 0..size {
            let base = u64::from(slot % umem.frames()) * u64::from(umem.chunk_size());
            let packet = Descriptor { address: base + PACKET.address, ..PACKET };
            // SAFETY: below the size, and nobody else has mapped it yet.
            unsafe { rx.write(slot, packet) };
        }
        for word in [Word::Producer, Word::Consumer] {
            rx.store(word, index, Release);
            fill.store(word, index, Release);
        }
        Ok(Self { rx, fill, index, _mappings: (rx_mapping, fill_mapping) })
    }

    /// Takes all frames from the fill ring, and receives so many packets.
    #[inline(never)]
    pub fn advance(&mut self, packets: u32) {
        self.fill.store(Word::Consumer, self.index, Release);
        self.index = self.index.wrapping_add(packets);
        self.rx.store(Word::Producer, self.index, Release);
    }
}

/// Rings as sockets have them.
///
/// # Errors
/// If memory is missing.
pub fn rings(backing: &OwnedFd, umem: &Umem, size: u32) -> io::Result<(RxRing, FillRing)> {
    let settings = Settings { flags: 0, umem_flags: 0 };
    let core = Arc::new(SocketCore::new(backing.try_clone()?, Kernel::default(), settings));
    let (anchor, memory) = Anchor::new(&core, umem.owner(), RingKind::Rx, size, OFFSETS)?;
    // SAFETY: of the anchor, with as many slots; only the simulation has the other end.
    let rx = unsafe { RxRing::new(anchor, memory, size, false) };
    let (anchor, memory) = Anchor::new(&core, umem.owner(), RingKind::Fill, size, OFFSETS)?;
    // SAFETY: as above.
    let fill = unsafe { FillRing::new(anchor, memory, size) };
    Ok((rx, fill))
}

/// The two ends below those rings.
#[derive(Debug)]
pub struct RawRings {
    rx: Consumer<Mapped<Descriptor>>,
    fill: Producer<Mapped<u64>>,
    _mappings: (Mapping, Mapping),
}

impl RawRings {
    /// Of the same file as the simulation.
    ///
    /// # Errors
    /// If memory is missing.
    pub fn new(backing: &OwnedFd, size: u32) -> io::Result<Self> {
        let kernel = Kernel::default();
        let (rx_mapping, rx) = anchor::map(&kernel, backing.as_fd(), RingKind::Rx, size, OFFSETS)?;
        let (fill_mapping, fill) =
            anchor::map(&kernel, backing.as_fd(), RingKind::Fill, size, OFFSETS)?;
        // SAFETY: with as many slots; only the simulation has the other end.
        let rx = unsafe { Consumer::new(size, rx) };
        // SAFETY: as above.
        let fill = unsafe { Producer::new(size, fill) };
        Ok(Self { rx, fill, _mappings: (rx_mapping, fill_mapping) })
    }

    /// Receives at most `batch` packets and gives their frames back; their bytes.
    #[inline(never)]
    pub fn transfer(&mut self, batch: u32) -> u64 {
        let Ok(mut reader) = self.rx.reader(batch) else { return 0 };
        let Ok(mut writer) = self.fill.writer(reader.left()) else { return 0 };
        let mut bytes = 0;
        transfer(&mut reader, &mut writer, |descriptor| {
            bytes += u64::from(descriptor.length);
            descriptor.address
        });
        writer.publish();
        bytes
    }

    /// The same, one by one.
    #[inline(never)]
    pub fn step(&mut self, batch: u32) -> u64 {
        let Ok(mut reader) = self.rx.reader(batch) else { return 0 };
        let Ok(mut writer) = self.fill.writer(reader.left()) else { return 0 };
        let mut bytes = 0;
        while writer.left() > 0
            && let Some(descriptor) = reader.read()
        {
            writer.write(descriptor.address);
            bytes += u64::from(descriptor.length);
        }
        writer.publish();
        bytes
    }
}
