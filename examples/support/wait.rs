//! Sleeping until a socket has something to do.

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a program sleeps before it looks whether it is to end, in milliseconds.
const LONG: u8 = 100;
/// The same while packets are under way: nothing tells that they have been sent.
const SHORT: u8 = 1;

/// A moment in which some hundred packets come, when many do.
const NAP: Duration = Duration::from_micros(150);

/// Who receives, and sleeps when there is nothing.
///
/// Who sleeps in poll(2) is woken by the first packet that comes, at the expense of the processor that brings it; when many
/// come, that is a good part of what it does. So after a batch or more it is slept for a moment, without being woken.
#[derive(Debug)]
pub(crate) struct Sleeper {
    batch: u32,
    /// Packets since it slept.
    since: u32,
}

impl Sleeper {
    pub(crate) fn new(batch: u32) -> Self {
        Self { batch, since: 0 }
    }

    /// So many packets have come.
    pub(crate) fn count(&mut self, packets: u32) {
        self.since = self.since.saturating_add(packets);
    }

    /// Until a packet has come, or for a short time. Unless it naps, it is also the call that lets the kernel work on the
    /// rings.
    pub(crate) fn sleep(&mut self, socket: impl AsFd, under_way: bool) -> Result<()> {
        if std::mem::take(&mut self.since) >= self.batch {
            std::thread::sleep(NAP);
            return Ok(());
        }
        wait(&socket, PollFlags::POLLIN, if under_way { SHORT } else { LONG })
    }
}

/// Until there is room to send.
pub(crate) fn for_room(socket: impl AsFd) -> Result<()> {
    wait(&socket, PollFlags::POLLOUT, SHORT)
}

fn wait(socket: &impl AsFd, events: PollFlags, timeout: u8) -> Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), events)], PollTimeout::from(timeout)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
