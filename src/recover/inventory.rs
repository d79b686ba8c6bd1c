//! Everything there is: namespaces with what is attached in them, pins, and the links that hold programs in slots.

use crate::dispatcher::SlotLink;
use crate::net::{Mode, NetnsId};
use std::path::PathBuf;

/// Everything that a recovery looks at, as plain data. [`Xdp::inventory`](crate::Xdp::inventory) takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inventory {
    /// The protocol's directory in the bpf file system; `None` where there is none.
    pub root: Option<PathBuf>,
    /// The namespaces that can be seen.
    pub namespaces: Vec<SeenNetns>,
    /// What may hide others, in words. While there is any, nothing is removed that may be in use there.
    pub gaps: Vec<String>,
    /// The directories in which dispatchers are pinned, other than the root.
    pub scopes: Vec<Scope>,
    /// The directories of dispatchers' pins.
    pub pins: Vec<SeenPins>,
    /// The links that hold extension programs in other programs.
    pub links: Vec<SlotLink>,
    /// Dispatchers that links hold on interfaces: link id and program id. Of interfaces that are gone there are none.
    pub held: Vec<(u32, u32)>,
    /// Dispatchers that are pinned in other bpf file systems.
    pub elsewhere: Vec<PinnedElsewhere>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenNetns {
    /// What identifies it.
    pub id: NetnsId,
    /// How people call it: a name, a path or a process.
    pub label: String,
    /// Its interfaces with XDP programs.
    pub interfaces: Vec<SeenInterface>,
}

/// An interface with an XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenInterface {
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Where the program runs.
    pub mode: Mode,
    /// The program's id.
    pub program: u32,
    /// What that is.
    pub what: SeenProgram,
    /// The default AF_XDP programs that run there.
    pub defaults: Vec<SeenDefault>,
}

/// A default AF_XDP program: see [`DefaultProgram`](crate::DefaultProgram).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenDefault {
    /// Its id.
    pub program: u32,
    /// How many use it, as they have counted; `None` if it does not count (libxdp before 1.3).
    pub count: Option<i32>,
    /// Who uses it, or may, in words; `None` if nobody does, for sure.
    pub in_use: Option<String>,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "kind", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SeenProgram {
    /// A dispatcher.
    Chain(SeenChain),
    /// No dispatcher.
    Foreign {
        /// Its name.
        name: String,
    },
    /// It could not be looked at.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A dispatcher on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenChain {
    /// Protocol version.
    pub version: u8,
    /// Number of slots in use.
    pub slots: usize,
    /// Where the layout wants its pins.
    pub home: PathBuf,
}

/// A directory of dispatchers' directories.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Scope {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub owner: ScopeOwner,
    /// Whether nothing is in it, but for the note whose it is.
    pub is_empty: bool,
}

/// Whose a scope is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "owner", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ScopeOwner {
    /// A namespace that lives.
    Alive {
        /// Which.
        netns: NetnsId,
    },
    /// A namespace that is dead.
    Dead {
        /// Which.
        netns: NetnsId,
    },
    /// A namespace of which neither is known.
    Unseen {
        /// Which.
        netns: NetnsId,
    },
    /// It was being made when the process that made it ended, or is being made now.
    Draft,
    /// Nobody: who removed it ended when its note was gone and it was not yet.
    Nobody,
    /// It has no note.
    Unnoted,
}

/// The pins of a dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SeenPins {
    /// Their directory.
    pub path: PathBuf,
    /// The ifindex in its name.
    pub ifindex: u32,
    /// The program id of the dispatcher, in its name.
    pub dispatcher: u32,
    /// Whether that program is in the kernel.
    pub is_loaded: bool,
    /// The slots of which something is pinned.
    pub slots: Vec<PinnedSlot>,
    /// The pinned link that holds the dispatcher on its interface.
    pub attachment: Option<u32>,
    /// What the protocol does not put there.
    pub unexpected: Vec<PathBuf>,
}

/// What is pinned of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PinnedSlot {
    /// Its number.
    pub slot: usize,
    /// Id of the program.
    pub program: Option<u32>,
    /// Id of the link that holds it in the slot.
    pub link: Option<u32>,
}

/// A dispatcher that is pinned in another bpf file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PinnedElsewhere {
    /// Program id of the dispatcher.
    pub dispatcher: u32,
    /// The directory, by a path that can be opened here.
    pub path: PathBuf,
}

impl SeenPins {
    /// How many objects are pinned.
    pub(super) fn count(&self) -> usize {
        let pinned = self.slots.iter().flat_map(|slot| [slot.program, slot.link]);
        pinned.flatten().count() + usize::from(self.attachment.is_some())
    }
}

impl Scope {
    /// Whether it says whose it is.
    pub(super) fn has_note(&self) -> bool {
        !matches!(self.owner, ScopeOwner::Nobody | ScopeOwner::Unnoted)
    }
}
