//! A netlink socket: one request at a time, and the answer to it.

use super::NetlinkError;
use super::wire::{Listing, Message, Reply, parse, u32_at};
use crate::sys::Kernel;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `sizeof(struct sockaddr_nl)`
const SENDER_SIZE: libc::socklen_t = 12;
const _: () = assert!(size_of::<libc::sockaddr_nl>() == 12);
/// The port of the kernel.
const KERNEL: u32 = 0;
/// One datagram of an answer, in bytes; the kernel's own tools use as much.
const ANSWER: usize = 32 * 1024;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;

/// A socket of one of netlink's protocols. It stays in the namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// Number of the last request. An answer carries that of its request.
    sequence: u32,
    /// Room for an answer.
    answer: Box<[u8]>,
}

impl Kernel {
    /// A socket in the calling thread's namespace. `EPROTONOSUPPORT` if the kernel does not have the protocol.
    pub(crate) fn netlink_socket(&self, protocol: libc::c_int) -> io::Result<Socket> {
        self.step("socket")?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: on is a live int of the size that is passed. A kernel that does not know the option
            // refuses it, and then answers without the text: no reason to stop.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    4,
                )
            };
        }
        Ok(Socket { fd: socket, sequence: 0, answer: vec![0; ANSWER].into() })
    }
}

impl Socket {
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a request and waits for the first message of its answer.
    pub(crate) fn exchange(&mut self, request: Message) -> Result<Reply<'_>, NetlinkError> {
        self.send(request)?;
        parse(self.answer()?)
    }

    /// Sends a request for a list and gives each message of it to `take`. False if what is listed was changed
    /// while it was listed, as far as the kernel tells.
    pub(crate) fn list(
        &mut self,
        request: Message,
        mut take: impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<bool, NetlinkError> {
        self.send(request)?;
        let mut listing = Listing::default();
        while !listing.is_done {
            listing.read(self.answer()?, &mut take)?;
        }
        Ok(!listing.is_interrupted)
    }

    fn send(&mut self, request: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.finish(self.sequence);
        let fd = self.fd.as_raw_fd();
        // SAFETY: request is live and as long as the size beside it.
        let sent = unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next datagram of the answer to the last request. What others send to the socket, and late answers to
    /// earlier requests, are passed over.
    fn answer(&mut self) -> io::Result<&[u8]> {
        loop {
            let (size, sender) = self.receive()?;
            let answer = self.answer.get(..size).unwrap_or_default();
            if sender == KERNEL && u32_at(answer, 8) == Some(self.sequence) {
                // Said anew: the borrow checker does not let a loop return what it has borrowed.
                return Ok(self.answer.get(..size).unwrap_or_default());
            }
        }
    }

    /// Receives a datagram into the answer; its size, and the port that it came from.
    fn receive(&mut self) -> io::Result<(usize, u32)> {
        // SAFETY: sockaddr_nl is plain integers, for which all zeroes is a value.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        loop {
            let mut size = SENDER_SIZE;
            // SAFETY: the answer has the room that the size beside it says, and so has from.
            let got = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    self.answer.as_mut_ptr().cast(),
                    self.answer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            if let Ok(got) = usize::try_from(got) {
                return Ok((got, from.nl_pid));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}
