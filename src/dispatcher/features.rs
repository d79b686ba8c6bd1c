//! What the running kernel lets us do.

use super::config::{Config, SlotConfig, VERSION};
use super::image::XDP_PASS;
use super::load;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::program::ChainActions;
use crate::sys::{Capability, Kernel};
use libbpf_sys::BPF_PROG_TYPE_EXT;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// Whether the kernel has a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does: it was tried.
    Yes,
    /// It does not, and why.
    No(String),
}

impl Support {
    /// Whether it is [`Yes`](Support::Yes).
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No(why) => write!(f, "no: {why}"),
        }
    }
}

/// What the running kernel lets this process do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// One program can replace a function of another, and be put into a second one later: what a chain is
    /// made of. Kernel 5.10; refused by a locked-down kernel.
    pub freplace: Support,
}

impl Features {
    /// Tries each feature, on programs that are attached to nothing and gone when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NoPrivilege`] if this process may not load programs at all.
    #[doc(alias = "libxdp_check_kern_compat")]
    pub fn probe() -> Result<Self> {
        Ok(Self { freplace: probe_freplace(&Kernel::default())? })
    }

    /// Fails with [`ErrorKind::NoFreplace`] where chains cannot be made.
    pub fn require_freplace(&self) -> Result<()> {
        match &self.freplace {
            Support::Yes => Ok(()),
            Support::No(why) => {
                let kind = ErrorKind::NoFreplace { why: why.clone() };
                Err(Error::new("use", "the dispatcher", kind))
            }
        }
    }
}

/// Loads the smallest program for the first slot of one dispatcher and puts it into that of another.
fn probe_freplace(kernel: &Kernel) -> Result<Support> {
    let slot = SlotConfig { priority: 0, actions: ChainActions::DROP, flags: 0 };
    let config =
        Config { version: VERSION, has_frags: false, is_device_bound: false, slots: vec![slot] };
    let function = load::slot_function(0, &config.slots)?;
    let [first, second] = [load::dispatcher(kernel, &config)?, load::dispatcher(kernel, &config)?];
    let target = Some((first.program.as_fd(), function.btf_id));
    let loaded = load::program(kernel, &XDP_PASS, None, BPF_PROG_TYPE_EXT, 0, target);
    let component = match loaded {
        Ok(component) => component,
        Err(error) => return refusal(kernel, "loading an extension program", error.source),
    };
    for dispatcher in [first, second] {
        let target = dispatcher.program.as_fd();
        if let Err(error) = kernel.link_extension(component.as_fd(), target, function.btf_id) {
            return refusal(kernel, "linking an extension program", error);
        }
    }
    Ok(Support::Yes)
}

/// The kernel's "no" is an answer; a want of memory or descriptors is not.
fn refusal(kernel: &Kernel, what: &str, error: io::Error) -> Result<Support> {
    let is_denied = error.raw_os_error() == Some(libc::EPERM);
    if let Some(needs) = kernel.lacking(Capability::Perfmon).filter(|_| is_denied) {
        return Err(Error::new("probe", "freplace", ErrorKind::NoPrivilege { needs }));
    }
    match error.raw_os_error() {
        Some(libc::EPERM) => Ok(Support::No(format!(
            "{what} is refused with EPERM although other programs load, as on a locked-down kernel"
        ))),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG) => {
            Ok(Support::No(format!("{what} fails: {error}")))
        }
        _ => Err::<_, ErrorKind>(error.into()).during("probe", "freplace"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::XDP_DISPATCHER;
    use super::*;

    #[test]
    fn the_probe_s_image_fits_the_dispatcher() {
        assert_eq!(XDP_PASS.functions[0].name, "xdp_pass");
        assert!(XDP_PASS.config_loads.is_empty());
        assert!(XDP_DISPATCHER.function("prog0").is_some());
    }
}
