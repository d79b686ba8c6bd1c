//! Sleeping until a socket has something to do.

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// How long a program sleeps before it looks whether it is to end, in milliseconds.
const LONG: u8 = 100;
/// The same while packets are under way: nothing tells that they have been sent.
const SHORT: u8 = 1;

/// Until a packet has come, or for a short time. It is also the call that lets the kernel work on the rings.
pub(crate) fn for_packets(socket: impl AsFd, under_way: bool) -> Result<()> {
    wait(&socket, PollFlags::POLLIN, if under_way { SHORT } else { LONG })
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
