//! Packets of several fragments: whole ones only, in and out.

use super::memory::XDP_PKT_CONTD;
use super::poisoned;
use super::rx::{RxBatch, RxRing};
use crate::error::Result;
use crate::xsk::umem::{BadDescriptor, Exclusive, Kind, Packet};
use std::fmt;

/// A packet of one fragment or several, in order: of a socket with multi-buffer, since kernel 6.6.
pub struct Fragments<K: Kind = Exclusive> {
    first: Packet<K>,
    /// Most packets have one, and need no memory for more.
    rest: Vec<Packet<K>>,
}

impl<K: Kind> fmt::Debug for Fragments<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<K: Kind> From<Packet<K>> for Fragments<K> {
    fn from(first: Packet<K>) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl<K: Kind> Fragments<K> {
    /// Of these fragments in order; `None` if there is none.
    pub fn of(fragments: impl IntoIterator<Item = Packet<K>>) -> Option<Self> {
        let mut fragments = fragments.into_iter();
        Some(Self { first: fragments.next()?, rest: fragments.collect() })
    }

    /// The first fragment, which begins with the headers.
    pub fn first(&self) -> &Packet<K> {
        &self.first
    }

    /// The first fragment, which begins with the headers.
    pub fn first_mut(&mut self) -> &mut Packet<K> {
        &mut self.first
    }

    /// Puts another fragment behind the last.
    pub fn push(&mut self, fragment: Packet<K>) {
        self.rest.push(fragment);
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// Bytes of all of them.
    #[allow(clippy::len_without_is_empty, reason = "of bytes, and there is at least one fragment")]
    pub fn len(&self) -> u64 {
        self.iter().map(|fragment| u64::from(fragment.len())).sum()
    }

    /// The fragments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Packet<K>> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The fragments in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Packet<K>> {
        std::iter::once(&mut self.first).chain(&mut self.rest)
    }
}

impl<K: Kind> IntoIterator for Fragments<K> {
    type Item = Packet<K>;
    type IntoIter = std::iter::Chain<std::iter::Once<Packet<K>>, std::vec::IntoIter<Packet<K>>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.rest)
    }
}

impl Fragments {
    /// A copy of all bytes.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    pub fn to_vec(&self) -> std::result::Result<Vec<u8>, BadDescriptor> {
        let mut bytes = Vec::new();
        for fragment in self.iter() {
            bytes.extend_from_slice(fragment.data()?);
        }
        Ok(bytes)
    }
}

/// Packets of an RX ring with all their fragments, read one after the other. Those that are not read, or not whole yet, stay
/// in the ring.
#[derive(Debug)]
pub struct FragmentsBatch<'a, K: Kind = Exclusive> {
    batch: RxBatch<'a, K>,
    left: usize,
}

impl<K: Kind> RxRing<K> {
    /// At most `max` packets, each with all its fragments, of a socket with multi-buffer or without.
    ///
    /// # Errors
    /// [`RingPoisoned`](crate::ErrorKind::RingPoisoned) if the kernel's index cannot be true, or the ring is full of a packet without an end.
    pub fn packets(&mut self, max: usize) -> Result<FragmentsBatch<'_, K>> {
        let size = self.size();
        self.refresh();
        let batch = self.claim(u32::MAX)?;
        if batch.left() == size && fragments(&batch).is_none() {
            return Err(poisoned("RX"));
        }
        Ok(FragmentsBatch { batch, left: max })
    }
}

impl<K: Kind> Iterator for FragmentsBatch<'_, K> {
    type Item = Fragments<K>;

    fn next(&mut self) -> Option<Fragments<K>> {
        self.left = self.left.checked_sub(1)?;
        let rest = fragments(&self.batch)? - 1;
        let first = self.batch.next()?;
        Some(Fragments { first, rest: self.batch.by_ref().take(rest).collect() })
    }
}

/// How many fragments the next packet has, if the last of them is here.
fn fragments<K: Kind>(batch: &RxBatch<'_, K>) -> Option<usize> {
    let mut ahead = 0;
    while batch.options_at(ahead)? & XDP_PKT_CONTD != 0 {
        ahead += 1;
    }
    Some(ahead as usize + 1)
}
