//! The only door to the kernel: bpf(2), netlink, namespaces, bpffs, and libbpf for ELF objects.
//!
//! Owns every raw syscall and the descriptors that come back from it. Decides nothing: no ordering, no retries
//! that change meaning, no paths. Every operation passes [`Kernel::step`], so that a test can make any one of
//! them fail; what libbpf does to load an object is one of them. In libxdp these calls are spread over libxdp.c
//! and libbpf.

pub(crate) mod bpf;
mod caps;
mod dying;
#[cfg(test)]
pub(crate) mod fault;
pub(crate) mod fs;
pub(crate) mod genl;
pub(crate) mod mmap;
pub(crate) mod netlink;
pub(crate) mod ns;
pub(crate) mod object;
pub(crate) mod poll;
mod proc;
pub(crate) mod sock_diag;
pub(crate) mod xsk;

pub(crate) use caps::Capability;
use std::io;

/// The running kernel. Cheap to clone; holds nothing but, in tests, the fault to inject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    #[cfg(test)]
    fault: Option<std::sync::Arc<fault::Plan>>,
}

impl Kernel {
    /// Called before every operation, with its name. Fails only where a test asked for it.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps))]
    fn step(&self, name: &'static str) -> io::Result<()> {
        #[cfg(test)]
        if let Some(plan) = &self.fault {
            return plan.step(name);
        }
        let _ = name;
        Ok(())
    }

    /// A kernel that fails where `plan` says.
    #[cfg(test)]
    pub(crate) fn with_fault(plan: std::sync::Arc<fault::Plan>) -> Self {
        Self { fault: Some(plan) }
    }
}
