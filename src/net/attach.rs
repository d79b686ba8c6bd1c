//! What is attached to an interface, and the compare-and-swap that changes it.

use super::Interface;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::netlink::{LinkInfo, NetlinkError, RouteSocket, Which, XdpIds};
use libbpf_sys::{
    XDP_FLAGS_DRV_MODE, XDP_FLAGS_REPLACE, XDP_FLAGS_SKB_MODE, XDP_FLAGS_UPDATE_IF_NOEXIST,
};
use std::fmt;
use std::os::fd::BorrowedFd;

/// Where in the kernel's receive path programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// In the driver, before the packet has an skb. Fails where the driver cannot do it.
    Native,
    /// In the network stack, on any device; slower.
    Skb,
    /// The mode of what is attached; on an empty interface native where the driver can, else skb.
    #[default]
    Unspecified,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Unspecified => "unspecified",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Skb => XDP_FLAGS_SKB_MODE,
            Self::Unspecified => 0,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The program that runs on the host's CPU for an interface, and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program: u32,
    pub(crate) mode: Mode,
}

/// A program with its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) id: u32,
}

/// The outcome of a swap.
#[derive(Debug)]
pub(crate) enum Swap {
    Done,
    /// What was attached is not what was expected. Nothing was changed.
    Lost,
    /// It failed, and nothing was changed.
    Failed(Error),
    /// The kernel's answer was lost, and so was that to the question what is attached now.
    Unknown(Error),
}

/// An interface with the socket to ask about it and change it.
#[derive(Debug)]
pub(crate) struct Attachment<'a> {
    kernel: &'a Kernel,
    interface: &'a Interface,
    socket: RouteSocket,
}

impl<'a> Attachment<'a> {
    pub(crate) fn open(kernel: &'a Kernel, interface: &'a Interface) -> Result<Self> {
        let socket = interface.netns().enter(kernel, || kernel.route_socket())?;
        let socket = socket.during("open a route socket for", interface)?;
        Ok(Self { kernel, interface, socket })
    }

    /// What is attached now. Where programs run in several modes at once, the native one counts.
    pub(crate) fn query(&self) -> Result<Option<Attached>> {
        let link = self.kernel.link_get(&self.socket, Which::Index(self.interface.index()));
        let link: LinkInfo = link.map_err(|error| self.error("query", error, Mode::Unspecified))?;
        Ok(attached(link.xdp))
    }

    /// Puts `program` in the place of `expected`, or of nothing; atomic in the kernel.
    ///
    /// Needs `CAP_NET_ADMIN`, and for `expected` kernel 5.7.
    pub(crate) fn swap(
        &self,
        operation: &'static str,
        program: Option<Known<'_>>,
        expected: Option<Known<'_>>,
        mode: Mode,
    ) -> Swap {
        let guard =
            if expected.is_some() { XDP_FLAGS_REPLACE } else { XDP_FLAGS_UPDATE_IF_NOEXIST };
        let flags = mode.flags() | guard;
        let index = self.interface.index();
        let (new, old) = (program.map(|known| known.fd), expected.map(|known| known.fd));
        let swapped = self.kernel.link_set_xdp(&self.socket, index, new, old, flags);
        let Err(error) = swapped else { return Swap::Done };
        // net/core/dev.c, dev_xdp_attach(): EEXIST where the expected program is not there (and, for the other
        // mode, where one is), EBUSY where something is and nothing should be. Both have other causes too.
        let is_race = matches!(error.source.raw_os_error(), Some(libc::EEXIST | libc::EBUSY));
        let is_answer = error.is_answer;
        let error = self.error(operation, error, mode);
        if is_answer && !is_race {
            return Swap::Failed(error);
        }
        let id = |known: Option<Known<'_>>| known.map(|known| known.id);
        match self.query().map(|attached| attached.map(|attached| attached.program)) {
            Ok(now) if !is_answer && now == id(program) => Swap::Done,
            Ok(now) if now == id(expected) => Swap::Failed(error),
            Ok(_) if is_race => Swap::Lost,
            Ok(_) => Swap::Failed(error),
            Err(_) if is_answer => Swap::Failed(error),
            Err(_) => Swap::Unknown(error),
        }
    }

    fn error(&self, operation: &'static str, error: NetlinkError, mode: Mode) -> Error {
        let kind = match error.source.raw_os_error() {
            Some(libc::ENODEV) => ErrorKind::NoInterface,
            Some(libc::EPERM) => {
                ErrorKind::NoPrivilege { needs: "CAP_NET_ADMIN in the interface's namespace" }
            }
            Some(libc::EOPNOTSUPP) => ErrorKind::ModeUnsupported {
                mode: mode.name(),
                source: error.source,
                message: error.message.unwrap_or_default(),
            },
            _ => error.into(),
        };
        Error::new(operation, self.interface, kind)
    }
}

impl From<NetlinkError> for ErrorKind {
    fn from(error: NetlinkError) -> Self {
        Self::Os { source: error.source, message: error.message.unwrap_or_default() }
    }
}

fn attached(ids: XdpIds) -> Option<Attached> {
    match ids {
        XdpIds { native: program @ 1.., .. } => Some(Attached { program, mode: Mode::Native }),
        XdpIds { skb: program @ 1.., .. } => Some(Attached { program, mode: Mode::Skb }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_program_counts_where_there_are_two() {
        let ids = |native, skb, hardware| XdpIds { attached: 4, native, skb, hardware };
        assert_eq!(attached(ids(0, 0, 0)), None);
        assert_eq!(attached(ids(0, 0, 3)), None);
        assert_eq!(attached(ids(0, 2, 0)), Some(Attached { program: 2, mode: Mode::Skb }));
        assert_eq!(attached(ids(1, 2, 0)), Some(Attached { program: 1, mode: Mode::Native }));
    }
}
