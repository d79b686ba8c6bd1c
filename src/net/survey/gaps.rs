//! Why there may be more than a survey has seen: counted, and told in one line each.

use std::collections::{BTreeMap, BTreeSet};

/// A reason why namespaces may be hidden from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// The processes of other PID namespaces are not in `/proc`.
    PidNamespace,
    /// `/proc` hides what this process may not trace.
    HidingProc,
    /// A process did not let us look.
    Process,
    /// A socket did not tell its namespace.
    Socket,
    /// A namespace is known of and could not be opened.
    Namespace,
    /// A mount namespace that no process is in, so that its mounts cannot be read.
    EmptyMountNs,
    /// A mount namespace whose processes all have a root below its own, and see only what is mounted there.
    Chroot,
}

impl Gap {
    /// Whether listns(2) closes it. What only a socket keeps alive is not in that list, and sockets are found by the
    /// descriptors of processes.
    fn is_closed_by_list(self) -> bool {
        matches!(self, Self::EmptyMountNs | Self::Chroot)
    }

    fn tell(self, count: usize, example: &str) -> String {
        let s = if count == 1 { "" } else { "s" };
        match self {
            Self::PidNamespace => {
                "not in the initial PID namespace: processes outside are not seen".into()
            }
            Self::HidingProc => {
                format!("{example} hides processes (hidepid), and CAP_SYS_PTRACE is missing")
            }
            Self::Process => format!(
                "namespaces, mounts and descriptors of {count} process{} are closed to us, such as {example}",
                if count == 1 { "" } else { "es" }
            ),
            Self::Socket => {
                format!("{count} socket{s} did not tell the namespace, such as {example}")
            }
            Self::Namespace => {
                format!("{count} namespace{s} could not be opened, such as {example}")
            }
            Self::EmptyMountNs => format!(
                "what is bound in {count} mount namespace{s} without a process is not seen, such as {example}"
            ),
            Self::Chroot => format!(
                "what is bound in {count} mount namespace{s} is seen in part only, from below a chroot, such as {example}"
            ),
        }
    }
}

/// The gaps of a survey, with what was met in each.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<Gap, BTreeSet<String>>);

impl Gaps {
    /// The same `what` counts once.
    pub(super) fn note(&mut self, gap: Gap, what: impl Into<String>) {
        self.0.entry(gap).or_default().insert(what.into());
    }

    /// One line for each kind of gap that is left, given whether the kernel has listed all namespaces.
    pub(super) fn tell(&self, is_listed: bool) -> Vec<String> {
        let left = self.0.iter().filter(|(gap, _)| !is_listed || !gap.is_closed_by_list());
        left.map(|(gap, what)| gap.tell(what.len(), what.first().map_or("", |first| first)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_gaps_are_one_line() {
        let mut gaps = Gaps::default();
        assert!(gaps.tell(false).is_empty());
        for pid in ["pid 7", "pid 8", "pid 7"] {
            gaps.note(Gap::Process, pid);
        }
        gaps.note(Gap::Socket, "descriptor 3 of pid 9");
        gaps.note(Gap::EmptyMountNs, "mnt:[5]");
        assert_eq!(
            gaps.tell(false),
            [
                "namespaces, mounts and descriptors of 2 processes are closed to us, such as pid 7",
                "1 socket did not tell the namespace, such as descriptor 3 of pid 9",
                "what is bound in 1 mount namespace without a process is not seen, such as mnt:[5]",
            ]
        );
    }

    #[test]
    fn a_list_of_the_kernel_s_own_closes_gaps() {
        let mut gaps = Gaps::default();
        gaps.note(Gap::EmptyMountNs, "mnt:[5]");
        gaps.note(Gap::Chroot, "pid 7");
        assert!(gaps.tell(true).is_empty());
        gaps.note(Gap::Process, "pid 8");
        assert_eq!((gaps.tell(true).len(), gaps.tell(false).len()), (1, 3));
    }
}
