//! How a socket is made and bound. Everything that is made on the way goes with what holds it, if a step fails.

use super::Socket;
use super::builder::{TxBudget, Wishes};
use super::options::{BusyPoll, Granted, Prefill};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Interface;
use crate::sys::Kernel;
use crate::sys::xsk::{
    Address, UmemRegistration, XDP_SHARED_UMEM, XDP_UMEM_TX_METADATA_LEN, XDP_UMEM_TX_SW_CSUM,
    XDP_USE_NEED_WAKEUP, XDP_USE_SG, XDP_ZEROCOPY,
};
use crate::xsk::capabilities::DeviceCapabilities;
use crate::xsk::program::{DefaultProgram, ProgramOptions};
use crate::xsk::ring::{CompletionRing, FillRing, RingMaker, RxRing, TxRing};
use crate::xsk::socket_core::{Settings, SocketCore};
use crate::xsk::umem::{Geometry, Kind, Umem, UmemRule};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long the queue's release is waited for between two tries.
const PAUSE: Duration = Duration::from_millis(1);
/// `MAX_SKB_FRAGS` and the head: what a packet has at most in copy mode; include/linux/skbuff.h.
const MAX_FRAGMENTS: u32 = 18;

/// A socket and the rings that it has.
pub(super) struct Rings<K: Kind> {
    pub(super) socket: Socket<K>,
    pub(super) rx: Option<RxRing<K>>,
    pub(super) tx: Option<TxRing<K>>,
    pub(super) fill: Option<FillRing<K>>,
    pub(super) completion: Option<CompletionRing<K>>,
}

/// A socket needs one end.
#[cold]
pub(super) fn no_ring() -> Error {
    let source = io::Error::from_raw_os_error(libc::EINVAL);
    let message = "a socket needs an RX ring or a TX ring".into();
    Error::new("make", "a socket", ErrorKind::Os { source, message })
}

/// A socket with a fill and a completion ring of its own.
pub(super) fn bind<K: Kind>(
    umem: &Umem<K>,
    interface: &Interface,
    queue: u32,
    mut wishes: Wishes,
) -> Result<Rings<K>> {
    if wishes.rx.is_none() && wishes.tx.is_none() {
        return Err(no_ring());
    }
    let kernel = Kernel::default();
    check_age(&kernel, umem, &wishes)?;
    let fd = match wishes.descriptor.take() {
        Some(given) => given,
        None => open(&kernel, interface)?,
    };
    let settings = settings(umem, &wishes);
    let core = Arc::new(SocketCore::new(fd, kernel, settings));
    let maker = RingMaker::new(&core, umem)?;
    let mut fill = maker.fill(wishes.fill)?;
    let completion = maker.completion(wishes.completion)?;
    let (rx, tx) = ends(&maker, &wishes)?;
    configure(&core, &wishes)?;
    let frames = prefill(umem, &mut fill, &wishes)?;
    let prefilled = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let place = Place { umem, interface, queue };
    let program = match attach(&core, &place, &wishes) {
        Ok(program) => program,
        Err(error) => {
            fill.never_bound(frames);
            return Err(error);
        }
    };
    let mut socket = bound(core, umem, interface, queue, &wishes, prefilled)?;
    if let Some(program) = &program {
        program.insert(queue, socket.as_fd())?;
    }
    socket.program = program;
    let tx = tx.map(|tx| tx.with_max_fragments(socket.granted.max_fragments));
    remember(umem, &socket.core);
    Ok(Rings { socket, rx, tx, fill: Some(fill), completion: Some(completion) })
}

/// A socket on the queue of another, with its fill and completion ring.
pub(super) fn share<K: Kind>(first: &Socket<K>, wishes: Wishes) -> Result<Rings<K>> {
    if wishes.rx.is_none() && wishes.tx.is_none() {
        return Err(no_ring());
    }
    let (umem, interface, queue) = (&first.umem, &first.interface, first.queue);
    let kernel = Kernel::default();
    let fd = open(&kernel, interface)?;
    let core = Arc::new(SocketCore::new(fd, kernel, first.core.settings));
    let maker = RingMaker::new(&core, umem)?;
    let wishes = Wishes { multi_buffer: first.core.settings.flags & XDP_USE_SG != 0, ..wishes };
    let (rx, tx) = ends(&maker, &wishes)?;
    let address = sharing(interface, queue, &first.core)?;
    let object = format!("queue {queue} of {interface}");
    core.kernel
        .xsk_bind(core.as_fd(), &address)
        .map_err(|error| refused(error, &core))
        .during("share", object)?;
    let socket = bound(core, umem, interface, queue, &wishes, 0)?;
    let tx = tx.map(|tx| tx.with_max_fragments(socket.granted.max_fragments));
    remember(umem, &socket.core);
    Ok(Rings { socket, rx, tx, fill: None, completion: None })
}

fn join(interface: &Interface, wishes: &Wishes) -> Result<Option<DefaultProgram>> {
    let Some((xdp, mode)) = &wishes.program else { return Ok(None) };
    let options = ProgramOptions { mode: *mode, multi_buffer: wishes.multi_buffer };
    DefaultProgram::join(xdp, interface, &options).map(Some)
}

fn open(kernel: &Kernel, interface: &Interface) -> Result<OwnedFd> {
    let fd = interface.netns().enter(kernel, || kernel.xsk_socket())?;
    fd.map_err(|error| match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => {
            let message = "the kernel was built without CONFIG_XDP_SOCKETS".into();
            ErrorKind::Os { source: error, message }
        }
        _ => ErrorKind::privileged(error, "CAP_NET_RAW"),
    })
    .during("open", "an AF_XDP socket")
}

/// What the kernel would refuse without a reason, or not notice.
fn check_age<K: Kind>(kernel: &Kernel, umem: &Umem<K>, wishes: &Wishes) -> Result<()> {
    // What cannot be told is not refused.
    let release = kernel.release().unwrap_or((u32::MAX, 0));
    let wants = [
        (wishes.multi_buffer, "multi-buffer", (6, 6), "kernel 6.6"),
        (umem.tx_metadata_length() > 0, "TX metadata", (6, 8), "kernel 6.8"),
        (wishes.software_checksum, "checksums in software", (6, 8), "kernel 6.8"),
        (wishes.busy_poll.is_some(), "preferred busy polling", (5, 11), "kernel 5.11"),
        (
            wishes.tx_budget.is_some_and(|budget| budget.is_needed),
            "a TX budget",
            (6, 17),
            "kernel 6.17",
        ),
    ];
    for (is_wanted, feature, first, needs) in wants {
        if is_wanted && release < first {
            return Err(Error::new("make", "a socket", ErrorKind::NotSupported { feature, needs }));
        }
    }
    Ok(())
}

fn settings<K: Kind>(umem: &Umem<K>, wishes: &Wishes) -> Settings {
    let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
    let flags = wishes.mode.flag()
        | flag(wishes.need_wakeup, XDP_USE_NEED_WAKEUP)
        | flag(wishes.multi_buffer, XDP_USE_SG);
    let checksum = if wishes.software_checksum { XDP_UMEM_TX_SW_CSUM } else { 0 };
    Settings { flags, umem_flags: umem.owner().geometry.flags() | checksum }
}

type Ends<K> = (Option<RxRing<K>>, Option<TxRing<K>>);

fn ends<K: Kind>(maker: &RingMaker<'_, K>, wishes: &Wishes) -> Result<Ends<K>> {
    let rx = wishes.rx.map(|size| maker.rx(size, wishes.multi_buffer)).transpose()?;
    let tx = wishes.tx.map(|size| maker.tx(size)).transpose()?;
    Ok((rx, tx))
}

fn configure(core: &SocketCore, wishes: &Wishes) -> Result<()> {
    if let Some(BusyPoll { duration, budget }) = wishes.busy_poll {
        let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        core.kernel
            .xsk_busy_poll(core.as_fd(), microseconds, u32::from(budget))
            .map_err(|error| ErrorKind::privileged(error, "CAP_NET_ADMIN"))
            .during("set up busy polling of", "a socket")?;
    }
    match (wishes.tx_budget, wishes.tx) {
        (Some(TxBudget { packets, is_needed: true }), _) => {
            let object = format!("a budget of {packets} packets");
            core.kernel.xsk_set_tx_budget(core.as_fd(), packets).during("set", object)?;
        }
        (Some(TxBudget { packets, .. }), Some(size)) => {
            let set = core.kernel.xsk_set_tx_budget(core.as_fd(), packets.min(size));
            if let Err(error) = set {
                log::debug!(target: "oxdp::xsk", "no TX budget of {packets} packets: {error}");
            }
        }
        _ => {}
    }
    Ok(())
}

fn prefill<K: Kind>(umem: &Umem<K>, fill: &mut FillRing<K>, wishes: &Wishes) -> Result<Vec<u64>> {
    let most = match wishes.prefill {
        Prefill::Frames(frames) => frames,
        // A ring of frames for a socket that receives nothing: a few, for the drivers that want to have some.
        Prefill::Auto if wishes.rx.is_none() => 64.min(umem.frames() / 4),
        Prefill::Auto if wishes.tx.is_some() => umem.frames() / 2,
        Prefill::Auto => umem.frames(),
    };
    let mut frames = Vec::new();
    umem.owner().take_free(most.min(fill.size()) as usize, &mut frames);
    if let Err(error) = fill.prefill(&frames) {
        umem.owner().give_free(frames);
        return Err(error).during("fill", "the fill ring");
    }
    Ok(frames)
}

/// What a socket is bound to.
struct Place<'a, K: Kind> {
    umem: &'a Umem<K>,
    interface: &'a Interface,
    queue: u32,
}

impl<K: Kind> std::fmt::Display for Place<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue {} of {}", self.queue, self.interface)
    }
}

/// Binds through a socket that has this memory registered with the same settings, if there is one; else registers it. The
/// default program is joined first, so that no queue is taken where there can be no program.
fn attach<K: Kind>(
    core: &Arc<SocketCore>,
    place: &Place<'_, K>,
    wishes: &Wishes,
) -> Result<Option<DefaultProgram>> {
    let first = registered(place.umem, core.settings);
    let (program, registration) = if first.is_some() {
        (join(place.interface, wishes), None)
    } else {
        join_and_register(core, place, wishes)
    };
    let program = program?;
    if let Some(first) = first {
        let address = sharing(place.interface, place.queue, &first)?;
        match bind_patiently(core, &address, wishes.bind_retry) {
            Ok(()) => return Ok(program),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(Error::new("bind to", place, refused(error, core)));
            }
            // This one registers the memory itself, for what the devices do not agree on.
            Err(error) => log::debug!(target: "oxdp::xsk", "{place} cannot share: {error}"),
        }
    }
    registration
        .unwrap_or_else(|| register(core, place.umem))
        .map_err(|error| unregistered(error, place.umem))
        .during("register a UMEM for", place)?;
    let address = Address::new(core.settings.flags, place.interface.index(), place.queue);
    bind_patiently(core, &address, wishes.bind_retry)
        .map_err(|error| refused(error, core))
        .during("bind to", place)?;
    Ok(program)
}

/// Attaching a program waits until no processor runs what was there before (`bpf_dispatcher_change_prog` in
/// kernel/bpf/dispatcher.c), and a registration brings in all pages of the memory: so the one is done while the other waits.
fn join_and_register<K: Kind>(
    core: &SocketCore,
    place: &Place<'_, K>,
    wishes: &Wishes,
) -> (Result<Option<DefaultProgram>>, Option<io::Result<()>>) {
    if wishes.program.is_none() {
        return (Ok(None), None);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("oxdp-attach".into());
        let Ok(program) = thread.spawn_scoped(scope, || join(place.interface, wishes)) else {
            return (join(place.interface, wishes), None);
        };
        // Where both have one processor, the other goes first: it will sleep.
        std::thread::yield_now();
        let registration = register(core, place.umem);
        let program = program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (program, Some(registration))
    })
}

fn sharing(interface: &Interface, queue: u32, first: &SocketCore) -> Result<Address> {
    let mut address = Address::new(XDP_SHARED_UMEM, interface.index(), queue);
    let shared = u32::try_from(first.fd.as_raw_fd());
    address.shared_umem = shared.map_err(io::Error::other).during("share", "a socket")?;
    Ok(address)
}

/// While the queue is in use: a socket that was closed lets go of it some time later.
fn bind_patiently(core: &SocketCore, address: &Address, patience: Duration) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match core.kernel.xsk_bind(core.as_fd(), address) {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < patience =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn register<K: Kind>(core: &SocketCore, umem: &Umem<K>) -> io::Result<()> {
    let inner = umem.owner();
    let geometry = &inner.geometry;
    let metadata = if geometry.tx_metadata > 0 { XDP_UMEM_TX_METADATA_LEN } else { 0 };
    let registration = UmemRegistration {
        address: inner.base().addr() as u64,
        length: geometry.length(),
        chunk_size: geometry.chunk_size,
        headroom: geometry.headroom,
        flags: core.settings.umem_flags | metadata,
        tx_metadata_length: geometry.tx_metadata,
    };
    match core.kernel.xsk_register(core.as_fd(), &registration) {
        // From 6.8 to 6.10 the length is enough, and the flag not known.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && metadata != 0 => {
            let flags = core.settings.umem_flags;
            core.kernel.xsk_register(core.as_fd(), &UmemRegistration { flags, ..registration })
        }
        result => result,
    }
}

/// A socket that is bound with the same settings, and has all it needs to share.
fn registered<K: Kind>(umem: &Umem<K>, settings: Settings) -> Option<Arc<SocketCore>> {
    let sockets = umem.owner().sockets.lock().unwrap_or_else(PoisonError::into_inner);
    sockets.iter().filter_map(std::sync::Weak::upgrade).find(|socket| socket.settings == settings)
}

fn remember<K: Kind>(umem: &Umem<K>, core: &Arc<SocketCore>) {
    let mut sockets = umem.owner().sockets.lock().unwrap_or_else(PoisonError::into_inner);
    sockets.retain(|socket| socket.strong_count() > 0);
    sockets.push(Arc::downgrade(core));
}

fn bound<K: Kind>(
    core: Arc<SocketCore>,
    umem: &Umem<K>,
    interface: &Interface,
    queue: u32,
    wishes: &Wishes,
    prefilled: u32,
) -> Result<Socket<K>> {
    let zero_copy = core.kernel.xsk_is_zero_copy(core.as_fd()).during("ask for", "the mode")?;
    let max_fragments = match wishes.multi_buffer {
        true if zero_copy => device_fragments(interface)?,
        true => MAX_FRAGMENTS,
        false => 1,
    };
    let granted = Granted { zero_copy, max_fragments, prefilled };
    let program = None;
    Ok(Socket { program, core, umem: umem.clone(), interface: interface.clone(), queue, granted })
}

/// What the device takes without copies.
fn device_fragments(interface: &Interface) -> Result<u32> {
    let segments = DeviceCapabilities::of(interface)?.zero_copy_max_segments;
    Ok(segments.map_or(1, |segments| segments.clamp(1, MAX_FRAGMENTS)))
}

/// What a registration means by its errno; net/xdp/xdp_umem.c.
fn unregistered<K: Kind>(source: io::Error, umem: &Umem<K>) -> ErrorKind {
    let geometry = &umem.owner().geometry;
    match source.raw_os_error() {
        Some(libc::EINVAL) if geometry.is_tight() => {
            let Geometry { headroom, chunk_size, .. } = *geometry;
            UmemRule::Headroom { headroom, chunk_size }.into()
        }
        Some(libc::ENOBUFS) => {
            let message = "no more memory can be locked: RLIMIT_MEMLOCK".into();
            ErrorKind::Os { source, message }
        }
        _ => source.into(),
    }
}

/// What bind(2) means by its errno here; net/xdp/xsk.c and net/xdp/xsk_buff_pool.c.
fn refused(source: io::Error, core: &SocketCore) -> ErrorKind {
    let message = match source.raw_os_error() {
        Some(libc::EBUSY) => "another socket has this queue",
        Some(libc::ENODEV) => {
            "the interface is gone, or in another network namespace than the socket"
        }
        Some(libc::ENETDOWN) => "the interface is down",
        Some(libc::EOPNOTSUPP) => {
            "the device has no zero-copy mode for this queue, or not with such memory"
        }
        Some(libc::EINVAL) if core.settings.flags & XDP_USE_SG != 0 => {
            "no such queue, or packets of several fragments cannot be had"
        }
        Some(libc::EINVAL) if core.settings.flags & XDP_ZEROCOPY != 0 => {
            "no such queue, or the device refuses such memory in zero-copy mode"
        }
        Some(libc::EINVAL) => "no such queue",
        Some(libc::EPERM) => "not allowed",
        _ => "",
    };
    ErrorKind::Os { source, message: message.into() }
}
