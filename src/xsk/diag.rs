//! Which AF_XDP sockets there are, whoever has them: what `ss --xdp` shows.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Netns;
use crate::sys::Kernel;
use crate::sys::sock_diag::{XDP_DU_F_ZEROCOPY, XdpSocket, XdpUmem};
use std::collections::HashSet;

const LIST: &str = "list the AF_XDP sockets of";
const COUNT: &str = "count the AF_XDP sockets of";
/// What every protocol has in use in the namespace of the thread that reads it.
const PROTOCOLS: &str = "/proc/thread-self/net/protocols";

/// An AF_XDP socket of some process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SocketInfo {
    /// Its inode, as in `socket:[4711]`, what a link in `/proc/PID/fd` says.
    pub inode: u32,
    /// `SO_COOKIE`: no other socket has it until reboot.
    pub cookie: u64,
    /// Ifindex of the device that it is bound to, in the socket's namespace. `None` while it is not bound.
    pub interface: Option<u32>,
    /// The device's queue. 0 while it is not bound.
    pub queue: u32,
    /// User that made it, as the caller's user namespace knows it; 65534 if it does not.
    pub uid: Option<u32>,
    /// Descriptors in the RX ring; `None` if it has none.
    pub rx_ring: Option<u32>,
    /// Descriptors in the TX ring; `None` if it has none.
    pub tx_ring: Option<u32>,
    /// Addresses in the fill ring. `None` while it is not bound; sockets that share a queue share it.
    pub fill_ring: Option<u32>,
    /// Addresses in the completion ring. `None` while it is not bound; sockets that share a queue share it.
    pub completion_ring: Option<u32>,
    /// Its packet memory; `None` if it has none yet.
    pub umem: Option<UmemInfo>,
    /// What it has of the kernel's memory.
    pub memory: Option<MemoryInfo>,
    /// What went wrong so far. `None` before kernel 5.9.
    pub statistics: Option<SocketStatistics>,
}

/// Packet memory of an AF_XDP socket. Sockets with the same id share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UmemInfo {
    /// Its number, used again when it is gone.
    pub id: u32,
    /// Bytes.
    pub size: u64,
    /// Pages that it has locked.
    pub pages: u32,
    /// Bytes of a chunk, which holds one packet.
    pub chunk_size: u32,
    /// Bytes at the start of each chunk that the kernel leaves to the process.
    pub headroom: u32,
    /// Whether the device reads and writes it itself.
    pub is_zero_copy: bool,
    /// How many sockets use it, and what else in the kernel does.
    pub references: u32,
}

/// What a socket has of the kernel's memory (`sk_get_meminfo`, net/core/sock.c), in bytes but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryInfo {
    /// In use for receiving.
    pub receive_used: u32,
    /// `SO_RCVBUF`
    pub receive_limit: u32,
    /// In use for sending: packets that were copied out of the TX ring and are not sent yet.
    pub send_used: u32,
    /// `SO_SNDBUF`: with more in use, a copying socket sends nothing.
    pub send_limit: u32,
    /// Charged ahead of use.
    pub charged_ahead: u32,
    /// Queued for sending.
    pub send_queued: u32,
    /// In use for options.
    pub options: u32,
    /// In the backlog.
    pub backlog: u32,
    /// Packets dropped for want of room.
    pub dropped: u32,
}

/// What went wrong at a socket so far, in packets or in times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SocketStatistics {
    /// Packets that were dropped, for other reasons than a full RX ring.
    pub rx_dropped: u64,
    /// Addresses in the fill ring that the kernel refused.
    pub rx_invalid: u64,
    /// Packets that were dropped since the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that a packet came and the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Descriptors in the TX ring that the kernel refused.
    pub tx_invalid: u64,
    /// Times that the kernel looked into the TX ring and found it empty.
    pub tx_ring_empty: u64,
}

/// The AF_XDP sockets of a namespace, the newest first, by whatever process. No capability is needed but that to enter
/// the namespace.
///
/// It is no snapshot: a socket that comes or goes meanwhile may be left out, or cause another one to be.
///
/// The kernel's list ends, without a word, before the first socket whose device is gone: that one is not in it, and
/// nor are those made before (`xsk_diag_fill`, net/xdp/xsk_diag.c, since 6.6 and its backports). Where that matters,
/// compare with [`count_sockets_in`].
///
/// # Errors
/// [`ErrorKind::NotSupported`] from a kernel without `CONFIG_XDP_SOCKETS_DIAG`, which came with 5.1, or whose module
/// `xsk_diag` cannot be loaded.
pub fn sockets_in(netns: &Netns) -> Result<Vec<SocketInfo>> {
    let kernel = Kernel::default();
    let listed = netns.enter(&kernel, || kernel.xdp_sockets())?.during(LIST, netns)?;
    let missing = ErrorKind::NotSupported {
        feature: "the list of AF_XDP sockets",
        needs: "CONFIG_XDP_SOCKETS_DIAG (module xsk_diag), kernel 5.1",
    };
    Ok(once_each(listed.ok_or(missing).during(LIST, netns)?))
}

/// A listing goes on by position: one whose place a newer socket took meanwhile is in it twice.
fn once_each(listed: Vec<XdpSocket>) -> Vec<SocketInfo> {
    let mut seen = HashSet::new();
    let fresh = listed.into_iter().filter(|socket| seen.insert(socket.cookie));
    fresh.map(SocketInfo::from).collect()
}

/// How many AF_XDP sockets a namespace has, those whose device is gone too. No capability is needed but that to enter
/// the namespace, and no `CONFIG_XDP_SOCKETS_DIAG`.
///
/// # Errors
/// [`ErrorKind::NotSupported`] from a kernel without `CONFIG_XDP_SOCKETS`.
pub fn count_sockets_in(netns: &Netns) -> Result<u32> {
    let kernel = Kernel::default();
    let text = netns.enter(&kernel, || kernel.read_file(PROTOCOLS))?.during(COUNT, netns)?;
    let missing = ErrorKind::NotSupported { feature: "AF_XDP", needs: "CONFIG_XDP_SOCKETS" };
    in_use(&String::from_utf8_lossy(&text)).ok_or_else(|| Error::new(COUNT, netns, missing))
}

/// The third column of the line of XDP (`proto_seq_printf`, net/core/sock.c).
fn in_use(protocols: &str) -> Option<u32> {
    protocols.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        columns.next().filter(|name| *name == "XDP")?;
        columns.nth(1)?.parse().ok()
    })
}

impl From<XdpSocket> for SocketInfo {
    fn from(socket: XdpSocket) -> Self {
        Self {
            inode: socket.inode,
            cookie: socket.cookie,
            interface: (socket.interface != 0).then_some(socket.interface),
            queue: socket.queue,
            uid: socket.uid,
            rx_ring: socket.rx_ring,
            tx_ring: socket.tx_ring,
            fill_ring: socket.fill_ring,
            completion_ring: socket.completion_ring,
            umem: socket.umem.map(UmemInfo::from),
            memory: socket.memory.map(MemoryInfo::from),
            statistics: socket.statistics.map(SocketStatistics::from),
        }
    }
}

impl From<XdpUmem> for UmemInfo {
    fn from(umem: XdpUmem) -> Self {
        let XdpUmem { size, id, pages, chunk_size, headroom, flags, references } = umem;
        let is_zero_copy = flags & XDP_DU_F_ZEROCOPY != 0;
        Self { id, size, pages, chunk_size, headroom, is_zero_copy, references }
    }
}

impl From<[u32; 9]> for MemoryInfo {
    /// In the order of `SK_MEMINFO_*`.
    fn from(numbers: [u32; 9]) -> Self {
        let [
            receive_used,
            receive_limit,
            send_used,
            send_limit,
            charged_ahead,
            send_queued,
            options,
            backlog,
            dropped,
        ] = numbers;
        Self {
            receive_used,
            receive_limit,
            send_used,
            send_limit,
            charged_ahead,
            send_queued,
            options,
            backlog,
            dropped,
        }
    }
}

impl From<[u64; 6]> for SocketStatistics {
    /// In the order of `struct xdp_diag_stats`.
    fn from(numbers: [u64; 6]) -> Self {
        let [rx_dropped, rx_invalid, rx_ring_full, fill_ring_empty, tx_invalid, tx_ring_empty] =
            numbers;
        Self { rx_dropped, rx_invalid, rx_ring_full, fill_ring_empty, tx_invalid, tx_ring_empty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_counted() {
        let text = "protocol  size sockets  memory press maxhdr  slab module     cl co\n\
                    PACKET    1600      2      -1   NI       0   no   kernel      n  n\n\
                    XDP       1088     13      -1   NI       0   no   kernel      n  n\n";
        assert_eq!(in_use(text), Some(13));
        for text in ["", "XDP", "XDP 1088", "XDP 1088 -1", "XDPX 1088 1"] {
            assert_eq!(in_use(text), None, "{text}");
        }
    }

    #[test]
    fn a_socket_that_is_listed_twice_is_one() {
        let socket = |cookie| XdpSocket { cookie, ..Default::default() };
        let sockets = once_each(vec![socket(3), socket(2), socket(2), socket(1)]);
        assert_eq!(sockets.iter().map(|socket| socket.cookie).collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn a_socket_that_is_not_bound_has_no_interface() {
        let bound = XdpSocket { interface: 7, ..Default::default() };
        assert_eq!(SocketInfo::from(bound).interface, Some(7));
        assert_eq!(SocketInfo::from(XdpSocket::default()).interface, None);
    }

    #[test]
    fn zero_copy_is_one_flag_of_many() {
        let zero_copy =
            |flags| UmemInfo::from(XdpUmem { flags, ..Default::default() }).is_zero_copy;
        assert_eq!([0, 1, 2, 3].map(zero_copy), [false, true, false, true]);
    }
}
