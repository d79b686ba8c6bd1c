//! What the environment asks for, and the handles that entries work with.

use super::entry::Errno;
use crate::sys::Kernel;
use crate::{Auto, Interface, Legacy, Netns, NetnsInode, Policy, Xdp};
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Where pins go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As C libxdp has them.
    Legacy,
    Netns,
    Auto,
}

impl Layout {
    pub(super) fn of(word: &[u8]) -> Option<Self> {
        match word {
            b"legacy" => Some(Self::Legacy),
            b"netns" => Some(Self::Netns),
            b"auto" => Some(Self::Auto),
            _ => None,
        }
    }
}

/// What the caller has chosen in place of what the environment says.
static CHOSEN: Mutex<Option<Layout>> = Mutex::new(None);

pub(super) fn choose(layout: Layout) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(layout);
}

/// C libxdp's, unless something else was asked for: who uses this in its place may share pins with it.
fn layout() -> Result<Layout, Errno> {
    let chosen = *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    let word = Kernel::default().variable("LIBXDP_PIN_LAYOUT").filter(|word| !word.is_empty());
    match (chosen, word) {
        (Some(chosen), _) => Ok(chosen),
        (None, None) => Ok(Layout::Legacy),
        (None, Some(word)) => Layout::of(word.as_bytes()).ok_or_else(|| {
            log::warn!("LIBXDP_PIN_LAYOUT is none of legacy, netns and auto");
            Errno(libc::EINVAL)
        }),
    }
}

/// A handle for one call. It keeps descriptors, which none may be kept between calls: programs close what they do not know,
/// as daemons do.
pub(super) fn xdp() -> Result<Xdp, Errno> {
    // Without a bpf file system programs go without a dispatcher, under this lock, as in C libxdp.
    let builder = Xdp::builder().policy(Policy::Auto).stand_in(Path::new("/run/xdp"));
    let builder = match layout()? {
        Layout::Legacy => builder.layout(Legacy),
        Layout::Netns => builder.layout(NetnsInode),
        Layout::Auto => builder.layout(Auto::detect()?),
    };
    Ok(builder.build()?)
}

/// Whether a program that is attached by itself is to go without a dispatcher.
pub(super) fn skips_dispatcher() -> bool {
    Kernel::default().variable("LIBXDP_SKIP_DISPATCHER").is_some_and(|value| value == "1")
}

/// An interface of the calling thread's namespace.
pub(super) fn interface(index: c_int) -> Result<Interface, Errno> {
    let index = u32::try_from(index).map_err(|_| Errno(libc::ENODEV))?;
    Ok(Interface::by_index(&Netns::current()?, index)?)
}
