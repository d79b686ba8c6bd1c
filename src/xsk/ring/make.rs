//! Rings of sockets, made and mapped.

use super::anchor::Anchor;
use super::{CompletionRing, FillRing, RxRing, TxRing};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::xsk::{MmapOffsets, RingKind};
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::{Kind, Umem};
use std::os::fd::AsFd;
use std::sync::Arc;

/// More than any kernel gives memory for.
const MAX_SLOTS: u32 = 1 << 26;

/// Makes the rings of one socket, each once: the kernel refuses a second (`xsk_init_queue`).
#[derive(Debug)]
pub(crate) struct RingMaker<'a, K: Kind> {
    pub(crate) socket: &'a Arc<SocketCore>,
    pub(crate) umem: &'a Umem<K>,
    offsets: MmapOffsets,
}

impl<'a, K: Kind> RingMaker<'a, K> {
    pub(crate) fn new(socket: &'a Arc<SocketCore>, umem: &'a Umem<K>) -> Result<Self> {
        let offsets = socket.kernel.xsk_offsets(socket.as_fd()).during("measure", "rings")?;
        Ok(Self { socket, umem, offsets })
    }

    pub(crate) fn fill(&self, size: u32) -> Result<FillRing<K>> {
        let (anchor, memory) = self.make(RingKind::Fill, size)?;
        // SAFETY: just made for it, with as many slots.
        Ok(unsafe { FillRing::new(anchor, memory, size) })
    }

    pub(crate) fn completion(&self, size: u32) -> Result<CompletionRing<K>> {
        let (anchor, memory) = self.make(RingKind::Completion, size)?;
        // SAFETY: as above.
        Ok(unsafe { CompletionRing::new(anchor, memory, size) })
    }

    pub(crate) fn rx(&self, size: u32, multi_buffer: bool) -> Result<RxRing<K>> {
        let (anchor, memory) = self.make(RingKind::Rx, size)?;
        // SAFETY: as above.
        Ok(unsafe { RxRing::new(anchor, memory, size, multi_buffer) })
    }

    pub(crate) fn tx(&self, size: u32) -> Result<TxRing<K>> {
        let (anchor, memory) = self.make(RingKind::Tx, size)?;
        // SAFETY: as above.
        Ok(unsafe { TxRing::new(anchor, memory, size) })
    }

    fn make<E: Copy>(
        &self,
        kind: RingKind,
        size: u32,
    ) -> Result<(Anchor, super::memory::Mapped<E>)> {
        let ring = name(kind);
        if !size.is_power_of_two() || size > MAX_SLOTS {
            return Err(Error::new("make", "a socket", ErrorKind::RingSize { ring, size }));
        }
        let object = || format!("a {ring} ring of {size} slots");
        let fd = self.socket.as_fd();
        self.socket.kernel.xsk_make_ring(fd, kind, size).during("make", object())?;
        Anchor::new(self.socket, self.umem.owner(), kind, size, self.offsets.of(kind))
            .during("map", object())
    }
}

fn name(kind: RingKind) -> &'static str {
    match kind {
        RingKind::Rx => "RX",
        RingKind::Tx => "TX",
        RingKind::Fill => "fill",
        RingKind::Completion => "completion",
    }
}
