//! Plans: what is to be done about an inventory, and why, as plain data.

use crate::net::NetnsId;
use std::path::{Path, PathBuf};

/// What becomes of a dispatcher in which no program is left: it passes every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EmptyDispatcher {
    /// It is taken off its interface. The default.
    #[default]
    Remove,
    /// It stays; the next attach replaces it.
    Keep,
}

/// A chain on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChainAt {
    /// Program id of the dispatcher, or of a program that runs without one.
    pub dispatcher: u32,
    /// The namespace of the interface.
    pub netns: NetnsId,
    /// How people call that namespace.
    pub netns_label: String,
    /// The interface's index there.
    pub ifindex: u32,
    /// The interface's name there.
    pub interface: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "action", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Action {
    /// Nothing: it is as it should be.
    Nothing {
        /// The chain.
        chain: ChainAt,
    },
    /// Nothing: it is somebody else's, or what should be done cannot be known.
    LeaveAlone {
        /// What it is, in words: an interface, a path.
        what: String,
    },
    /// Programs and links that the kernel still runs are pinned again.
    Adopt {
        /// The chain.
        chain: ChainAt,
        /// The directory for the pins, made if it is not there.
        into: PathBuf,
        /// The slots of which a pin is lost.
        slots: Vec<usize>,
    },
    /// The pins of a chain are moved to where they belong, by one rename.
    Rehome {
        /// The chain.
        chain: ChainAt,
        /// Where they are.
        from: PathBuf,
        /// Where they belong.
        to: PathBuf,
    },
    /// The chain is swapped for one without the slots whose programs have died.
    DropSlots {
        /// The chain.
        chain: ChainAt,
        /// These slots; they run nothing.
        slots: Vec<usize>,
    },
    /// A dispatcher in which no program is left is taken off its interface.
    Detach {
        /// The chain.
        chain: ChainAt,
    },
    /// A default AF_XDP program that nobody uses any more is taken off its interface.
    DropDefault {
        /// The chain that it is in; if it runs alone, itself.
        chain: ChainAt,
        /// Its id.
        program: u32,
    },
    /// The pins of a dispatcher that no interface has are removed.
    RemovePins {
        /// Their directory.
        path: PathBuf,
        /// Program id of the dispatcher.
        dispatcher: u32,
    },
    /// A directory in which nothing is left is removed.
    RemoveScope {
        /// The directory.
        path: PathBuf,
        /// Whether it says whose it is.
        has_note: bool,
    },
}

impl Action {
    /// Whether anything would change.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Nothing { .. } | Self::LeaveAlone { .. })
    }

    /// Whether it only removes what is of no use to anybody.
    pub fn is_cleanup(&self) -> bool {
        matches!(self, Self::RemovePins { .. } | Self::RemoveScope { .. })
    }

    /// The directory into which pins go by it.
    pub(super) fn target(&self) -> Option<&Path> {
        match self {
            Self::Adopt { into: path, .. } | Self::Rehome { to: path, .. } => Some(path),
            _ => None,
        }
    }

    /// The chain that it is about, if it is about one.
    pub fn chain(&self) -> Option<&ChainAt> {
        match self {
            Self::Nothing { chain }
            | Self::Adopt { chain, .. }
            | Self::Rehome { chain, .. }
            | Self::DropSlots { chain, .. }
            | Self::DropDefault { chain, .. }
            | Self::Detach { chain } => Some(chain),
            _ => None,
        }
    }
}

/// One line of a plan: what is to be done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PlanLine {
    /// What is to be done.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub action: Action,
    /// Why.
    pub reason: String,
}

/// What is to be done about an inventory: plain data, which prints as one line for each thing that was found.
///
/// [`Inventory::plan`](crate::Inventory::plan) makes it, [`Xdp::apply`](crate::Xdp::apply) carries it out. Lines can be taken out before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryPlan {
    /// In the order in which they are carried out.
    pub lines: Vec<PlanLine>,
}

impl RecoveryPlan {
    /// Whether anything would change.
    pub fn is_change(&self) -> bool {
        self.lines.iter().any(|line| line.action.is_change())
    }

    /// The part of it that only removes what is of no use to anybody: no chain is touched.
    #[must_use]
    pub fn cleanup(mut self) -> Self {
        self.lines.retain(|line| line.action.is_cleanup());
        self
    }
}
