#![forbid(unsafe_code)]

//! Where programs are attached: network namespaces and their interfaces, as values.
//!
//! Owns the descriptors and identities of namespaces and the netlink side of an attach. Never changes the
//! namespace of the calling thread. libxdp knows only the namespace it happens to run in.

mod attach;
mod interface;
mod liveness;
mod netns;
mod survey;

pub use attach::{AttachBy, AttachedBy, Link, Mode};
pub(crate) use attach::{Attached, Attachment, Known, Linked, Swap};
pub use interface::Interface;
pub(crate) use liveness::Liveness;
pub use netns::{Netns, NetnsId};
pub use survey::{BpffsMount, Survey};
