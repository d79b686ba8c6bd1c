//! `struct xsk_socket`, and the program that gives it packets.

use super::layout::{Mapped, RING_SIZE, Ring, SocketConfig, SocketOptions, or_default};
use super::umem::{Books, QueueRings, Shared, new_socket, xsk_umem};
use crate::capi::entry::{
    Errno, INVALID, ask, at, close, copy_of, error_in, is_real, number, or_null,
};
use crate::capi::{options, settings};
use crate::sys::xsk::{Address, RingKind, XDP_SHARED_UMEM, XDP_USE_SG};
use crate::xsk::{DefaultProgram, ProgramOptions};
use crate::{Interface, Mode, Netns};
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::{Arc, Weak};

/// `XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD`
const NO_PROGRAM: u32 = 1;
// XDP_FLAGS_*
const SKB: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
const HARDWARE: u32 = 1 << 3;
/// What C libxdp takes for the cookie of the one namespace where the kernel has none.
const NO_COOKIE: u64 = 1;
/// `SO_NETNS_COOKIE`
const NETNS_COOKIE: c_int = 71;

/// What `struct xsk_socket *` points to.
#[derive(Debug)]
pub struct xsk_socket {
    /// Leaves first: after that nobody gives it packets.
    program: Option<DefaultProgram>,
    _ends: (Option<Mapped>, Option<Mapped>),
    queue: u32,
    /// Among the sockets of the UMEM.
    number: usize,
    rings: Arc<QueueRings>,
    /// `None`: the UMEM's own.
    own_fd: Option<OwnedFd>,
    umem: Arc<Shared>,
}

impl xsk_socket {
    fn fd(&self) -> BorrowedFd<'_> {
        self.own_fd.as_ref().map_or_else(|| self.umem.fd.as_fd(), OwnedFd::as_fd)
    }
}

impl Drop for xsk_socket {
    fn drop(&mut self) {
        if let Some(program) = self.program.take() {
            if !self.rings.is_received_by(self.number) {
                // Another socket of the queue has its packets.
                program.forget(self.queue);
            }
            if let Err(error) = program.leave() {
                log::warn!("the default program is left behind: {error}");
            }
        }
        self.umem.books().sockets -= 1;
    }
}

/// A socket that is to be.
struct Wish<'a> {
    name: *const c_char,
    queue: u32,
    umem: &'a xsk_umem,
    rx: *mut Ring,
    tx: *mut Ring,
    fill: *mut Ring,
    completion: *mut Ring,
    config: SocketConfig,
}

impl Wish<'_> {
    /// # Safety
    /// Pointers are NULL or as the header says.
    unsafe fn create(self) -> Result<Box<xsk_socket>, Errno> {
        let Self { queue, rx, tx, config, .. } = self;
        if !is_real(self.name) || !is_real(rx) && !is_real(tx) {
            return Err(Errno(libc::EFAULT));
        }
        if config.flags & !NO_PROGRAM != 0 {
            return Err(INVALID);
        }
        // SAFETY: the caller promises a string.
        let name =
            unsafe { CStr::from_ptr(self.name) }.to_str().map_err(|_| Errno(libc::ENODEV))?;
        let interface = Interface::by_name(&Netns::current()?, name)?;
        let umem = &self.umem.shared;
        let mut books = umem.books();
        let is_first = books.sockets == 0;
        let own_fd = if is_first { None } else { Some(new_socket(&umem.kernel)?) };
        let fd = own_fd.as_ref().map_or_else(|| umem.fd.as_fd(), OwnedFd::as_fd);
        let place = (cookie(fd)?, interface.index(), queue);
        let rings = self.queue_rings(&mut books, fd, place)?;
        let own = |kind, size: u32, made: Option<&mut Option<u32>>| {
            match made {
                // It was made by an attempt that failed later on.
                Some(Some(before)) if *before == size => {}
                Some(Some(_)) => return Err(INVALID),
                Some(none) => {
                    umem.kernel.xsk_make_ring(fd, kind, size)?;
                    *none = Some(size);
                }
                None => umem.kernel.xsk_make_ring(fd, kind, size)?,
            }
            Mapped::new(&umem.kernel, fd, kind, size)
        };
        let [rx_made, tx_made] = &mut books.made;
        let of_umem = |made| if is_first { Some(made) } else { None };
        let rx_size = or_default(config.rx_size, RING_SIZE);
        let rx_ring = is_real(rx).then(|| own(RingKind::Rx, rx_size, of_umem(rx_made)));
        let rx_ring = rx_ring.transpose()?;
        let tx_size = or_default(config.tx_size, RING_SIZE);
        let tx_ring = is_real(tx).then(|| own(RingKind::Tx, tx_size, of_umem(tx_made)));
        let tx_ring = tx_ring.transpose()?;
        let program = match config.flags & NO_PROGRAM {
            0 => Some(join(&interface, &config)?),
            _ => None,
        };
        umem.kernel.xsk_bind(fd, &address(umem, &config, &interface, queue, is_first))?;
        if let Some(program) = program.as_ref().filter(|_| rx_ring.is_some()) {
            program.insert(queue, fd)?;
        }
        // The caller's structures are written last, so that an error leaves them as they were.
        // SAFETY: the caller promises that its rings can be written.
        let rings = unsafe { self.settle(&mut books, place, rings) }?;
        for (to, ring) in [(rx, &rx_ring), (tx, &tx_ring)] {
            if let Some(ring) = ring {
                // SAFETY: as above.
                unsafe { to.write(ring.describe()) };
            }
        }
        books.sockets += 1;
        books.made_so_far += 1;
        let number = books.made_so_far;
        if program.is_some() && rx_ring.is_some() {
            rings.is_now_received_by(number);
        }
        let umem = Arc::clone(umem);
        let ends = (rx_ring, tx_ring);
        Ok(Box::new(xsk_socket { program, _ends: ends, queue, number, rings, own_fd, umem }))
    }

    /// The rings of the queue: those that it has, or those that were made with the memory, or new ones.
    fn queue_rings(
        &self,
        books: &mut Books,
        fd: BorrowedFd<'_>,
        place: (u64, u32, u32),
    ) -> Result<Found, Errno> {
        let mut known = books.queues.iter().filter_map(Weak::upgrade);
        if let Some(rings) = known.find(|rings| rings.queue == place) {
            return Ok(Found::There(rings));
        }
        if !is_real(self.fill) || !is_real(self.completion) {
            return Err(Errno(libc::EFAULT));
        }
        match books.first {
            Some(_) => Ok(Found::First),
            None => Ok(Found::New(self.umem.shared.make_rings(fd)?)),
        }
    }

    /// # Safety
    /// The caller's rings can be written.
    unsafe fn settle(
        &self,
        books: &mut Books,
        place: (u64, u32, u32),
        found: Found,
    ) -> Result<Arc<QueueRings>, Errno> {
        let (rings, is_told) = match found {
            Found::There(rings) => return Ok(rings),
            Found::New(rings) => (rings, false),
            Found::First => {
                let first = books.first.take().ok_or(INVALID)?;
                let is_told = first.places == (self.fill, self.completion);
                (first.rings, is_told)
            }
        };
        if !is_told {
            // SAFETY: the caller promises it; neither is NULL here.
            unsafe { self.fill.write(rings.0.describe()) };
            // SAFETY: as above.
            unsafe { self.completion.write(rings.1.describe()) };
        }
        let rings = QueueRings::new(place, rings);
        books.queues.retain(|queue| queue.strong_count() > 0);
        books.queues.push(Arc::downgrade(&rings));
        Ok(rings)
    }
}

/// Where the rings of a queue come from.
enum Found {
    There(Arc<QueueRings>),
    First,
    New((Mapped, Mapped)),
}

fn address(
    umem: &Shared,
    config: &SocketConfig,
    interface: &Interface,
    queue: u32,
    is_first: bool,
) -> Address {
    let flags = if is_first { config.bind_flags } else { XDP_SHARED_UMEM };
    let mut address = Address::new(flags, interface.index(), queue);
    if !is_first {
        address.shared_umem = umem.fd.as_raw_fd().cast_unsigned();
    }
    address
}

/// What sets the socket's namespace apart from others.
fn cookie(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    let (raw, to) = (fd.as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: it points to as many writable bytes.
    let result =
        unsafe { libc::getsockopt(raw, libc::SOL_SOCKET, NETNS_COOKIE, to, &raw mut length) };
    match (result, crate::capi::entry::errno()) {
        (0, _) => Ok(cookie),
        (_, libc::ENOPROTOOPT) => Ok(NO_COOKIE),
        (_, errno) => Err(Errno(errno)),
    }
}

fn join(interface: &Interface, config: &SocketConfig) -> Result<DefaultProgram, Errno> {
    let known = SKB | NATIVE | HARDWARE | 1 | 1 << 4;
    if config.xdp_flags & !known != 0 {
        log::warn!("XDP flags {:#x}: not all of them are known", config.xdp_flags);
    }
    let mode = match config.xdp_flags {
        flags if flags & SKB != 0 => Mode::Skb,
        flags if flags & NATIVE != 0 => Mode::Native,
        flags if flags & HARDWARE != 0 => Mode::Hardware,
        _ => Mode::Native,
    };
    let multi_buffer = config.bind_flags & XDP_USE_SG != 0;
    let options = ProgramOptions { mode, multi_buffer };
    Ok(DefaultProgram::join_in_any_mode(&settings::xdp()?, interface, options)?)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__create_shared(
    to: *mut *mut xsk_socket,
    name: *const c_char,
    queue: u32,
    umem: *mut xsk_umem,
    rx: *mut Ring,
    tx: *mut Ring,
    fill: *mut Ring,
    completion: *mut Ring,
    config: *const SocketConfig,
) -> c_int {
    number(|| {
        // SAFETY: the header asks for a UMEM.
        let umem = unsafe { at(umem) }.filter(|_| is_real(to)).ok_or(Errno(libc::EFAULT))?;
        let (fill, completion) = umem.shared.places((fill, completion));
        if error_in(config).is_some() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the header asks for a configuration.
        let config = unsafe { at(config) }.copied().unwrap_or_default();
        let wish = Wish { name, queue, umem, rx, tx, fill, completion, config };
        // SAFETY: the header asks for all of it.
        let made = unsafe { wish.create() }?;
        // SAFETY: the header asks for a place for it.
        unsafe { to.write(Box::into_raw(made)) };
        Ok(0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__create(
    to: *mut *mut xsk_socket,
    name: *const c_char,
    queue: u32,
    umem: *mut xsk_umem,
    rx: *mut Ring,
    tx: *mut Ring,
    config: *const SocketConfig,
) -> c_int {
    let none = null_mut();
    // SAFETY: the same, with the rings of the UMEM.
    unsafe { xsk_socket__create_shared(to, name, queue, umem, rx, tx, none, none, config) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__create_opts(
    name: *const c_char,
    queue: u32,
    umem: *mut xsk_umem,
    options: *mut SocketOptions,
) -> *mut xsk_socket {
    or_null(|| {
        if !is_real(options) {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the header asks for options that begin with their size.
        let options = unsafe { options::read(options) }.ok_or(INVALID)?;
        // SAFETY: the header asks for a UMEM.
        let own = unsafe { at(umem) }.ok_or(Errno(libc::EFAULT))?;
        let SocketOptions { rx, tx, fill, completion, config, .. } = options;
        let (fill, completion) = own.shared.places((fill, completion));
        let wish = Wish { name, queue, umem: own, rx, tx, fill, completion, config };
        // SAFETY: the header asks for all of it.
        unsafe { wish.create() }.map(Box::into_raw)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__delete(socket: *mut xsk_socket) {
    // SAFETY: the header asks for one that was made here, and is not used again.
    unsafe { close(socket) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__fd(socket: *const xsk_socket) -> c_int {
    // SAFETY: the header asks for a socket.
    unsafe { ask(socket, -libc::EINVAL, |own| own.fd().as_raw_fd()) }
}

/// For a process that was given the map, say by one that may load programs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_socket__update_xskmap(socket: *mut xsk_socket, map: c_int) -> c_int {
    number(|| {
        // SAFETY: the header asks for a socket.
        let own = unsafe { at(socket) }.ok_or(INVALID)?;
        let kernel = &own.umem.kernel;
        let map = kernel.map_open(copy_of(map)?)?;
        kernel.map_put_object(&map, own.queue, own.fd())?;
        Ok(0)
    })
}

/// Puts the default program on an interface, and leaves it there; its map is the caller's to close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xsk_setup_xdp_prog(index: c_int, map: *mut c_int) -> c_int {
    number(|| {
        let interface = settings::interface(index).map_err(|_| INVALID)?;
        let program = join(&interface, &SocketConfig::default())?;
        // It is this descriptor by which it is seen that the program is in use.
        let fd = program.as_fd().try_clone_to_owned()?.into_raw_fd();
        program.stay();
        if is_real(map) {
            // SAFETY: the header asks for a place for it.
            unsafe { map.write(fd) };
        }
        Ok(0)
    })
}
