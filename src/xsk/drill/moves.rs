//! What changes hands between the program and the rings.

use super::choices::Choices;
use super::tokens::{Token, Tokens};
use super::{Rig, Rings, unpoisoned};
use crate::ErrorKind;
use crate::xsk::{FillBatch, Fragments, PacketView, Refusal, TxBatch};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Rig {
    pub(super) fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(18) {
            0 => self.take_frame(choices),
            1 => self.tokens.alter_one(choices),
            2 => self.let_go(choices),
            3 | 4 => self.kernel.receive(choices, self.multi_buffer),
            5 | 6 => self.kernel.send(choices),
            7 if self.rules.lies => self.kernel.lie(choices),
            7 => self.kernel.flag(choices),
            8 if choices.once_in(4) => self.reopen(choices),
            _ => self.use_ring(choices),
        }
    }

    fn use_ring(&mut self, choices: &mut Choices<'_>) {
        let Some(mut rings) = self.rings.take() else { return };
        match choices.below(9) {
            0 => self.push_to_fill(&mut rings, choices),
            1 => self.fill_from_cache(&mut rings, choices),
            2 => self.peek(&mut rings, choices),
            3 => self.recycle(&mut rings, choices),
            4 => self.packets(&mut rings, choices),
            5 => self.push_to_tx(&mut rings, choices),
            6 => self.complete(&mut rings, choices),
            7 => self.recycle_completed(&mut rings, choices),
            _ => self.drain(&mut rings),
        }
        let _ = (rings.fill.wake(), rings.tx.wake(), rings.tx.pending());
        self.rings = Some(rings);
    }

    fn take_frame(&mut self, choices: &mut Choices<'_>) {
        let frame = if choices.below(2) == 0 { self.umem.frame() } else { self.cache.take() };
        if let Some(frame) = frame {
            self.tokens.add(Token::Frame(frame));
        }
    }

    fn let_go(&mut self, choices: &mut Choices<'_>) {
        match choices.below(8) {
            0 if self.rules.forgets => {
                if let Some(token) = self.tokens.take(choices) {
                    std::mem::forget(token);
                    self.lost += 1;
                }
            }
            1 => {
                if let Some(frame) = self.foreign.frame() {
                    self.cache.put(frame);
                }
            }
            2 => self.cache = self.umem.cache(),
            3 | 4 => match self.tokens.take(choices) {
                Some(Token::Frame(frame)) => self.cache.put(frame),
                Some(token) => self.tokens.add(token),
                None => {}
            },
            _ => self.tokens.drop_one(choices),
        }
    }

    fn push_to_fill(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        let Some(mut batch) = unpoisoned(rings.fill.reserve(choices.below(6)), lied) else {
            return;
        };
        if let Some(Err(rejected)) = self.foreign.frame().map(|frame| batch.push(frame)) {
            assert_eq!(rejected.refusal, Refusal::OtherUmem);
        }
        let mut pushed = 0;
        while choices.below(4) > 0 && push_one(&mut batch, &mut self.tokens, choices) {
            pushed += 1;
        }
        match choices.below(4) {
            0 => drop(batch),
            1 if self.rules.forgets => {
                std::mem::forget(batch);
                self.lost += u64::from(pushed);
            }
            _ => assert_eq!(batch.commit(), pushed),
        }
    }

    fn fill_from_cache(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let mut foreign = self.foreign.cache();
        let lied = self.kernel.has_lied();
        let taken = unpoisoned(rings.fill.fill(&mut foreign, 2), lied);
        assert!(matches!(taken, None | Some(0)));
        let _ = unpoisoned(rings.fill.fill(&mut self.cache, choices.below(6)), lied);
    }

    fn peek(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        if self.multi_buffer {
            let kind = rings.rx.peek(1).map(drop).map_err(|error| error.kind().to_string());
            assert_eq!(kind, Err(ErrorKind::MultiBuffer.to_string()));
            return;
        }
        let _ = unpoisoned(rings.rx.is_empty(), lied);
        let Some(mut batch) = unpoisoned(rings.rx.peek(choices.below(6)), lied) else { return };
        while choices.below(4) > 0 {
            let Some(packet) = batch.next() else { break };
            self.tokens.add(Token::Packet(packet));
        }
        if self.rules.forgets && choices.once_in(8) {
            self.lost += batch.len() as u64;
            std::mem::forget(batch);
        }
    }

    fn recycle(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        if self.multi_buffer {
            return;
        }
        let Some(mut batch) = unpoisoned(rings.rx.peek(choices.below(6)), lied) else { return };
        let Some(mut fill) = unpoisoned(rings.fill.reserve(choices.below(6)), lied) else { return };
        let before = batch.len();
        let mut until_panic = choices.below(8);
        let done = catch_unwind(AssertUnwindSafe(|| {
            batch.recycle(&mut fill, |view| {
                look(view);
                until_panic =
                    until_panic.checked_sub(1).unwrap_or_else(|| resume_unwind(Box::new(())));
            })
        }));
        let recycled = before - batch.len();
        assert!(done.is_err() || done.is_ok_and(|done| done as usize == recycled));
        if self.rules.forgets && choices.once_in(8) {
            self.lost += batch.len() as u64;
            std::mem::forget(batch);
        }
        self.settle(fill, recycled, choices);
    }

    fn packets(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        // It may be full of a packet without an end, too.
        let may_be_poisoned = self.kernel.has_lied() || self.multi_buffer;
        let most = choices.below(4) as usize;
        let Some(batch) = unpoisoned(rings.rx.packets(most), may_be_poisoned) else { return };
        for packet in batch {
            self.tokens.extend(packet.into_iter().map(Token::Packet));
        }
    }

    fn push_to_tx(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        let Some(mut batch) = unpoisoned(rings.tx.reserve(choices.below(6)), lied) else { return };
        let mut pushed = 0;
        while choices.below(4) > 0 {
            pushed += match choices.below(2) {
                0 => send_one(&mut batch, &mut self.tokens, choices),
                _ => send_fragments(&mut batch, &mut self.tokens, choices),
            };
        }
        match choices.below(4) {
            0 => drop(batch),
            1 if self.rules.forgets => {
                std::mem::forget(batch);
                self.lost += u64::from(pushed);
            }
            _ => assert_eq!(batch.commit(), pushed),
        }
    }

    fn complete(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        let _ = unpoisoned(rings.completion.is_empty(), lied);
        let batch = unpoisoned(rings.completion.peek(choices.below(6)), lied);
        let Some(mut batch) = batch else { return };
        while choices.below(4) > 0 {
            let Some(completed) = batch.next() else { break };
            self.tokens.add(Token::Completed(completed));
        }
        if self.rules.forgets && choices.once_in(8) {
            self.lost += batch.len() as u64;
            std::mem::forget(batch);
        }
    }

    fn recycle_completed(&mut self, rings: &mut Rings, choices: &mut Choices<'_>) {
        let lied = self.kernel.has_lied();
        let batch = unpoisoned(rings.completion.peek(choices.below(6)), lied);
        let Some(mut batch) = batch else { return };
        let Some(mut fill) = unpoisoned(rings.fill.reserve(choices.below(6)), lied) else { return };
        let recycled = batch.recycle(&mut fill) as usize;
        self.settle(fill, recycled, choices);
    }

    fn drain(&mut self, rings: &mut Rings) {
        let _ = unpoisoned(rings.completion.drain(&mut self.cache), self.kernel.has_lied());
    }

    /// What went from one ring to another is given, taken back or forgotten; the rings know of it in each case.
    fn settle(&self, fill: FillBatch<'_>, recycled: usize, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 => drop(fill),
            1 if self.rules.forgets => std::mem::forget(fill),
            _ => assert_eq!(fill.commit() as usize, recycled),
        }
    }

    /// Closes the rings, perhaps takes back what was in them, and makes others.
    fn reopen(&mut self, choices: &mut Choices<'_>) {
        drop(self.rings.take());
        if choices.below(2) == 0 {
            self.cache = self.umem.cache();
            self.tokens = Tokens::default();
        }
        let before = self.umem.census();
        let reclaimed = self.umem.reclaim();
        let after = self.umem.census();
        assert!(reclaimed == 0 || before.held == 0 && after.free == after.total);
        self.kernel = self.kernel.again(u32::MAX - choices.below(8));
        self.rings = Some(Rings::new(&self.kernel, &self.umem, self.multi_buffer));
    }
}

fn look(mut view: PacketView<'_>) {
    let length = view.len() as usize;
    if let Ok(data) = view.data_mut() {
        assert_eq!(data.len(), length);
        data.fill(0);
    }
    let _ = view.data();
}

fn push_one(batch: &mut FillBatch<'_>, tokens: &mut Tokens, choices: &mut Choices<'_>) -> bool {
    let rejected = match tokens.take(choices) {
        Some(Token::Frame(frame)) => batch.push(frame).err().map(|no| Token::Frame(no.item)),
        Some(Token::Packet(packet)) => batch.push(packet).err().map(|no| Token::Packet(no.item)),
        other => {
            tokens.extend(other);
            return false;
        }
    };
    let is_taken = rejected.is_none();
    tokens.extend(rejected);
    is_taken
}

fn send_one(batch: &mut TxBatch<'_>, tokens: &mut Tokens, choices: &mut Choices<'_>) -> u32 {
    let Some(packet) = tokens.take_packet(choices) else { return 0 };
    match batch.push(packet) {
        Ok(()) => 1,
        Err(rejected) => {
            tokens.add(Token::Packet(rejected.item));
            0
        }
    }
}

fn send_fragments(batch: &mut TxBatch<'_>, tokens: &mut Tokens, choices: &mut Choices<'_>) -> u32 {
    let Some(first) = tokens.take_packet(choices) else { return 0 };
    let mut packet = Fragments::from(first);
    for _ in 0..choices.below(3) {
        if let Some(fragment) = tokens.take_packet(choices) {
            packet.push(fragment);
        }
    }
    let count = u32::try_from(packet.count()).unwrap_or(u32::MAX);
    match batch.push_fragments(packet) {
        Ok(()) => count,
        Err(rejected) => {
            tokens.extend(rejected.item.into_iter().map(Token::Packet));
            0
        }
    }
}
