#![forbid(unsafe_code)]

//! Everything that a program can do with rings, frames and packets, in any order, against a kernel that is honest or lies:
//! for property tests and the fuzzer.
//!
//! What must hold: no panic; an honest kernel and a program that forgets nothing never meet in a frame; all frames are
//! accounted for; the memory goes when the last token does, and not before. Whoever touches what is not theirs is found
//! by a sanitizer.

mod choices;
mod kernel;
mod moves;
mod tokens;

use crate::error::{ErrorKind, Result};
use crate::xsk::ring::fake;
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::heap::Alive;
use crate::xsk::umem::{Chunks, Geometry};
use crate::xsk::{CompletionRing, FillRing, FrameCache, RxRing, TxRing, Umem};
use choices::Choices;
use kernel::FakeKernel;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokens::Tokens;

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The kernel lies.
    pub(crate) lies: bool,
    /// The program forgets batches and tokens (`mem::forget`), so that memory must stay.
    pub(crate) forgets: bool,
}

/// Goes through what the bytes ask for, and panics if a promise is broken.
pub(crate) fn drill(bytes: &[u8], rules: Rules) {
    let mut choices = Choices::new(bytes);
    let mut rig = Rig::new(&mut choices, rules);
    while !choices.is_empty() {
        rig.step(&mut choices);
        rig.check();
    }
    rig.end(&mut choices);
}

struct Rig {
    rules: Rules,
    alive: Alive,
    kernel: FakeKernel,
    multi_buffer: bool,
    umem: Umem,
    /// Of as many frames, for what belongs elsewhere.
    foreign: Umem,
    cache: FrameCache,
    rings: Option<Rings>,
    tokens: Tokens,
    /// Tokens that were forgotten.
    lost: u64,
}

struct Rings {
    fill: FillRing,
    rx: RxRing,
    tx: TxRing,
    completion: CompletionRing,
}

fn geometry(choices: &mut Choices<'_>) -> Geometry {
    let (chunks, chunk_size) = match choices.below(2) {
        0 => (Chunks::Aligned, 2048),
        _ => (Chunks::Unaligned, 2500),
    };
    let tx_metadata = if choices.below(2) == 0 { 0 } else { 24 };
    Geometry { chunks, chunk_size, frames: 6, headroom: choices.below(64), tx_metadata }
}

impl Rig {
    fn new(choices: &mut Choices<'_>, rules: Rules) -> Self {
        let (geometry, alive) = (geometry(choices), Alive::default());
        let start = u32::MAX - choices.below(8);
        let kernel = FakeKernel::new(geometry, 4, start);
        let umem = Umem::on_heap(geometry, &alive);
        let foreign = Umem::on_heap(geometry, &Alive::default());
        let (multi_buffer, cache) = (choices.below(2) == 1, umem.cache());
        let rings = Some(Rings::new(&kernel, &umem, multi_buffer));
        let tokens = Tokens::default();
        let lost = 0;
        Self { rules, alive, kernel, multi_buffer, umem, foreign, cache, rings, tokens, lost }
    }

    /// Only with an honest kernel, or when its lies are found out, is each frame in one pair of hands.
    fn is_exclusive(&self) -> bool {
        cfg!(feature = "audit") || !self.kernel.has_lied()
    }

    fn check(&self) {
        let census = self.umem.census();
        let held = self.tokens.len() as u64 + self.cache.len() as u64 + self.lost;
        assert_eq!(census.held, held, "{census:?}");
        if !self.kernel.has_lied() {
            let known = census.free + census.in_kernel + census.written_off + census.held;
            assert_eq!(known, census.total, "{census:?}");
            assert_eq!(census.written_off, 0);
        }
        if self.is_exclusive() {
            self.tokens.are_apart();
        }
        assert_eq!(self.alive.load(Ordering::Relaxed), 1);
    }

    /// Lets everything go, and looks when the memory goes.
    fn end(self, choices: &mut Choices<'_>) {
        let Self { alive, umem, cache, rings, mut tokens, lost, .. } = self;
        let is_alive = || alive.load(Ordering::Relaxed) == 1;
        drop(cache);
        match choices.below(2) {
            0 => drop((rings, umem)),
            _ => drop((umem, rings)),
        }
        while tokens.len() > 0 {
            assert!(is_alive(), "{} tokens are out", tokens.len());
            tokens.use_all();
            tokens.drop_one(choices);
        }
        assert_eq!(is_alive(), lost > 0, "{lost} tokens are lost");
    }
}

impl Rings {
    fn new(kernel: &FakeKernel, umem: &Umem, multi_buffer: bool) -> Self {
        let socket = Arc::new(SocketCore::fake());
        Self {
            fill: fake::fill(&kernel.fill, &socket, umem),
            rx: fake::rx(&kernel.rx, &socket, umem, multi_buffer),
            tx: fake::tx(&kernel.tx, &socket, umem, if multi_buffer { 18 } else { 1 }),
            completion: fake::completion(&kernel.completion, &socket, umem),
        }
    }
}

/// What a ring gives; nothing, if the kernel's index cannot be true.
fn unpoisoned<T>(result: Result<T>, may_be_poisoned: bool) -> Option<T> {
    match result {
        Ok(batch) => Some(batch),
        Err(error) => {
            let is_poisoned = matches!(error.kind(), ErrorKind::RingPoisoned { .. });
            assert!(may_be_poisoned && is_poisoned, "{error}");
            None
        }
    }
}

#[cfg(test)]
mod tests;
