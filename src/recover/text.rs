//! Plans as people read them.

use super::plan::{Action, ChainAt, PlanLine, RecoveryPlan};
use std::fmt;

impl ChainAt {
    /// Where it is: `eth0 (ifindex 2) in netns blue`.
    pub(super) fn place(&self) -> String {
        format!("{} (ifindex {}) in netns {}", self.interface, self.ifindex, self.netns_label)
    }
}

/// As `dispatcher 42 on eth0 (ifindex 2) in netns blue`.
impl fmt::Display for ChainAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dispatcher {} on {}", self.dispatcher, self.place())
    }
}

/// As `re-home     dispatcher 42 on eth0 (ifindex 2) in netns blue, FROM to TO`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12}", self.verb())?;
        match self {
            Self::Nothing { chain } | Self::Detach { chain } => chain.fmt(f),
            Self::LeaveAlone { what } => f.write_str(what),
            Self::Adopt { chain, into, slots } => {
                write!(f, "slots {} of {chain}, into {}", numbers(slots), into.display())
            }
            Self::Rehome { chain, from, to } => {
                write!(f, "{chain}, from {} to {}", from.display(), to.display())
            }
            Self::DropDefault { chain, program } if chain.dispatcher == *program => {
                write!(f, "default program {program} on {}", chain.place())
            }
            Self::DropDefault { chain, program } => {
                write!(f, "default program {program} of {chain}")
            }
            Self::DropSlots { chain, slots } => write!(f, "slots {} of {chain}", numbers(slots)),
            Self::RemovePins { path, .. } | Self::RemoveScope { path, .. } => path.display().fmt(f),
        }
    }
}

impl Action {
    /// What is done, in a word or two.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Nothing { .. } => "ok",
            Self::LeaveAlone { .. } => "leave alone",
            Self::Adopt { .. } => "adopt",
            Self::Rehome { .. } => "re-home",
            Self::DropSlots { .. } | Self::DropDefault { .. } => "drop",
            Self::Detach { .. } => "detach",
            Self::RemovePins { .. } | Self::RemoveScope { .. } => "remove",
        }
    }
}

fn numbers(slots: &[usize]) -> String {
    slots.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action, self.reason)
    }
}

impl fmt::Display for RecoveryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
