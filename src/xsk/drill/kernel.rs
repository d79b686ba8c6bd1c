//! The kernel in tests: it does its work, or lies.

use super::choices::Choices;
use crate::xsk::ring::fake::FakeRing;
use crate::xsk::ring::memory::{Descriptor, XDP_PKT_CONTD};
use crate::xsk::umem::{Geometry, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Where a packet lands at least; `XDP_PACKET_HEADROOM`.
const HEADROOM: u32 = 256;

/// Its ends of the four rings, and what it has.
pub(super) struct FakeKernel {
    pub(super) fill: Arc<FakeRing<u64>>,
    pub(super) rx: Arc<FakeRing<Descriptor>>,
    pub(super) tx: Arc<FakeRing<Descriptor>>,
    pub(super) completion: Arc<FakeRing<u64>>,
    geometry: Geometry,
    /// Frames to receive into.
    empty: Vec<u64>,
    /// Addresses that were sent.
    sent: Vec<u64>,
    has_lied: bool,
}

impl FakeKernel {
    pub(super) fn new(geometry: Geometry, size: u32, start: u32) -> Self {
        Self {
            fill: FakeRing::new(size, start),
            rx: FakeRing::new(size, start.wrapping_add(1)),
            tx: FakeRing::new(size, start.wrapping_add(2)),
            completion: FakeRing::new(size, start.wrapping_add(3)),
            geometry,
            empty: Vec::new(),
            sent: Vec::new(),
            has_lied: false,
        }
    }

    /// Of new rings. What it had before, it has no more.
    pub(super) fn again(&self, start: u32) -> Self {
        Self { has_lied: self.has_lied, ..Self::new(self.geometry, self.rx.size(), start) }
    }

    pub(super) fn has_lied(&self) -> bool {
        self.has_lied
    }

    /// Takes frames, and receives packets into them.
    pub(super) fn receive(&mut self, choices: &mut Choices<'_>, multi_buffer: bool) {
        for _ in 0..self.fill.size() {
            let Some(address) = self.fill.take() else { break };
            let place = self.geometry.locate(address, 0);
            assert!(self.has_lied || place.is_some(), "{address:#x} is no frame");
            self.empty.extend(place.map(|place| place.base));
        }
        for _ in 0..choices.below(4) {
            let Some(base) = self.empty.pop() else { return };
            let offset = HEADROOM + self.geometry.headroom + choices.below(64);
            let length = 1 + choices.below(self.geometry.chunk_size - offset - 1);
            let options = if multi_buffer && choices.below(3) == 0 { XDP_PKT_CONTD } else { 0 };
            let address = self.geometry.address(Place { base, offset });
            if !self.rx.give(Descriptor { address, length, options }) {
                self.empty.push(base);
                return;
            }
        }
    }

    /// Takes packets, and completes some of them.
    pub(super) fn send(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..self.tx.size() {
            let Some(packet) = self.tx.take() else { break };
            self.check(packet);
            self.sent.push(packet.address);
        }
        for _ in 0..choices.below(4) {
            let Some(address) = self.sent.pop() else { return };
            if !self.completion.give(address) {
                self.sent.push(address);
                return;
            }
        }
    }

    /// Everything that makes the real one drop a packet without a word.
    fn check(&self, packet: Descriptor) {
        let place = self.geometry.locate(packet.address, packet.length);
        let is_good = place.is_some_and(|place| place.offset >= self.geometry.tx_metadata);
        let is_known = packet.options & !3 == 0;
        assert!(self.has_lied || is_good && is_known && packet.length > 0, "{packet:?}");
    }

    /// Gives what it has not, or says what cannot be.
    pub(super) fn lie(&mut self, choices: &mut Choices<'_>) {
        self.has_lied = true;
        match choices.below(6) {
            0 | 1 => drop(self.rx.give(self.false_packet(choices))),
            2 => drop(self.completion.give(self.false_packet(choices).address)),
            3 => jump(self.rx.producer(), choices),
            4 => jump(self.completion.producer(), choices),
            _ => match choices.below(2) {
                0 => jump(self.fill.consumer(), choices),
                _ => jump(self.tx.consumer(), choices),
            },
        }
    }

    fn false_packet(&self, choices: &mut Choices<'_>) -> Descriptor {
        let Geometry { chunk_size, frames, .. } = self.geometry;
        let base = self.geometry.base(choices.below(frames + 2));
        let address = match choices.below(6) {
            // Any place in a frame, which may be anybody's.
            0 => base + u64::from(choices.below(chunk_size)),
            1 => base | u64::from(choices.below(1 << 16)) << 48,
            2 => base,
            3 => base.wrapping_sub(1),
            4 => u64::MAX - u64::from(choices.below(chunk_size)),
            _ => choices.word(),
        };
        #[allow(clippy::cast_possible_truncation, reason = "any will do")]
        let length = match choices.below(3) {
            0 => choices.below(chunk_size + 2),
            1 => 0,
            _ => choices.word() as u32,
        };
        Descriptor { address, length, options: choices.below(8) }
    }

    pub(super) fn flag(&mut self, choices: &mut Choices<'_>) {
        self.fill.flags().store(choices.below(2), Relaxed);
        self.tx.flags().store(choices.below(2), Relaxed);
    }
}

fn jump(word: &AtomicU32, choices: &mut Choices<'_>) {
    #[allow(clippy::cast_possible_truncation, reason = "any will do")]
    let distance = match choices.below(3) {
        0 => choices.below(9),
        1 => choices.below(9).wrapping_neg(),
        _ => choices.word() as u32,
    };
    word.store(word.load(Relaxed).wrapping_add(distance), Relaxed);
}
