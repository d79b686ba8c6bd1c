//! Sockets: how one is bound, and what it tells.

#![forbid(unsafe_code)]

mod bind;
mod builder;
mod options;

pub use builder::{Bound, End, Sharing, SharingBuilder, SocketBuilder};
pub use options::{BindMode, BusyPoll, Granted, Prefill, Statistics};

use super::program::DefaultProgram;
use super::socket_core::SocketCore;
use super::umem::{Exclusive, Kind, Umem};
use crate::error::{Context, Result};
use crate::net::Interface;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A socket that is bound to a queue of an interface.
///
/// The kernel closes it when this and all its rings are gone.
#[derive(Debug)]
pub struct Socket<K: Kind = Exclusive> {
    /// Left before the socket is closed.
    program: Option<DefaultProgram>,
    core: Arc<SocketCore>,
    umem: Umem<K>,
    interface: Interface,
    queue: u32,
    granted: Granted,
}

/// To wait with poll(2) or epoll(7): readable when a packet has come, writable while at most half of the TX ring is full.
/// Nothing tells that a packet was sent, and epoll(7) does not tell that the device has gone ([`check`](Socket::check)).
impl<K: Kind> AsFd for Socket<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.fd.as_fd()
    }
}

impl<K: Kind> Socket<K> {
    /// Begins a socket for a queue of an interface. At least one of [`rx`](SocketBuilder::rx) and [`tx`](SocketBuilder::tx) is
    /// needed.
    #[doc(alias = "xsk_socket__create")]
    pub fn builder(umem: &Umem<K>, interface: &Interface, queue: u32) -> SocketBuilder<K> {
        SocketBuilder::new(umem, interface, queue)
    }

    /// Begins another socket on the same queue, which has the same fill and completion ring: what it sends comes back in
    /// this socket's completion ring. Each is found in the XSKMAP by its own key.
    #[doc(alias = "xsk_socket__create_shared")]
    pub fn share(&self) -> SharingBuilder<'_, K> {
        SharingBuilder::new(self)
    }

    /// The memory that its frames are in.
    pub fn umem(&self) -> &Umem<K> {
        &self.umem
    }

    /// The interface that it is bound to.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The queue that it is bound to.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// What the kernel has granted.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// Its share in the default program, if it was [asked for](SocketBuilder::default_program).
    pub fn default_program(&self) -> Option<&DefaultProgram> {
        self.program.as_ref()
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os).
    pub fn statistics(&self) -> Result<Statistics> {
        let raw =
            self.core.kernel.xsk_statistics(self.as_fd()).during("read statistics of", self)?;
        Ok(Statistics::from_raw(&raw.0, raw.1))
    }

    /// Whether the device is still there.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) with `ENETDOWN` once it has gone.
    pub fn check(&self) -> Result<()> {
        self.core.check().during("use", self)
    }
}

/// As `queue 3 of eth0 (ifindex 2) in netns:[4026531840]`.
impl<K: Kind> std::fmt::Display for Socket<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue {} of {}", self.queue, self.interface)
    }
}
