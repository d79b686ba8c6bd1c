//! What has become of a chain's pins.

use super::Entry;
use oxdp::{Chain, Legacy, NetnsInode, PinLayout, RecoveryAction};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All are there.
    Whole,
    /// All are there, and belong to another place: the interface has moved.
    Moved,
    /// Some are lost.
    Damaged,
    /// All are lost.
    Orphaned,
}

impl State {
    pub(super) fn of(entry: &Entry, chain: &Chain) -> Self {
        match &chain.pins {
            None if !chain.members.is_empty() => Self::Orphaned,
            _ if !chain.is_whole() => Self::Damaged,
            Some(pins) if is_moved(entry, pins) => Self::Moved,
            _ => Self::Whole,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Moved => "moved",
            Self::Damaged => "damaged",
            Self::Orphaned => "orphaned",
        }
    }
}

/// As the plan of a recovery has it; else by their path alone, if that tells of another interface or namespace.
fn is_moved(entry: &Entry, pins: &Path) -> bool {
    if let Some(plan) = &entry.plan {
        return plan.iter().any(|line| matches!(line.action, RecoveryAction::Rehome { .. }));
    }
    let name =
        |path: Option<&Path>| path.and_then(Path::file_name).map(Path::new).map(Path::to_owned);
    let told = name(Some(pins)).and_then(|name| Legacy.parse(&name));
    let inode = name(pins.parent()).and_then(|scope| NetnsInode.netns_inode(&scope));
    told.is_some_and(|told| told.ifindex != entry.interface.index())
        || inode.is_some_and(|inode| inode != entry.interface.netns().inode())
}
