//! The four rings of a socket, through which frames and packets change hands with the kernel.
//!
//! Owns their mappings and everything about indices: who may read and write which slot, in which order, and when the other
//! side sees it. Every batch is a short-lived view that borrows its ring; nothing is published before it is committed, and
//! nothing is read twice, whatever becomes of the view. In libxdp these are the inline functions of `xsk.h`, and the rest
//! is left to the program.

mod anchor;
#[cfg(feature = "bench-internals")]
pub mod bench;
mod completion;
mod ends;
mod fill;
mod fragments;
mod make;
pub(crate) mod memory;
mod rx;
mod tx;

pub use completion::{Completed, CompletionBatch, CompletionRing};
pub use fill::{Buffer, FillBatch, FillRing};
pub use fragments::{Fragments, FragmentsBatch};
pub(crate) use make::RingMaker;
pub use rx::{RxBatch, RxRing};
pub use tx::{TxBatch, TxRing};

use crate::error::{Error, ErrorKind};

/// An index of the kernel's that cannot be true.
#[cold]
fn poisoned(ring: &'static str) -> Error {
    Error::new("look at", format_args!("the {ring} ring"), ErrorKind::RingPoisoned { ring })
}
