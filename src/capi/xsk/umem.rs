//! `struct xsk_umem`: memory that is registered with a socket, and the rings of that.

use super::layout::{FRAME_SIZE, Mapped, RING_SIZE, Ring, UmemConfig, UmemOptions, or_default};
use crate::capi::entry::{Errno, INVALID, ask, at, error_in, is_real, number, or_null};
use crate::capi::options;
use crate::sys::Kernel;
use crate::sys::xsk::{RingKind, UmemRegistration};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What `struct xsk_umem *` points to. Sockets have a part in what is in it.
#[derive(Debug)]
pub struct xsk_umem {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kernel: Kernel,
    /// It has the memory registered, and becomes the first socket.
    pub(super) fd: OwnedFd,
    pub(super) config: UmemConfig,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// Sockets that there are.
    pub(super) sockets: usize,
    /// And that there were.
    pub(super) made_so_far: usize,
    /// Of the first socket, until it is there.
    pub(super) first: Option<First>,
    /// For each queue that there are sockets on.
    pub(super) queues: Vec<Weak<QueueRings>>,
    /// Rings of `fd` that have been made, with their sizes: they are made once.
    pub(super) made: [Option<u32>; 2],
}

/// Rings that were made with the memory, and where the caller has them.
#[derive(Debug)]
pub(super) struct First {
    pub(super) rings: (Mapped, Mapped),
    pub(super) places: (*mut Ring, *mut Ring),
}

// SAFETY: the places are only compared here; who writes to them was given them by the caller in that call.
unsafe impl Send for First {}

/// The fill and the completion ring of a queue.
#[derive(Debug)]
pub(super) struct QueueRings {
    /// Cookie of the namespace, ifindex, number.
    pub(super) queue: (u64, u32, u32),
    /// Unmapped with the last socket.
    _rings: (Mapped, Mapped),
    /// Number of the socket that the default program gives the packets to; 0: none.
    receiver: AtomicUsize,
}

impl QueueRings {
    pub(super) fn new(queue: (u64, u32, u32), rings: (Mapped, Mapped)) -> Arc<Self> {
        Arc::new(Self { queue, _rings: rings, receiver: AtomicUsize::new(0) })
    }

    pub(super) fn is_now_received_by(&self, socket: usize) {
        self.receiver.store(socket, Ordering::Release);
    }

    pub(super) fn is_received_by(&self, socket: usize) -> bool {
        self.receiver.load(Ordering::Acquire) == socket
    }
}

impl Shared {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's places for the rings of a socket: those of the first one's, until it is there, if none are named.
    pub(super) fn places(&self, named: (*mut Ring, *mut Ring)) -> (*mut Ring, *mut Ring) {
        match &self.books().first {
            Some(first) if named.0.is_null() && named.1.is_null() => first.places,
            _ => named,
        }
    }

    /// Makes the rings of a queue on a socket, and maps them.
    pub(super) fn make_rings(&self, socket: impl AsFd) -> Result<(Mapped, Mapped), Errno> {
        let (kernel, socket) = (&self.kernel, socket.as_fd());
        let sizes = (self.config.fill_size, self.config.completion_size);
        kernel.xsk_make_ring(socket, RingKind::Fill, sizes.0)?;
        kernel.xsk_make_ring(socket, RingKind::Completion, sizes.1)?;
        let fill = Mapped::new(kernel, socket, RingKind::Fill, sizes.0)?;
        Ok((fill, Mapped::new(kernel, socket, RingKind::Completion, sizes.1)?))
    }
}

/// A socket that programs which are started have too, as C libxdp's.
pub(super) fn new_socket(kernel: &Kernel) -> Result<OwnedFd, Errno> {
    let socket = kernel.xsk_socket()?;
    // SAFETY: fcntl(2) is asked to change a flag of a descriptor of ours.
    match unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, 0) } {
        0 => Ok(socket),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// What a UMEM is to be.
struct Wish {
    fd: c_int,
    area: *mut c_void,
    length: u64,
    config: UmemConfig,
    tx_metadata_length: u32,
    fill: *mut Ring,
    completion: *mut Ring,
}

impl Wish {
    /// # Safety
    /// The rings are NULL or the caller's, and the area is memory of that length until the UMEM is deleted.
    unsafe fn create(self) -> Result<Box<xsk_umem>, Errno> {
        // What C libxdp refuses first.
        if self.area.is_null() || !is_real(self.fill) || !is_real(self.completion) {
            return Err(Errno(libc::EFAULT));
        }
        let (kernel, config) = (Kernel::default(), complete(self.config));
        let fd = if self.fd > 0 {
            // SAFETY: the header says that it is handed over.
            unsafe { OwnedFd::from_raw_fd(self.fd) }
        } else {
            new_socket(&kernel)?
        };
        let registration = UmemRegistration {
            address: self.area.expose_provenance() as u64,
            length: self.length,
            chunk_size: config.frame_size,
            headroom: config.headroom,
            flags: config.flags,
            tx_metadata_length: self.tx_metadata_length,
        };
        kernel.xsk_register(fd.as_fd(), &registration)?;
        let shared = Shared { kernel, fd, config, books: Mutex::default() };
        let rings = shared.make_rings(&shared.fd)?;
        let places = (self.fill, self.completion);
        // SAFETY: they are the caller's, to be written.
        unsafe { self.fill.write(rings.0.describe()) };
        // SAFETY: as above.
        unsafe { self.completion.write(rings.1.describe()) };
        shared.books().first = Some(First { rings, places });
        Ok(Box::new(xsk_umem { shared: Arc::new(shared) }))
    }
}

fn complete(config: UmemConfig) -> UmemConfig {
    UmemConfig {
        fill_size: or_default(config.fill_size, RING_SIZE),
        completion_size: or_default(config.completion_size, RING_SIZE),
        frame_size: or_default(config.frame_size, FRAME_SIZE),
        ..config
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_umem__create_with_fd(
    umem: *mut *mut xsk_umem,
    fd: c_int,
    area: *mut c_void,
    length: u64,
    fill: *mut Ring,
    completion: *mut Ring,
    config: *const UmemConfig,
) -> c_int {
    number(|| {
        if error_in(config).is_some() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the header asks for a configuration.
        let config = unsafe { at(config) }.copied().unwrap_or_default();
        if !is_real(umem) {
            return Err(Errno(libc::EFAULT));
        }
        let wish = Wish { fd, area, length, config, tx_metadata_length: 0, fill, completion };
        // SAFETY: the header asks for such memory and rings.
        let made = unsafe { wish.create() }?;
        // SAFETY: the header asks for a place for it.
        unsafe { umem.write(Box::into_raw(made)) };
        Ok(0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_umem__create(
    umem: *mut *mut xsk_umem,
    area: *mut c_void,
    length: u64,
    fill: *mut Ring,
    completion: *mut Ring,
    config: *const UmemConfig,
) -> c_int {
    // SAFETY: the same.
    unsafe { xsk_umem__create_with_fd(umem, -1, area, length, fill, completion, config) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_umem__create_opts(
    area: *mut c_void,
    fill: *mut Ring,
    completion: *mut Ring,
    options: *mut UmemOptions,
) -> *mut xsk_umem {
    or_null(|| {
        // SAFETY: the header asks for options that begin with their size.
        let options = unsafe { options::read(options) }.ok_or(INVALID)?;
        let UmemOptions { fd, length, config, tx_metadata_length, .. } = options;
        let wish = Wish { fd, area, length, config, tx_metadata_length, fill, completion };
        // SAFETY: the header asks for such memory and rings.
        unsafe { wish.create() }.map(Box::into_raw)
    })
}

/// Not as long as there are sockets of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_umem__delete(umem: *mut xsk_umem) -> c_int {
    number(|| {
        if umem.is_null() {
            return Ok(0);
        }
        // SAFETY: the header asks for a UMEM.
        let own = unsafe { at(umem) }.ok_or(INVALID)?;
        if own.shared.books().sockets > 0 {
            return Err(Errno(libc::EBUSY));
        }
        // SAFETY: it was made here, and the header says that it is not used again.
        drop(unsafe { Box::from_raw(umem) });
        Ok(0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_umem__fd(umem: *const xsk_umem) -> c_int {
    // SAFETY: the header asks for a UMEM.
    unsafe { ask(umem, -libc::EINVAL, |umem| umem.shared.fd.as_raw_fd()) }
}
