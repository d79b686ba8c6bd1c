//! A socket without the library, for what its API does not let happen. All that is `unsafe` about it is here.

use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::Interface;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size,
    set_xdp_umem_fill_ring_size, set_xdp_umem_reg, xdp_mmap_offsets, xdp_statistics,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpRingOffset, XdpStatistics,
    XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Slots of each ring.
pub(crate) const SLOTS: u32 = 64;
const MAP: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Pages that are unmapped when they are dropped.
#[derive(Debug)]
pub(crate) struct Pages {
    base: *mut c_void,
    length: usize,
}

impl Pages {
    pub(crate) fn new(length: usize) -> Result<Self> {
        // SAFETY: the kernel chooses the place.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), length, MAP, MapFlags::PRIVATE)? };
        Ok(Self { base, length })
    }

    fn of(socket: &OwnedFd, length: usize, offset: u64) -> Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses the place.
        let base = unsafe { mmap(std::ptr::null_mut(), length, MAP, flags, socket, offset)? };
        Ok(Self { base, length })
    }

    /// Where `T` lies.
    fn at<T>(&self, offset: u64) -> *mut T {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset + size_of::<T>() <= self.length);
        self.base.wrapping_byte_add(offset).cast()
    }

    /// The word at an offset of the kernel's.
    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: within the pages, aligned as the kernel has it, and accessed by atomics alone.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    pub(crate) fn write<T: Copy>(&self, offset: u64, value: T) {
        // SAFETY: within the pages.
        unsafe { self.at::<T>(offset).write_unaligned(value) }
    }

    pub(crate) fn read<T: Copy + Default>(&self, offset: u64) -> T {
        // SAFETY: within the pages, of an integer or an array of them.
        unsafe { self.at::<T>(offset).read_unaligned() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: its own pages, which nobody has a reference to.
        let _ = unsafe { munmap(self.base, self.length) };
    }
}

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rx,
    Tx,
    Fill,
    Completion,
}

impl Kind {
    fn page_offset(self) -> u64 {
        match self {
            Self::Rx => 0,
            Self::Tx => 0x8000_0000,
            Self::Fill => 0x1_0000_0000,
            Self::Completion => 0x1_8000_0000,
        }
    }

    fn entry(self) -> u64 {
        if matches!(self, Self::Rx | Self::Tx) { 16 } else { 8 }
    }
}

/// A ring that is mapped.
#[derive(Debug)]
pub(crate) struct Ring {
    pages: Pages,
    pub(crate) at: XdpRingOffset,
    entry: u64,
}

impl Ring {
    pub(crate) fn new(socket: &OwnedFd, kind: Kind) -> Result<Self> {
        match kind {
            Kind::Rx => set_xdp_rx_ring_size(socket, SLOTS)?,
            Kind::Tx => set_xdp_tx_ring_size(socket, SLOTS)?,
            Kind::Fill => set_xdp_umem_fill_ring_size(socket, SLOTS)?,
            Kind::Completion => set_xdp_umem_completion_ring_size(socket, SLOTS)?,
        }
        let all = xdp_mmap_offsets(socket)?;
        let at = match kind {
            Kind::Rx => all.rx,
            Kind::Tx => all.tx,
            Kind::Fill => all.fr,
            Kind::Completion => all.cr,
        };
        let length = at.desc + u64::from(SLOTS) * kind.entry();
        let pages = Pages::of(socket, usize::try_from(length)?, kind.page_offset())?;
        Ok(Self { pages, at, entry: kind.entry() })
    }

    pub(crate) fn producer(&self) -> u32 {
        self.pages.word(self.at.producer).load(Ordering::Acquire)
    }

    pub(crate) fn consumer(&self) -> u32 {
        self.pages.word(self.at.consumer).load(Ordering::Acquire)
    }

    /// Whether the kernel wants to be called.
    pub(crate) fn needs_wakeup(&self) -> Result<bool> {
        let flags = self.at.flags.context("flags in the ring")?;
        Ok(self.pages.word(flags).load(Ordering::Relaxed) & 1 != 0)
    }

    fn slot(&self, index: u32) -> u64 {
        self.at.desc + u64::from(index % SLOTS) * self.entry
    }

    /// Writes an entry, and tells the kernel.
    pub(crate) fn push<T: Copy>(&self, entry: T) {
        assert!(size_of::<T>() as u64 == self.entry);
        let producer = self.producer();
        self.pages.write(self.slot(producer), entry);
        self.pages.word(self.at.producer).store(producer.wrapping_add(1), Ordering::Release);
    }

    /// Reads an entry, if there is one.
    pub(crate) fn pop<T: Copy + Default>(&self) -> Option<T> {
        assert!(size_of::<T>() as u64 == self.entry);
        let consumer = self.consumer();
        if consumer == self.producer() {
            return None;
        }
        let entry = self.pages.read(self.slot(consumer));
        self.pages.word(self.at.consumer).store(consumer.wrapping_add(1), Ordering::Release);
        Some(entry)
    }
}

/// `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) options: u32,
}

/// How memory is registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register {
    pub(crate) frames: usize,
    pub(crate) chunk_size: u32,
    pub(crate) headroom: u32,
    pub(crate) flags: u32,
    pub(crate) tx_metadata: u32,
}

impl Default for Register {
    fn default() -> Self {
        Self { frames: 64, chunk_size: 4096, headroom: 0, flags: 0, tx_metadata: 0 }
    }
}

impl Register {
    pub(crate) fn length(&self) -> usize {
        self.frames * self.chunk_size as usize
    }

    pub(crate) fn register(&self, socket: &OwnedFd, memory: &Pages) -> Result<(), Errno> {
        let registration = XdpUmemReg {
            addr: memory.base.addr() as u64,
            len: self.length() as u64,
            chunk_size: self.chunk_size,
            headroom: self.headroom,
            flags: XdpUmemRegFlags::from_bits_retain(self.flags),
            tx_metadata_len: self.tx_metadata,
        };
        set_xdp_umem_reg(socket, registration)
    }
}

pub(crate) fn socket(interface: &Interface) -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::XDP, SocketType::RAW);
    let open = || rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
    Ok(interface.netns().run(open)??)
}

/// All four rings, mapped before the socket they are of is closed.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) rx: Ring,
    pub(crate) tx: Ring,
    pub(crate) fill: Ring,
    pub(crate) completion: Ring,
    pub(crate) fd: OwnedFd,
    pub(crate) memory: Pages,
}

impl Raw {
    /// With everything, but not bound.
    pub(crate) fn new(interface: &Interface, register: &Register) -> Result<Self> {
        let fd = socket(interface)?;
        let memory = Pages::new(register.length())?;
        register.register(&fd, &memory)?;
        let ring = |kind| Ring::new(&fd, kind);
        let (rx, tx) = (ring(Kind::Rx)?, ring(Kind::Tx)?);
        let (fill, completion) = (ring(Kind::Fill)?, ring(Kind::Completion)?);
        Ok(Self { rx, tx, fill, completion, fd, memory })
    }

    pub(crate) fn bound(interface: &Interface, register: &Register) -> Result<Self> {
        let raw = Self::new(interface, register)?;
        bind(&raw.fd, interface, 0, SocketAddrXdpFlags::XDP_COPY)?;
        Ok(raw)
    }

    /// Lets the kernel send.
    pub(crate) fn kick(&self) -> Result<(), Errno> {
        rustix::net::send(&self.fd, &[], SendFlags::DONTWAIT).map(drop)
    }

    pub(crate) fn statistics(&self) -> Result<XdpStatistics> {
        Ok(xdp_statistics(&self.fd)?)
    }

    /// Everything in the completion ring.
    pub(crate) fn completions(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.completion.pop()).collect()
    }

    /// Sends `length` bytes at `address`, which must succeed.
    pub(crate) fn send(&self, address: u64, length: u32) -> Result<()> {
        self.tx.push(Descriptor { address, length, options: 0 });
        // Before 6.17 the call after the last tells that all is taken.
        let is_taken = soon(|| {
            self.kick()?;
            Ok(self.tx.producer() == self.tx.consumer())
        })?;
        ensure!(is_taken, "not taken");
        Ok(())
    }
}

pub(crate) fn bind(
    socket: impl AsFd,
    interface: &Interface,
    queue: u32,
    flags: SocketAddrXdpFlags,
) -> Result<(), Errno> {
    rustix::net::bind(socket, &SocketAddrXdp::new(flags, interface.index(), queue))
}

/// Binds with the memory of another socket.
pub(crate) fn bind_shared(
    socket: impl AsFd,
    interface: &Interface,
    queue: u32,
    first: impl AsFd,
) -> Result<(), Errno> {
    let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
    let addr = SocketAddrXdp::new(flags, interface.index(), queue);
    rustix::net::bind(socket, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: first.as_fd() })
}
