#![forbid(unsafe_code)]

//! Many programs on one interface: the dispatcher protocol.
//!
//! Owns the wire format, the order of programs, and the one transaction that changes a chain. Holds no state
//! between calls: what the kernel and bpffs say is all there is. In libxdp: `struct xdp_multiprog`.

mod alone;
mod build;
mod change;
pub(crate) mod code;
mod config;
mod edit;
#[cfg(test)]
mod fault_tests;
mod features;
mod guest;
mod handle;
mod held;
pub(crate) mod inspect;
mod load;
#[cfg(feature = "capi")]
mod opened;
mod outcome;
mod plan;
mod request;
pub(crate) mod slots;
mod transaction;
mod types;

pub use change::Edit;
#[cfg(fuzzing)]
pub(crate) use config::fuzz as fuzz_config;
pub use config::{MAX_PROGRAMS, ProtocolVersion};
pub use features::{Features, Support};
pub(crate) use guest::{Decision, Guest, Running, View};
pub use handle::{Builder, Xdp};
pub use inspect::{Chain, Component, ForeignProgram, Member, Occupant};
#[cfg(feature = "capi")]
pub(crate) use opened::{Opened, OpenedChain};
pub use outcome::{Outcome, Policy, Single};
pub use plan::{ChainFeature, Downgrade, DowngradeCause};
pub use slots::SlotLink;
