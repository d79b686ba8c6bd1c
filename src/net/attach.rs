//! What is attached to an interface, and the compare-and-swap that changes it.

use super::Interface;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::bpf::LinkKind;
use crate::sys::netlink::{Expected, LinkInfo, NetlinkError, Which, XdpIds};
use libbpf_sys::{
    BPF_LINK_GET_NEXT_ID, XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE, XDP_FLAGS_REPLACE,
    XDP_FLAGS_SKB_MODE, XDP_FLAGS_UPDATE_IF_NOEXIST,
};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often an attach to an empty interface is tried again that the kernel calls busy, though nothing is there any more.
const REPEATS: u64 = 5;

/// Where in the kernel's receive path programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Mode {
    /// In the driver, before the packet has an skb. Fails where the driver cannot do it.
    Native,
    /// In the network stack, on any device; slower.
    Skb,
    /// On the device itself, for the few that can. Only a program without a dispatcher can run there.
    Hardware,
    /// The mode of what is attached; on an empty interface native where the driver can, else skb.
    #[default]
    Unspecified,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Hardware => "hardware",
            Self::Unspecified => "unspecified",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Skb => XDP_FLAGS_SKB_MODE,
            Self::Hardware => XDP_FLAGS_HW_MODE,
            Self::Unspecified => 0,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a program is held on its interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachBy {
    /// It stays until somebody takes it off: the protocol's way, which C libxdp can go on with.
    #[default]
    Netlink,
    /// By a `bpf_link` (kernel 5.9): it stays as long as the link is pinned or held open, and C libxdp cannot change
    /// it. When the last pin or descriptor goes, with a container's bpf file system or with a process, the interface is
    /// clean.
    Link,
}

/// How what is attached is held there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttachedBy {
    /// By netlink: it stays until somebody takes it off.
    Netlink,
    /// By a `bpf_link`: it stays as long as that does.
    Link {
        /// The link's id.
        id: u32,
    },
}

/// As `netlink` or `link 7`.
impl fmt::Display for AttachedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink => f.write_str("netlink"),
            Self::Link { id } => write!(f, "link {id}"),
        }
    }
}

/// A `bpf_link` that holds a program on an interface: as long as this value or a clone of it, or a pin, exists.
#[derive(Clone, Debug)]
pub struct Link {
    fd: Arc<OwnedFd>,
    id: u32,
}

impl Link {
    /// Its id, unique in the kernel.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Link {}

/// The program that runs for an interface, and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program: u32,
    pub(crate) mode: Mode,
}

impl Attached {
    /// Both that can be: one on the host and one on the device.
    pub(crate) fn of(ids: XdpIds) -> impl Iterator<Item = Self> {
        attached(ids).into_iter().chain(on_device(ids))
    }
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
}

impl<'a> Attachment<'a> {
    pub(crate) fn new(kernel: &'a Kernel, interface: &'a Interface) -> Self {
        Self { kernel, interface }
    }

    /// What is attached now. Where programs run on the host and on the device at once, the host's counts.
    pub(crate) fn query(&self) -> Result<Option<Attached>> {
        self.query_for(Mode::Unspecified)
    }

    /// What is attached now, and what is on the device beside a program on the host.
    pub(crate) fn query_both(&self) -> Result<(Option<Attached>, Option<Attached>)> {
        let ids = self.ids()?;
        Ok(match (attached(ids), on_device(ids)) {
            (None, device) => (device, None),
            both => both,
        })
    }

    fn ids(&self) -> Result<XdpIds> {
        let index = Which::Index(self.interface.index());
        let link = self.kernel.link_get(&mut self.interface.socket(), index);
        let link: LinkInfo = link.map_err(|error| self.error("query", error, Mode::Unspecified))?;
        Ok(link.xdp)
    }

    /// What is attached now and in the way of an attach in `mode`: a program on the device is in that of no other
    /// but one for the device.
    pub(crate) fn query_for(&self, mode: Mode) -> Result<Option<Attached>> {
        let ids = self.ids()?;
        Ok(match mode {
            Mode::Hardware => on_device(ids),
            Mode::Unspecified => attached(ids).or_else(|| on_device(ids)),
            _ => attached(ids),
        })
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
        let new = program.map(|known| known.fd);
        let old = expected.map(|known| Expected::Program(known.fd));
        let id = |known: Option<Known<'_>>| known.map(|known| known.id);
        let mut repeats = 0;
        loop {
            let start = Instant::now();
            let swapped =
                self.kernel.link_set_xdp(&mut self.interface.socket(), index, new, old, flags);
            log::debug!("RTM_SETLINK took {} us", start.elapsed().as_micros());
            let Err(error) = swapped else { return Swap::Done };
            // net/core/dev.c, dev_xdp_attach(): EEXIST where the expected program is not there (and, for the other
            // mode, where one is), EBUSY where something is and nothing should be. Both have other causes too.
            let is_race = matches!(error.source.raw_os_error(), Some(libc::EEXIST | libc::EBUSY));
            let is_answer = error.is_answer;
            let error = self.error(operation, error, mode);
            if is_answer && !is_race {
                return Swap::Failed(error);
            }
            let now =
                self.query_for(mode).map(|attached| attached.map(|attached| attached.program));
            return match now {
                Ok(now) if !is_answer && now == id(program) => Swap::Done,
                // What was in the way has gone again, or something else is: that does not pass.
                Ok(None) if is_answer && expected.is_none() && repeats < REPEATS => {
                    repeats += 1;
                    std::thread::sleep(Duration::from_millis(repeats));
                    continue;
                }
                Ok(now) if now == id(expected) => Swap::Failed(error),
                Ok(_) if is_race => Swap::Lost,
                Ok(_) => Swap::Failed(error),
                Err(_) if is_answer => Swap::Failed(error),
                Err(_) => Swap::Unknown(error),
            };
        }
    }

    /// Holds `program` on the interface, where nothing is attached yet, by a link. Needs `CAP_NET_ADMIN` and
    /// kernel 5.9.
    pub(crate) fn link(
        &self,
        operation: &'static str,
        program: Known<'_>,
        mode: Mode,
    ) -> Result<Linked> {
        let (index, flags) = (self.interface.index(), mode.flags());
        let linked = self
            .interface
            .netns()
            .enter(self.kernel, || self.kernel.link_xdp(program.fd, index, flags))?;
        let error = match linked {
            Ok(fd) => {
                let id = self.kernel.link_info(fd.as_fd()).during("query", "the new link")?.id;
                return Ok(Linked::Done(Link { fd: Arc::new(fd), id }));
            }
            Err(error) => error,
        };
        // EEXIST where what is there runs in the other mode.
        let is_race = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
        if is_race && self.query_for(mode)?.is_some() {
            return Ok(Linked::Lost);
        }
        // The kernel says EINVAL for an interface that has gone.
        if error.raw_os_error() == Some(libc::EINVAL) {
            self.query()?;
        }
        Err(self.error(operation, error.into(), mode))
    }

    /// Puts `new` in the place of `expected` within a link.
    pub(crate) fn swap_within(
        &self,
        operation: &'static str,
        link: &Link,
        new: Known<'_>,
        expected: Known<'_>,
        mode: Mode,
    ) -> Swap {
        let Err(error) = self.kernel.link_update(link.as_fd(), new.fd, expected.fd) else {
            return Swap::Done;
        };
        // net/core/dev.c, bpf_xdp_link_update(): EPERM where the link holds another program, ENOLINK where its
        // interface is gone or it was detached.
        match error.raw_os_error() {
            Some(libc::EPERM) if self.holds(link) != Some(expected.id) => Swap::Lost,
            Some(libc::ENOLINK) => match self.query() {
                Ok(_) => Swap::Lost,
                Err(error) => Swap::Failed(error),
            },
            _ => Swap::Failed(self.error(operation, error.into(), mode)),
        }
    }

    /// Takes `program` off, which a link holds; `false` if that holds another one.
    pub(crate) fn unlink(
        &self,
        operation: &'static str,
        link: &Link,
        program: u32,
    ) -> Result<bool> {
        let held = self.kernel.link_info(link.as_fd()).during("query the link on", self.interface);
        if held?.program != program {
            return Ok(false);
        }
        let detached = self.kernel.link_detach(link.as_fd());
        detached.map_err(|error| self.error(operation, error.into(), Mode::Unspecified))?;
        Ok(true)
    }

    /// The program that a link holds; `None` if that cannot be asked.
    fn holds(&self, link: &Link) -> Option<u32> {
        Some(self.kernel.link_info(link.as_fd()).ok()?.program)
    }

    /// Whether what is attached in `mode` is held by a link; `None` if that cannot be asked.
    ///
    /// Asked by a swap that cannot be done: nothing for nothing, where there is something. The kernel refuses it because
    /// of the link, or because of what is there (net/core/dev.c, dev_xdp_attach()).
    fn is_held_by_link(&self, mode: Mode) -> Option<bool> {
        let flags = mode.flags() | XDP_FLAGS_REPLACE;
        let nothing = Expected::Nothing;
        let index = self.interface.index();
        let swapped = self.kernel.link_set_xdp(
            &mut self.interface.socket(),
            index,
            None,
            Some(nothing),
            flags,
        );
        match swapped.err()?.source.raw_os_error() {
            Some(libc::EBUSY) => Some(true),
            Some(libc::EEXIST) => Some(false),
            _ => None,
        }
    }

    /// The link that holds `attached` on the interface, if one does.
    pub(crate) fn holder(&self, attached: Attached) -> Result<Option<Link>> {
        match self.is_held_by_link(attached.mode) {
            Some(false) => Ok(None),
            _ => self.find_link(attached.program),
        }
    }

    /// The link that holds `program` on an interface of this number. Looks at all links in the kernel, which do not tell
    /// their namespace; needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`ErrorKind::AmbiguousLink`] if there are several: another namespace can have an interface of the same number,
    /// and the same program on it.
    fn find_link(&self, program: u32) -> Result<Option<Link>> {
        const FIND: &str = "look for the link on";
        let find = || -> io::Result<Vec<Link>> {
            let mut found = Vec::new();
            for id in self.kernel.ids(BPF_LINK_GET_NEXT_ID)? {
                let fd = match self.kernel.link_by_id(id) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    other => other?,
                };
                let info = self.kernel.link_info(fd.as_fd())?;
                let ifindex = self.interface.index();
                if info.program == program && info.kind == (LinkKind::Xdp { ifindex }) {
                    found.push(Link { fd: Arc::new(fd), id });
                }
            }
            Ok(found)
        };
        let found = find().map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN"));
        let mut found = found.during(FIND, self.interface)?;
        if found.len() > 1 {
            let links = found.iter().map(Link::id).collect();
            return Err(Error::new(
                FIND,
                self.interface,
                ErrorKind::AmbiguousLink { program, links },
            ));
        }
        Ok(found.pop())
    }

    /// A pinned link, if it is what holds `program`.
    pub(crate) fn adopt(&self, fd: OwnedFd, program: u32) -> io::Result<Option<Link>> {
        if !self.kernel.is_link(fd.as_fd())? {
            return Ok(None);
        }
        let info = self.kernel.link_info(fd.as_fd())?;
        let is_it = info.program == program && matches!(info.kind, LinkKind::Xdp { .. });
        Ok(is_it.then(|| Link { fd: Arc::new(fd), id: info.id }))
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
            // ERANGE is veth's answer; other drivers say in words only that it is the MTU.
            errno if errno == Some(libc::ERANGE) || speaks_of_mtu(&error) => {
                ErrorKind::MtuTooLarge {
                    programs: Vec::new(),
                    source: error.source,
                    message: error.message.unwrap_or_default(),
                }
            }
            _ => error.into(),
        };
        Error::new(operation, self.interface, kind)
    }
}

fn speaks_of_mtu(error: &NetlinkError) -> bool {
    error.message.as_deref().is_some_and(|message| message.to_uppercase().contains("MTU"))
}

/// The outcome of a first attach by a link.
#[derive(Debug)]
pub(crate) enum Linked {
    Done(Link),
    /// Somebody else was faster.
    Lost,
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

fn on_device(ids: XdpIds) -> Option<Attached> {
    let program = ids.hardware;
    (program != 0).then_some(Attached { program, mode: Mode::Hardware })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_program_counts_where_there_are_two() {
        let ids = |native, skb, hardware| XdpIds { attached: 4, native, skb, hardware };
        assert_eq!(attached(ids(0, 0, 0)), None);
        assert_eq!(attached(ids(0, 0, 3)), None);
        assert_eq!(on_device(ids(0, 2, 3)), Some(Attached { program: 3, mode: Mode::Hardware }));
        assert_eq!(attached(ids(0, 2, 0)), Some(Attached { program: 2, mode: Mode::Skb }));
        assert_eq!(attached(ids(1, 2, 0)), Some(Attached { program: 1, mode: Mode::Native }));
    }
}
