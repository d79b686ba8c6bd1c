//! Waiting for the kernel, without a hang when the device has gone: neither poll(2) nor epoll(7) tells that.

#![forbid(unsafe_code)]

use super::ring::{CompletionRing, RxRing, TxRing};
use super::socket_core::{SocketCore, Wake};
use super::umem::Kind;
use crate::error::{Context, Result};
use crate::sys::poll::Readiness;
use crate::sys::xsk::RingKind;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long is waited before the device is looked after.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long is slept for what is told by nothing: that a packet was sent.
pub(super) const NAP: Duration = Duration::from_micros(200);

/// A point in time, if there is one.
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// How long it is to it, at most `most`; `None` if it has passed.
    fn left(&self, most: Duration) -> Option<Duration> {
        let Some(end) = self.0 else { return Some(most) };
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(most))
    }
}

impl<K: Kind> RxRing<K> {
    /// Waits until a packet has come; `false` if none has within `timeout`, which is for ever if it is `None`.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) with `ENETDOWN`, at most 100 ms after the device has gone; and as for [`peek`](Self::peek).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            if !self.is_empty()? {
                return Ok(true);
            }
            let Some(left) = deadline.left(LOOK) else { return Ok(false) };
            poll(self.socket(), Readiness::Readable, left).during("wait for", "a packet")?;
        }
    }
}

impl<K: Kind> TxRing<K> {
    /// Waits until at most half of the ring is full; `false` if it is not within `timeout`, which is for ever if it is
    /// `None`. In copy mode waiting sends.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) with `ENETDOWN` or `ENXIO` once the device has gone.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            if self.pending() <= self.size() / 2 {
                return Ok(true);
            }
            let Some(left) = deadline.left(LOOK) else { return Ok(false) };
            self.wake()?;
            poll(self.socket(), Readiness::Writable, left).during("wait for", "room to send")?;
        }
    }

    /// Calls the kernel until it has taken all packets; `false` if some are left after `timeout`. They may be on their
    /// way still: only the completion ring tells which were sent.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn flush(&mut self, timeout: Duration) -> Result<bool> {
        let deadline = Deadline::after(Some(timeout));
        while self.pending() > 0 {
            let Some(left) = deadline.left(NAP) else { return Ok(false) };
            if self.wake()? != Wake::Done {
                self.socket().check().during("send through", "a socket")?;
                std::thread::sleep(left);
            }
        }
        Ok(true)
    }
}

impl<K: Kind> CompletionRing<K> {
    /// Waits until a packet was sent; `false` if none was within `timeout`. Nothing tells it, so it calls the kernel and looks
    /// again, every 200 µs.
    ///
    /// # Errors
    /// [`ErrorKind::Os`](crate::ErrorKind::Os) with `ENETDOWN` or `ENXIO` once the device has gone; and as for [`peek`](Self::peek).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            if !self.is_empty()? {
                return Ok(true);
            }
            let Some(left) = deadline.left(NAP) else { return Ok(false) };
            push(self.socket()).during("wait for", "packets to be sent")?;
            std::thread::sleep(left);
        }
    }
}

/// Lets the kernel send, and looks after the device.
pub(super) fn push(socket: &SocketCore) -> io::Result<()> {
    socket.check()?;
    socket.wake(RingKind::Tx).map(drop)
}

fn poll(socket: &SocketCore, readiness: Readiness, timeout: Duration) -> io::Result<()> {
    if !socket.kernel.poll(socket.as_fd(), readiness, timeout)? {
        socket.check()?;
    }
    Ok(())
}
