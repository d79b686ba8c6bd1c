//! What a socket's handles and rings share: its descriptor, and what it is bound to.

#![forbid(unsafe_code)]

use crate::sys::Kernel;
use crate::sys::xsk::{RingKind, XDP_USE_NEED_WAKEUP};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A socket that is bound; closed with the last of its rings.
#[derive(Debug)]
pub(crate) struct SocketCore {
    pub(crate) fd: OwnedFd,
    pub(crate) kernel: Kernel,
    pub(crate) settings: Settings,
    is_gone: AtomicBool,
}

/// What sockets must agree on to share what one of them has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The flags of its bind.
    pub(crate) flags: u16,
    /// Those of its registration.
    pub(crate) umem_flags: u32,
}

impl Settings {
    /// Whether the kernel says in the rings when it sleeps.
    #[inline]
    pub(crate) fn tells_of_sleep(self) -> bool {
        self.flags & XDP_USE_NEED_WAKEUP != 0
    }
}

/// What came of calling the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// The kernel does not sleep, so it was not called.
    Skipped,
    /// It has done what there was to do, or as much as it does in one call.
    Done,
    /// It could not just now, for want of memory or time: try again.
    Again,
}

impl SocketCore {
    pub(crate) fn new(fd: OwnedFd, kernel: Kernel, settings: Settings) -> Self {
        Self { fd, kernel, settings, is_gone: AtomicBool::new(false) }
    }

    /// None: what answers each call with an error.
    #[cfg(any(test, fuzzing))]
    #[allow(clippy::expect_used, reason = "a test without /dev/null is none")]
    pub(crate) fn fake() -> Self {
        let nothing = std::fs::File::open("/dev/null").expect("/dev/null").into();
        Self::new(
            nothing,
            Kernel::default(),
            Settings { flags: XDP_USE_NEED_WAKEUP, umem_flags: 0 },
        )
    }

    /// An error if the device has gone. The kernel tells it once, so it is remembered.
    pub(crate) fn check(&self) -> io::Result<()> {
        if let Some(error) = self.kernel.socket_error(self.fd.as_fd())? {
            log::debug!(target: "oxdp::xsk", "a socket has an error: {error}");
            self.is_gone.store(true, Ordering::Relaxed);
        }
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        Ok(())
    }

    /// Lets the kernel work on a ring.
    pub(crate) fn wake(&self, ring: RingKind) -> io::Result<Wake> {
        let result = match ring {
            RingKind::Tx | RingKind::Completion => self.kernel.xsk_send(self.fd.as_fd()),
            RingKind::Rx | RingKind::Fill => self.kernel.xsk_receive(self.fd.as_fd()),
        };
        match result {
            Ok(()) => Ok(Wake::Done),
            Err(error) => match error.raw_os_error() {
                // EAGAIN: 32 packets, or the budget, were sent in copy mode; ENOBUFS: none could be; EBUSY: the driver is at
                // work.
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EBUSY | libc::EINTR) => Ok(Wake::Again),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for SocketCore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
