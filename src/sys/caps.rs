//! Whom an EPERM is to blame on: the process, or the kernel.

use super::Kernel;
use std::fs;

/// What a process may have to do with BPF and with other processes; include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// For what is opened by its id.
    SysAdmin,
    /// For extension programs, and for a verifier that lets pointers be compared. `CAP_SYS_ADMIN` includes it.
    Perfmon,
    /// For a look at processes with other privileges.
    SysPtrace,
}

const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;

impl Capability {
    /// The bits of which one is enough.
    const fn enough(self) -> u64 {
        match self {
            Self::SysAdmin => SYS_ADMIN,
            Self::Perfmon => SYS_ADMIN | PERFMON,
            Self::SysPtrace => SYS_PTRACE,
        }
    }

    const fn names(self) -> &'static str {
        match self {
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON or CAP_SYS_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
        }
    }
}

impl Kernel {
    /// What the calling thread lacks, if an EPERM can come from that; `None` where it lacks nothing that is
    /// known of, so that the kernel itself must have refused.
    pub(crate) fn lacking(&self, wanted: Capability) -> Option<&'static str> {
        if self.has(wanted) == Some(false) {
            return Some(wanted.names());
        }
        (self.counts_memlock() && self.memlock_is_limited())
            .then_some("CAP_SYS_RESOURCE, or no RLIMIT_MEMLOCK, on a kernel before 5.11")
    }

    /// Whether the calling thread has what is enough for this; `None` if it cannot be told.
    #[allow(clippy::unused_self)]
    pub(crate) fn has(&self, wanted: Capability) -> Option<bool> {
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let held = u64::from_str_radix(effective.trim(), 16).ok()?;
        Some(held & wanted.enough() != 0)
    }

    /// Whether BPF memory counts against `RLIMIT_MEMLOCK`, as it did before kernel 5.11.
    pub(super) fn counts_memlock(&self) -> bool {
        self.release().is_some_and(|version| version < (5, 11))
    }

    /// The first two numbers of the kernel's release.
    #[allow(clippy::unused_self)]
    pub(crate) fn release(&self) -> Option<(u32, u32)> {
        version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    #[allow(clippy::unused_self)]
    fn memlock_is_limited(&self) -> bool {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: limit is a live rlimit for the kernel to fill.
        let got = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        got == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    }
}

/// The first two numbers of a release such as `6.12.1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("5.10.0-32-amd64\n"), Some((5, 10)));
        assert_eq!(version("6.12.117+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("next"), None);
        assert!(version("5.9").unwrap() < (5, 11) && version("6.1").unwrap() > (5, 11));
    }
}
