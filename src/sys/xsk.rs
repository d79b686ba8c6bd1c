//! Sockets of AF_XDP: their options, their rings, what they are bound to; include/uapi/linux/if_xdp.h.

use super::Kernel;
use super::mmap::{Backing, Mapping};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SOL_XDP: libc::c_int = 283;
const XDP_MMAP_OFFSETS: libc::c_int = 1;
const XDP_RX_RING: libc::c_int = 2;
const XDP_TX_RING: libc::c_int = 3;
const XDP_UMEM_REG: libc::c_int = 4;
const XDP_UMEM_FILL_RING: libc::c_int = 5;
const XDP_UMEM_COMPLETION_RING: libc::c_int = 6;
const XDP_STATISTICS: libc::c_int = 7;
const XDP_OPTIONS: libc::c_int = 8;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
/// include/uapi/asm-generic/socket.h; since kernel 5.11.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

pub(crate) const XDP_SHARED_UMEM: u16 = 1;
pub(crate) const XDP_COPY: u16 = 1 << 1;
pub(crate) const XDP_ZEROCOPY: u16 = 1 << 2;
pub(crate) const XDP_USE_NEED_WAKEUP: u16 = 1 << 3;
pub(crate) const XDP_USE_SG: u16 = 1 << 4;

pub(crate) const XDP_UMEM_UNALIGNED_CHUNK_FLAG: u32 = 1;
pub(crate) const XDP_UMEM_TX_SW_CSUM: u32 = 1 << 1;
pub(crate) const XDP_UMEM_TX_METADATA_LEN: u32 = 1 << 2;

/// In a ring's flags: the kernel sleeps until it is called.
pub(crate) const XDP_RING_NEED_WAKEUP: u32 = 1;

/// One of the four rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingKind {
    Rx,
    Tx,
    Fill,
    Completion,
}

impl RingKind {
    fn option(self) -> libc::c_int {
        match self {
            Self::Rx => XDP_RX_RING,
            Self::Tx => XDP_TX_RING,
            Self::Fill => XDP_UMEM_FILL_RING,
            Self::Completion => XDP_UMEM_COMPLETION_RING,
        }
    }

    /// `XDP_PGOFF_RX_RING` and its like: where mmap(2) finds it.
    fn page_offset(self) -> libc::off_t {
        match self {
            Self::Rx => 0,
            Self::Tx => 0x8000_0000,
            Self::Fill => 0x1_0000_0000,
            Self::Completion => 0x1_8000_0000,
        }
    }
}

/// `struct xdp_umem_reg`. Kernels before 6.8 take a shorter one, and read only its prefix of this.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UmemRegistration {
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) chunk_size: u32,
    pub(crate) headroom: u32,
    pub(crate) flags: u32,
    pub(crate) tx_metadata_length: u32,
}

const _: () = assert!(size_of::<UmemRegistration>() == 32);

/// `struct sockaddr_xdp`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    family: u16,
    pub(crate) flags: u16,
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    pub(crate) shared_umem: u32,
}

const _: () = assert!(size_of::<Address>() == 16);

impl Address {
    #[allow(clippy::cast_possible_truncation, reason = "44 in 16 bits")]
    pub(crate) fn new(flags: u16, ifindex: u32, queue: u32) -> Self {
        Self { family: libc::AF_XDP as u16, flags, ifindex, queue, shared_umem: 0 }
    }
}

/// `struct xdp_ring_offset`: where in a ring's mapping its words are, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingOffsets {
    pub(crate) producer: u64,
    pub(crate) consumer: u64,
    pub(crate) entries: u64,
    pub(crate) flags: u64,
}

/// `struct xdp_mmap_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MmapOffsets {
    rx: RingOffsets,
    tx: RingOffsets,
    fill: RingOffsets,
    completion: RingOffsets,
}

const _: () = assert!(size_of::<MmapOffsets>() == 128);

impl MmapOffsets {
    pub(crate) fn of(&self, ring: RingKind) -> RingOffsets {
        match ring {
            RingKind::Rx => self.rx,
            RingKind::Tx => self.tx,
            RingKind::Fill => self.fill,
            RingKind::Completion => self.completion,
        }
    }
}

/// `struct xdp_statistics`; before kernel 5.9 only the first three.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawStatistics {
    pub(crate) rx_dropped: u64,
    pub(crate) rx_invalid_descriptors: u64,
    pub(crate) tx_invalid_descriptors: u64,
    pub(crate) rx_ring_full: u64,
    pub(crate) rx_fill_ring_empty: u64,
    pub(crate) tx_ring_empty: u64,
}

impl Kernel {
    /// A new socket, of the calling thread's network namespace. `CAP_NET_RAW`.
    pub(crate) fn xsk_socket(&self) -> io::Result<OwnedFd> {
        self.step("socket")?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_XDP, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn xsk_register(
        &self,
        socket: BorrowedFd<'_>,
        umem: &UmemRegistration,
    ) -> io::Result<()> {
        self.set_option(socket, SOL_XDP, XDP_UMEM_REG, umem)
    }

    /// Makes a ring of so many entries.
    pub(crate) fn xsk_make_ring(
        &self,
        socket: BorrowedFd<'_>,
        ring: RingKind,
        entries: u32,
    ) -> io::Result<()> {
        self.set_option(socket, SOL_XDP, ring.option(), &entries)
    }

    pub(crate) fn xsk_offsets(&self, socket: BorrowedFd<'_>) -> io::Result<MmapOffsets> {
        let mut offsets = MmapOffsets::default();
        match self.option(socket, SOL_XDP, XDP_MMAP_OFFSETS, &mut offsets)? {
            length if length == size_of::<MmapOffsets>() => Ok(offsets),
            // Before kernel 5.4, which is older than any that is supported: without the flags.
            length => Err(io::Error::other(format!("offsets of rings in {length} bytes"))),
        }
    }

    /// Maps a ring that has been made.
    pub(crate) fn xsk_map_ring(
        &self,
        socket: BorrowedFd<'_>,
        ring: RingKind,
        length: usize,
    ) -> io::Result<Mapping> {
        self.map(length, Backing::Shared(socket, ring.page_offset()))
    }

    pub(crate) fn xsk_bind(&self, socket: BorrowedFd<'_>, address: &Address) -> io::Result<()> {
        self.step("bind")?;
        let (address, length) = (std::ptr::from_ref(address), size_of::<Address>());
        #[allow(clippy::cast_possible_truncation, reason = "16")]
        // SAFETY: it points to as many readable bytes.
        match unsafe { libc::bind(socket.as_raw_fd(), address.cast(), length as libc::socklen_t) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the socket was bound without copies.
    pub(crate) fn xsk_is_zero_copy(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut flags = 0_u32;
        self.option(socket, SOL_XDP, XDP_OPTIONS, &mut flags)?;
        Ok(flags & XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// The statistics, and how many of them the kernel knows.
    pub(crate) fn xsk_statistics(
        &self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<(RawStatistics, usize)> {
        let mut statistics = RawStatistics::default();
        let length = self.option(socket, SOL_XDP, XDP_STATISTICS, &mut statistics)?;
        Ok((statistics, length / size_of::<u64>()))
    }

    /// How many packets one call sends at most in copy mode; since kernel 6.17.
    pub(crate) fn xsk_set_tx_budget(&self, socket: BorrowedFd<'_>, packets: u32) -> io::Result<()> {
        self.set_option(socket, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &packets)
    }

    /// Lets the socket's calls poll the device instead of its interrupts; since kernel 5.11.
    pub(crate) fn xsk_busy_poll(
        &self,
        socket: BorrowedFd<'_>,
        microseconds: u32,
        budget: u32,
    ) -> io::Result<()> {
        self.set_option(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1_u32)?;
        self.set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds)?;
        self.set_option(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget)
    }

    /// Lets the kernel send what is in the TX ring.
    pub(crate) fn xsk_send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.step("sendto")?;
        let (fd, nothing) = (socket.as_raw_fd(), std::ptr::null());
        // SAFETY: nothing is sent from no buffer to no address: the kernel reads no memory but the rings.
        let sent = unsafe { libc::sendto(fd, nothing, 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Lets the kernel look at the fill ring. Since kernel 5.11 a call does just that; before, poll(2) does it too.
    pub(crate) fn xsk_receive(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match self.xsk_call_receive(socket) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.xsk_poll(socket),
            result => result,
        }
    }

    fn xsk_poll(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.step("poll")?;
        let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: it points to one structure.
        let found = unsafe { libc::poll(&raw mut polled, 1, 0) };
        if found < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn xsk_call_receive(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.step("recvfrom")?;
        let (fd, nothing) = (socket.as_raw_fd(), std::ptr::null_mut());
        let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: nothing is received into no buffer from no address: the kernel writes no memory but the rings.
        let got = unsafe { libc::recvfrom(fd, nothing, 0, libc::MSG_DONTWAIT, address, length) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the error that waits on the socket, as of a device that has gone.
    pub(crate) fn socket_error(&self, socket: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
        let mut errno: libc::c_int = 0;
        self.option(socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut errno)?;
        Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
    }

    fn set_option<T: Copy>(
        &self,
        socket: BorrowedFd<'_>,
        level: libc::c_int,
        name: libc::c_int,
        value: &T,
    ) -> io::Result<()> {
        self.step("setsockopt")?;
        let (fd, value, length) = (socket.as_raw_fd(), std::ptr::from_ref(value), size_of::<T>());
        #[allow(clippy::cast_possible_truncation, reason = "a few bytes")]
        // SAFETY: it points to as many readable bytes, none of them padding in the types that are used.
        match unsafe { libc::setsockopt(fd, level, name, value.cast(), length as libc::socklen_t) }
        {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many bytes the kernel has given.
    fn option<T: Copy>(
        &self,
        socket: BorrowedFd<'_>,
        level: libc::c_int,
        name: libc::c_int,
        value: &mut T,
    ) -> io::Result<usize> {
        self.step("getsockopt")?;
        let (fd, value) = (socket.as_raw_fd(), std::ptr::from_mut(value));
        #[allow(clippy::cast_possible_truncation, reason = "a few bytes")]
        let mut length = size_of::<T>() as libc::socklen_t;
        // SAFETY: it points to as many writable bytes, of integers that may be anything.
        match unsafe { libc::getsockopt(fd, level, name, value.cast(), &raw mut length) } {
            0 => Ok(length as usize),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
