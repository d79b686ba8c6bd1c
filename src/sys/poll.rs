//! Waiting for descriptors, and a clock that is one.

use super::Kernel;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Readable,
    Writable,
}

impl Kernel {
    /// poll(2) of one descriptor: whether it is ready within `timeout`, rounded up to milliseconds.
    pub(crate) fn poll(
        &self,
        fd: BorrowedFd<'_>,
        readiness: Readiness,
        timeout: Duration,
    ) -> io::Result<bool> {
        self.step("poll")?;
        let events = match readiness {
            Readiness::Readable => libc::POLLIN,
            Readiness::Writable => libc::POLLOUT,
        };
        let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let milliseconds = libc::c_int::try_from(milliseconds).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd, which lives as long as the call.
        match unsafe { libc::poll(&raw mut polled, 1, milliseconds) } {
            ..0 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            ready => Ok(ready > 0),
        }
    }

    /// A clock that is readable some time after it was [set](Self::set_timer).
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn timer(&self) -> io::Result<OwnedFd> {
        self.step("timerfd_create")?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: timerfd_create(2) takes no pointer.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Lets a [`timer`](Self::timer) be readable once, after so long.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn set_timer(&self, timer: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
        self.step("timerfd_settime")?;
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).map_err(io::Error::other)?,
            // Zero of both would stop it.
            tv_nsec: libc::c_long::from(after.subsec_nanos().max(1)),
        };
        let timing = libc::itimerspec { it_interval: zero, it_value: value };
        let old = std::ptr::null_mut();
        // SAFETY: a live itimerspec, which is only read, and no room for the old one.
        match unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const timing, old) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
