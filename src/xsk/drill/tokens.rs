//! What a program has in its hands, and what it does with that alone.

use super::choices::Choices;
use crate::xsk::{Completed, Frame, Packet, RxMetadata, TxMetadata};

#[derive(Debug)]
pub(super) enum Token {
    Frame(Frame),
    Packet(Packet),
    Completed(Completed),
}

/// Each with the byte that fills it: whoever writes to the same frame is found out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    all: Vec<(Token, u8)>,
    last_stamp: u8,
}

struct Anything;

impl RxMetadata for Anything {
    const LENGTH: u32 = 40;

    fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 40 && bytes.iter().all(|byte| *byte > 0)).then_some(Self)
    }
}

impl Token {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Frame(frame) => Some(frame.bytes()),
            Self::Packet(packet) => packet.data().ok(),
            Self::Completed(_) => None,
        }
    }

    fn fill(&mut self, stamp: u8) {
        match self {
            Self::Frame(frame) => frame.bytes_mut().fill(stamp),
            Self::Packet(packet) => {
                if let Ok(data) = packet.data_mut() {
                    data.fill(stamp);
                }
            }
            Self::Completed(_) => {}
        }
    }

    /// Where its frame begins in memory.
    fn frame(&self) -> Option<usize> {
        let headroom = match self {
            Self::Packet(packet) => packet.headroom().ok()?,
            _ => 0,
        };
        Some(self.bytes()?.as_ptr().addr() - headroom as usize)
    }

    /// Does one of the things that can be done with it; nothing is left of what is in no frame.
    fn altered(self, choices: &mut Choices<'_>) -> Option<Self> {
        match self {
            Self::Frame(frame) => Some(alter_frame(frame, choices)),
            Self::Packet(packet) => alter_packet(packet, choices),
            Self::Completed(completed) => {
                let _ = completed.tx_timestamp();
                completed.into_frame().ok().map(Self::Frame)
            }
        }
    }
}

fn alter_frame(frame: Frame, choices: &mut Choices<'_>) -> Token {
    let chunk = frame.len();
    let offset = choices.below(chunk + 2);
    let result = match choices.below(4) {
        0 => frame.into_packet_at(offset, chunk.saturating_sub(offset)),
        1 => frame.into_packet_at(offset, choices.below(chunk + 2)),
        2 => frame.into_packet_of(&vec![1; choices.below(chunk + 2) as usize]),
        _ => frame.into_packet(choices.below(chunk + 2)),
    };
    match result {
        Ok(packet) => Token::Packet(packet),
        Err(rejected) => Token::Frame(rejected.item),
    }
}

fn alter_packet(mut packet: Packet, choices: &mut Choices<'_>) -> Option<Token> {
    let some = choices.below(packet.len().saturating_add(2).min(4096));
    // What is refused leaves the packet as it was.
    let _ = match choices.below(8) {
        0 => packet.trim_front(packet.len()),
        1 => packet.trim_front(some),
        2 => packet.extend_front(some),
        3 => packet.set_len(some),
        4 => packet.set_len(choices.below(4096)),
        5 => packet.set_tx_metadata(&TxMetadata::new().timestamp().launch_time(1)),
        6 => packet.rx_metadata::<Anything>().map(drop).map_err(Into::into),
        _ => return packet.into_frame().ok().map(Token::Frame),
    };
    if let (Ok(headroom), Ok(tailroom)) = (packet.headroom(), packet.tailroom()) {
        assert!(u64::from(headroom) + u64::from(packet.len()) + u64::from(tailroom) <= 2500);
    }
    Some(Token::Packet(packet))
}

fn is_all(bytes: &[u8], stamp: u8) -> bool {
    // Compared with itself, one byte on: quick even without optimization.
    bytes.split_first().is_none_or(|(first, rest)| *first == stamp && bytes.starts_with(rest))
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn add(&mut self, mut token: Token) {
        self.last_stamp = self.last_stamp.wrapping_add(1);
        token.fill(self.last_stamp);
        self.all.push((token, self.last_stamp));
    }

    pub(super) fn extend(&mut self, tokens: impl IntoIterator<Item = Token>) {
        for token in tokens {
            self.add(token);
        }
    }

    pub(super) fn take(&mut self, choices: &mut Choices<'_>) -> Option<Token> {
        let index = choices.below(u32::try_from(self.all.len()).unwrap_or(u32::MAX)) as usize;
        (index < self.all.len()).then(|| self.all.swap_remove(index).0)
    }

    /// One that can be sent, more or less.
    pub(super) fn take_packet(&mut self, choices: &mut Choices<'_>) -> Option<Packet> {
        match self.take(choices)? {
            Token::Packet(packet) => Some(packet),
            Token::Frame(frame) => match frame.into_packet(choices.below(300)) {
                Ok(packet) => Some(packet),
                Err(rejected) => {
                    self.add(Token::Frame(rejected.item));
                    None
                }
            },
            Token::Completed(completed) => {
                self.add(Token::Completed(completed));
                None
            }
        }
    }

    pub(super) fn drop_one(&mut self, choices: &mut Choices<'_>) {
        drop(self.take(choices));
    }

    pub(super) fn alter_one(&mut self, choices: &mut Choices<'_>) {
        if let Some(token) = self.take(choices).and_then(|token| token.altered(choices)) {
            self.add(token);
        }
    }

    /// Reads and writes all of them.
    pub(super) fn use_all(&mut self) {
        for (token, stamp) in &mut self.all {
            token.fill(*stamp);
        }
    }

    /// No two are of one frame, and nobody else has written to one.
    pub(super) fn are_apart(&self) {
        let mut frames: Vec<_> = self.all.iter().filter_map(|(token, _)| token.frame()).collect();
        let count = frames.len();
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), count, "two have one frame: {:?}", self.all);
        for (token, stamp) in &self.all {
            let is_own = token.bytes().is_none_or(|bytes| is_all(bytes, *stamp));
            assert!(is_own, "another has written to {token:?}");
        }
    }
}
