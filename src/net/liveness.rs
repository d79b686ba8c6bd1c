//! Whether a namespace lives that was noted down some time ago.

use super::{Netns, NetnsId, Survey};
use crate::sys::Kernel;

/// What is known of a noted namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive(Netns),
    Dead,
    /// It was not found, and may be where this process cannot see it.
    Unknown,
}

/// What the verdict rests on.
#[derive(Clone, Copy, Debug)]
struct Evidence<'a> {
    noted: &'a NetnsId,
    same_inode: Lookup<'a>,
    handle: Handle,
    is_complete: bool,
}

/// The namespace that has the noted inode now; no two that live have the same.
#[derive(Clone, Copy, Debug)]
enum Lookup<'a> {
    Nobody,
    /// It does not let us in to ask for its cookie.
    Closed,
    Is(&'a NetnsId),
}

/// What the kernel says of the noted handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handle {
    Opens,
    Dead,
    Untold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    Dead,
    Unknown,
}

impl Survey {
    /// Whether the noted namespace is among those of this survey, or is none that lives any more.
    pub(crate) fn liveness(&self, kernel: &Kernel, noted: &NetnsId) -> Liveness {
        let there = self.namespaces.iter().find(|netns| netns.inode() == noted.inode);
        let same_inode = there.map_or(Lookup::Nobody, |netns| {
            netns
                .id()
                .inspect_err(|error| log::debug!("{error}"))
                .map_or(Lookup::Closed, Lookup::Is)
        });
        let (opened, handle) = by_handle(kernel, noted);
        let is_complete = self.is_complete();
        match (
            verdict(Evidence { noted, same_inode, handle, is_complete }),
            there.cloned().or(opened),
        ) {
            (Verdict::Alive, Some(netns)) => Liveness::Alive(netns),
            (Verdict::Dead, _) => Liveness::Dead,
            _ => Liveness::Unknown,
        }
    }
}

fn verdict(evidence: Evidence<'_>) -> Verdict {
    let noted = evidence.noted;
    match evidence.same_inode {
        Lookup::Is(there) if there.agrees_with(noted) => Verdict::Alive,
        // A note in bpffs is never of another boot: a container can be shown a boot id of its own.
        Lookup::Is(there) if there.boot != noted.boot && numbers_agree(there, noted) => {
            Verdict::Unknown
        }
        Lookup::Is(_) => Verdict::Dead,
        Lookup::Closed => Verdict::Unknown,
        Lookup::Nobody => match evidence.handle {
            Handle::Opens => Verdict::Alive,
            Handle::Dead => Verdict::Dead,
            Handle::Untold if evidence.is_complete => Verdict::Dead,
            Handle::Untold => Verdict::Unknown,
        },
    }
}

fn numbers_agree(one: &NetnsId, other: &NetnsId) -> bool {
    NetnsId { boot: other.boot.clone(), ..one.clone() }.agrees_with(other)
}

/// Opens the namespace by its handle, or is told that it is dead.
fn by_handle(kernel: &Kernel, noted: &NetnsId) -> (Option<Netns>, Handle) {
    let Some(id) = noted.handle else { return (None, Handle::Untold) };
    match kernel.open_netns_by_id(id, Some(noted.inode)) {
        Ok(file) => match Netns::of_file(kernel, file, format!("id {id}")) {
            Ok(netns) => (Some(netns), Handle::Opens),
            Err(_) => (None, Handle::Untold),
        },
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) && kernel.stale_is_dead() => {
            (None, Handle::Dead)
        }
        Err(_) => (None, Handle::Untold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    fn id(cookie: Option<u64>, handle: Option<u64>, boot: &str) -> NetnsId {
        NetnsId { inode: 5, cookie, handle, boot: boot.into() }
    }

    #[test]
    fn verdicts() {
        let noted = id(Some(1), Some(2), "b");
        let (same, bare) = (noted.clone(), id(None, None, "b"));
        let (cookie, handle) = (id(Some(7), None, "b"), id(Some(1), Some(7), "b"));
        let (boot, both) = (id(Some(1), Some(2), "c"), id(Some(7), Some(2), "c"));
        for (same_inode, handle, is_complete, expected) in [
            // Who has the inode decides, whatever else is known.
            (Lookup::Is(&same), Handle::Untold, false, Verdict::Alive),
            (Lookup::Is(&same), Handle::Dead, true, Verdict::Alive),
            (Lookup::Is(&bare), Handle::Untold, true, Verdict::Alive),
            (Lookup::Is(&cookie), Handle::Untold, false, Verdict::Dead),
            (Lookup::Is(&handle), Handle::Untold, false, Verdict::Dead),
            (Lookup::Is(&both), Handle::Untold, true, Verdict::Dead),
            (Lookup::Is(&boot), Handle::Untold, true, Verdict::Unknown),
            (Lookup::Closed, Handle::Untold, true, Verdict::Unknown),
            // If nobody has it, the kernel's word or a complete survey does.
            (Lookup::Nobody, Handle::Opens, false, Verdict::Alive),
            (Lookup::Nobody, Handle::Dead, false, Verdict::Dead),
            (Lookup::Nobody, Handle::Untold, true, Verdict::Dead),
            (Lookup::Nobody, Handle::Untold, false, Verdict::Unknown),
        ] {
            let evidence = Evidence { noted: &noted, same_inode, handle, is_complete };
            assert_eq!(verdict(evidence), expected, "{evidence:?}");
        }
    }

    /// Of a namespace of our own, while it lives and when it does not.
    #[test]
    fn a_namespace_lives_and_dies() {
        let kernel = Kernel::default();
        let liveness = |noted: &NetnsId| Ok(Netns::survey()?.liveness(&kernel, noted));
        // No answer is kept: it would keep the namespace.
        let lives = || -> Result<_> {
            let own = Netns::current()?;
            let noted = own.id()?.clone();
            let cookie = noted.cookie.map(|cookie| cookie + 1);
            let reused = NetnsId { cookie, handle: None, ..noted.clone() };
            let is_told = (liveness(&reused)? == Liveness::Dead) == cookie.is_some();
            Ok((liveness(&noted)? == Liveness::Alive(own), is_told, noted))
        };
        let (is_alive, is_told, noted) = kernel.in_new_netns(lives).unwrap().unwrap();
        assert!(is_alive && is_told);
        let is_sure = kernel.stale_is_dead() || Netns::survey().unwrap().is_complete();
        let expected = if is_sure { Liveness::Dead } else { Liveness::Unknown };
        // The kernel takes it down some time after its last user has gone, which can be another test's survey.
        let told = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            liveness(&noted).is_ok_and(|now| now == expected)
        });
        assert!(told, "not {expected:?}");
    }
}
