//! An AF_XDP socket of the plainest kind: no more than it takes to see packets arrive.

use anyhow::{Result, ensure};
use oxdp::Interface;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SOL_XDP: libc::c_int = 283;
const MMAP_OFFSETS: libc::c_int = 1;
const RX_RING: libc::c_int = 2;
const UMEM_REG: libc::c_int = 4;
const FILL_RING: libc::c_int = 5;
const COMPLETION_RING: libc::c_int = 6;
const PGOFF_FILL_RING: i64 = 0x1_0000_0000;
const COPY: u16 = 1 << 1;

const FRAME: u32 = 4096;
const FRAMES: u32 = 64;
/// More than any ring of ours takes, in bytes: 64 descriptors of 16 and what goes before them.
const RING: usize = 4096;
const SIZE: usize = (FRAME * FRAMES) as usize;

/// `struct xdp_umem_reg`
#[repr(C)]
struct UmemReg {
    address: u64,
    length: u64,
    chunk: u32,
    headroom: u32,
    flags: u32,
    metadata: u32,
}

/// `struct sockaddr_xdp`
#[repr(C)]
struct Address {
    family: u16,
    flags: u16,
    ifindex: u32,
    queue: u32,
    shared: u32,
}

/// Memory of the kernel's or of our own, unmapped when dropped.
#[derive(Debug)]
struct Mapping(usize, usize);

impl Mapping {
    fn new(fd: Option<(BorrowedFd<'_>, i64)>, size: usize) -> Result<Self> {
        let (flags, fd, offset) = match fd {
            Some((fd, offset)) => (libc::MAP_SHARED, fd.as_raw_fd(), offset),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        };
        let both = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size, both, flags, fd, offset) };
        ensure!(at != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Ok(Self(at as usize, size))
    }

    fn at<T>(&self, offset: u64) -> *mut T {
        (self.0 + usize::try_from(offset).unwrap_or(usize::MAX)) as *mut T
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.0 as *mut libc::c_void, self.1) };
    }
}

/// Bound to a queue in copy mode, with room for 64 packets in all.
#[derive(Debug)]
pub(crate) struct Xsk {
    received: Mapping,
    producer: u64,
    taken: u32,
    _fill: Mapping,
    fd: OwnedFd,
    _area: Mapping,
}

impl Xsk {
    pub(crate) fn bind(interface: &Interface, queue: u32) -> Result<Self> {
        let index = interface.index();
        interface.netns().run(|| Self::bind_here(index, queue))?
    }

    #[allow(clippy::indexing_slicing, reason = "an array of known length")]
    fn bind_here(ifindex: u32, queue: u32) -> Result<Self> {
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        ensure!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let area = Mapping::new(None, SIZE)?;
        let (address, length) = (area.0 as u64, SIZE as u64);
        let umem = UmemReg { address, length, chunk: FRAME, headroom: 0, flags: 0, metadata: 0 };
        set(&fd, UMEM_REG, &umem)?;
        for ring in [FILL_RING, COMPLETION_RING, RX_RING] {
            set(&fd, ring, &FRAMES)?;
        }
        // Producer, consumer, descriptors and flags; of RX, TX, fill and completion ring.
        let mut offsets = [0_u64; 16];
        let mut size = libc::socklen_t::try_from(size_of_val(&offsets))?;
        let to = offsets.as_mut_ptr().cast();
        // SAFETY: offsets has the room that size says.
        let got =
            unsafe { libc::getsockopt(fd.as_raw_fd(), SOL_XDP, MMAP_OFFSETS, to, &raw mut size) };
        ensure!(got == 0, "XDP_MMAP_OFFSETS: {}", io::Error::last_os_error());
        let received = Mapping::new(Some((fd.as_fd(), 0)), RING)?;
        let fill = Mapping::new(Some((fd.as_fd(), PGOFF_FILL_RING)), RING)?;
        for frame in 0..FRAMES {
            let slot = fill.at::<u64>(offsets[10] + u64::from(frame) * 8);
            // SAFETY: the descriptors of the ring are within the mapping.
            unsafe { slot.write_volatile(u64::from(frame * FRAME)) };
        }
        // SAFETY: as above; the kernel reads it only after the bind.
        unsafe { fill.at::<u32>(offsets[8]).write_volatile(FRAMES) };
        let family = u16::try_from(libc::AF_XDP)?;
        let address = Address { family, flags: COPY, ifindex, queue, shared: 0 };
        let size = libc::socklen_t::try_from(size_of::<Address>())?;
        // SAFETY: address is of this size.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) };
        ensure!(bound == 0, "bind: {}", io::Error::last_os_error());
        Ok(Self { received, producer: offsets[0], taken: 0, _fill: fill, fd, _area: area })
    }

    /// How many packets have come since the last time.
    pub(crate) fn received(&mut self) -> u32 {
        // SAFETY: the word is within the mapping.
        let now = unsafe { self.received.at::<u32>(self.producer).read_volatile() };
        now.wrapping_sub(std::mem::replace(&mut self.taken, now))
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>())?;
    let from = std::ptr::from_ref(value).cast();
    // SAFETY: value is of this size.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), SOL_XDP, option, from, size) };
    ensure!(set == 0, "setsockopt({option}): {}", io::Error::last_os_error());
    Ok(())
}
