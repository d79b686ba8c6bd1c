#![forbid(unsafe_code)]

//! Many programs on one interface: the dispatcher protocol.
//!
//! Owns the wire format, the order of programs, and the one transaction that changes a chain. Holds no state
//! between calls: what the kernel and bpffs say is all there is. In libxdp: `struct xdp_multiprog`.

mod config;
#[cfg(test)]
mod fault_tests;
mod features;
mod handle;
mod image;
mod inspect;
mod load;
mod plan;
mod transaction;

pub use config::MAX_PROGRAMS;
pub use features::{Features, Support};
pub use handle::{Builder, Xdp};
pub use inspect::{Chain, Component, ForeignProgram, Member, Occupant};
pub use transaction::Outcome;
