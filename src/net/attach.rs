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

/// The outcome of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    Done,
    /// What was attached is not what was expected. Nothing was changed.
    Lost,
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
        program: Option<BorrowedFd<'_>>,
        expected: Option<BorrowedFd<'_>>,
        mode: Mode,
    ) -> Result<Swap> {
        let guard =
            if expected.is_some() { XDP_FLAGS_REPLACE } else { XDP_FLAGS_UPDATE_IF_NOEXIST };
        let flags = mode.flags() | guard;
        let index = self.interface.index();
        match self.kernel.link_set_xdp(&self.socket, index, program, expected, flags) {
            Ok(()) => Ok(Swap::Done),
            Err(error) => match error.source.raw_os_error() {
                // net/core/dev.c, dev_xdp_attach(): EEXIST where the expected program is not there (and,
                // for the other mode, where one is), EBUSY where something is and nothing should be.
                Some(libc::EEXIST | libc::EBUSY) if self.changed(expected)? => Ok(Swap::Lost),
                _ => Err(self.error("attach to", error, mode)),
            },
        }
    }

    /// Whether what is attached is not what the swap expected: the two errnos have other causes too.
    fn changed(&self, expected: Option<BorrowedFd<'_>>) -> Result<bool> {
        let now = self.query()?.map(|attached| attached.program);
        let Some(expected) = expected else {
            return Ok(now.is_some());
        };
        let expected = self.kernel.prog_info(expected).during("query", "the expected program")?;
        Ok(now != Some(expected.id))
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
