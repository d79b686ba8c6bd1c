//! What the running kernel lets us do.

use super::config::{Config, ProtocolVersion, SlotConfig};
use super::load::{self, Loader};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::program::{ChainActions, load_pass};
use crate::sys::bpf::{LinkKind, LoadError};
use crate::sys::{Capability, Kernel};
use libbpf_sys::{
    BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_XDP,
    XDP_FLAGS_SKB_MODE,
};
use once_cell::sync::OnceCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

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
    /// One program can replace a function of another: what a chain is made of. Kernel 5.6; refused by a locked-down
    /// kernel.
    pub freplace: Support,
    /// Such a program can be put into a second one later, so that a chain can change while it runs. Kernel 5.10.
    pub reattach: Support,
    /// Programs can read packets of several fragments. Kernel 5.18.
    pub frags: Support,
    /// Programs can be bound to a device and ask it for a packet's metadata. Kernel 6.3.
    pub device_binding: Support,
    /// A program can be held on an interface by a `bpf_link`. Kernel 5.9.
    pub xdp_link: Support,
    /// A network namespace has a number that is not used again. Kernel 5.14.
    pub netns_cookie: Support,
    /// The kernel tells which slot of which dispatcher a link holds a program in. Kernel 5.13.
    pub link_target: Support,
}

impl Features {
    /// Tries each feature, on programs and in a namespace that are gone when this returns. Done once in a process;
    /// later calls have the same answer.
    ///
    /// # Errors
    /// [`ErrorKind::NoPrivilege`] if this process may not load programs at all.
    #[doc(alias = "libxdp_check_kern_compat")]
    pub fn probe() -> Result<Self> {
        static PROBED: OnceCell<Features> = OnceCell::new();
        PROBED.get_or_try_init(|| Self::probe_now(&Kernel::default())).cloned()
    }

    fn probe_now(kernel: &Kernel) -> Result<Self> {
        let chain = Chain::get(kernel)?;
        let frags = load_xdp(kernel, BPF_F_XDP_HAS_FRAGS, 0).map(drop);
        let cookie = kernel.netns_cookie().during(PROBE, "the namespace's cookie")?;
        let (device_binding, xdp_link) = match kernel.in_new_netns(|| probe_devices(kernel)) {
            Ok(probed) => probed?,
            Err(error) => {
                let why = format!("not tried, since no network namespace could be made: {error}");
                (Support::No(why.clone()), Support::No(why))
            }
        };
        Ok(Self {
            freplace: chain.freplace.clone(),
            reattach: chain.reattach.clone(),
            link_target: chain.link_target.clone(),
            frags: support(frags, "a program that reads fragments", "5.18")?,
            device_binding,
            xdp_link,
            netns_cookie: match cookie {
                Some(_) => Support::Yes,
                None => {
                    Support::No("SO_NETNS_COOKIE is not known; it came with kernel 5.14".into())
                }
            },
        })
    }

    /// Fails with [`ErrorKind::NoFreplace`] where chains cannot be made.
    pub fn require_freplace(&self) -> Result<()> {
        match refused(&self.freplace, &self.reattach) {
            Some(why) => {
                let kind = ErrorKind::NoFreplace { why: why.to_owned() };
                Err(Error::new("use", "the dispatcher", kind))
            }
            None => Ok(()),
        }
    }

    /// All of them with their names, as `features` commands print them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Support)> {
        [
            ("freplace", &self.freplace),
            ("reattach", &self.reattach),
            ("frags", &self.frags),
            ("device_binding", &self.device_binding),
            ("xdp_link", &self.xdp_link),
            ("netns_cookie", &self.netns_cookie),
            ("link_target", &self.link_target),
        ]
        .into_iter()
    }
}

const PROBE: &str = "probe";

/// Why chains cannot be made on this kernel, if they cannot; only that is probed, once in a process. The other features
/// need a network namespace, which takes longer than all of this.
pub(super) fn no_chains() -> Result<Option<&'static str>> {
    let chain = Chain::get(&Kernel::default())?;
    Ok(refused(&chain.freplace, &chain.reattach))
}

fn refused<'s>(freplace: &'s Support, reattach: &'s Support) -> Option<&'s str> {
    [freplace, reattach].into_iter().find_map(|support| match support {
        Support::Yes => None,
        Support::No(why) => Some(why.as_str()),
    })
}

/// What concerns extension programs.
struct Chain {
    freplace: Support,
    reattach: Support,
    link_target: Support,
}

impl Chain {
    /// What the first probe in this process said.
    fn get(kernel: &Kernel) -> Result<&'static Self> {
        static PROBED: OnceCell<Chain> = OnceCell::new();
        PROBED.get_or_try_init(|| Self::probe(kernel))
    }

    /// Loads the smallest program for the first slot of one dispatcher and puts it into that of another.
    fn probe(kernel: &Kernel) -> Result<Self> {
        let slot = SlotConfig { priority: 0, actions: ChainActions::DROP, flags: 0 };
        let config = Config {
            version: ProtocolVersion::V3.number(),
            has_frags: false,
            is_device_bound: false,
            slots: vec![slot],
        };
        let function = load::slot_function(0, &config.slots)?;
        let loader = Loader::new(kernel.clone());
        let first = loader.dispatcher(&config, None)?;
        let slot = Some((first.program.as_fd(), function.btf_id));
        let component = match load_pass(kernel, BPF_PROG_TYPE_EXT, 0, 0, slot) {
            Ok(component) => component,
            Err(error) => {
                return Ok(Self::without(refusal(kernel, "loading an extension program", error)?));
            }
        };
        let link = |target: &load::Dispatcher| {
            let target = target.program.as_fd();
            kernel.link_extension(component.as_fd(), target, function.btf_id)
        };
        let held = match link(&first) {
            Ok(held) => held,
            Err(error) => {
                let refused = refusal(kernel, "linking an extension program", error.into())?;
                return Ok(Self::without(refused));
            }
        };
        let reattach = match link(&loader.dispatcher(&config, None)?) {
            Ok(_) => Support::Yes,
            Err(error) => refusal(kernel, "linking an extension program again", error.into())?,
        };
        let told = kernel.link_info(held.as_fd()).during(PROBE, "a link's target")?.kind;
        let is_told = told
            == LinkKind::Tracing { attach_type: 0, target: first.id, function: function.btf_id };
        let link_target = if is_told {
            Support::Yes
        } else {
            Support::No("the kernel tells zeroes; it came with kernel 5.13".into())
        };
        Ok(Self { freplace: Support::Yes, reattach, link_target })
    }

    fn without(freplace: Support) -> Self {
        let no = || Support::No("not tried, for want of freplace".into());
        Self { freplace, reattach: no(), link_target: no() }
    }
}

/// Whether a program can be bound to a device, and held on one by a link; on the loopback of a namespace that nobody
/// else has.
fn probe_devices(kernel: &Kernel) -> Result<(Support, Support)> {
    const LOOPBACK: u32 = 1;
    let bound = match load_xdp(kernel, BPF_F_XDP_DEV_BOUND_ONLY, LOOPBACK).map(drop) {
        // It is the loopback that has no metadata: a kernel that does not know the flag says EINVAL.
        Err(error) if error.source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    };
    let pass = load_xdp(kernel, 0, 0).map_err(|error| error.source).during(PROBE, "an XDP link")?;
    let link = kernel.link_xdp(pass.as_fd(), LOOPBACK, XDP_FLAGS_SKB_MODE).map(drop);
    Ok((
        support(bound, "a program that is bound to a device", "6.3")?,
        support(link.map_err(LoadError::from), "a bpf_link on an interface", "5.9")?,
    ))
}

fn load_xdp(kernel: &Kernel, flags: u32, ifindex: u32) -> std::result::Result<OwnedFd, LoadError> {
    load_pass(kernel, BPF_PROG_TYPE_XDP, flags, ifindex, None)
}

/// The kernel's "no" is an answer; a want of memory or descriptors is not.
fn support(tried: std::result::Result<(), LoadError>, what: &str, since: &str) -> Result<Support> {
    match tried {
        Ok(()) => Ok(Support::Yes),
        Err(error) if is_answer(&error.source) => {
            let source = error.source;
            Ok(Support::No(format!("{what} is refused ({source}); it came with kernel {since}")))
        }
        Err(error) => Err(error.source).during(PROBE, what),
    }
}

fn is_answer(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG))
}

/// Whether extension programs are refused by the kernel, or to this process only, which is an error.
fn refusal(kernel: &Kernel, what: &str, error: LoadError) -> Result<Support> {
    let source = error.source;
    let is_denied = source.raw_os_error() == Some(libc::EPERM);
    if let Some(needs) = kernel.lacking(Capability::Perfmon).filter(|_| is_denied) {
        return Err(Error::new(PROBE, "freplace", ErrorKind::NoPrivilege { needs }));
    }
    match source.raw_os_error() {
        Some(libc::EPERM) => Ok(Support::No(format!(
            "{what} is refused with EPERM although other programs load, as on a locked-down kernel"
        ))),
        _ if is_answer(&source) => Ok(Support::No(format!("{what} fails: {source}"))),
        _ => Err::<_, ErrorKind>(source.into()).during(PROBE, "freplace"),
    }
}
