//! What outlives the process: programs and links pinned in bpffs, and the lock over them.
//!
//! Owns the `xdp` directory of a bpf file system and everything below it. Never touches an interface, and
//! never removes a pin that the protocol did not put there. In libxdp: the bpffs functions of libxdp.c.

mod bpffs;
mod layout;
mod lock;
mod scope;
mod store;

pub(crate) use bpffs::Location;
pub use layout::{Auto, Legacy, NetnsInode, PinKey, PinLayout, PinPath};
pub(crate) use lock::{Lock, Patience};
pub(crate) use scope::Scope;
pub(crate) use store::{PinnedDispatcher, Staging, Store};
