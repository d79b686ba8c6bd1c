//! How a socket is asked for.

use super::Socket;
use super::bind::{self, Rings};
use super::options::{BindMode, BusyPoll, Prefill};
use crate::dispatcher::Xdp;
use crate::error::Result;
use crate::net::{Interface, Mode};
#[allow(unused_imports, reason = "for the documentation")]
use crate::xsk::program::DefaultProgram;
use crate::xsk::ring::{CompletionRing, FillRing, RxRing, TxRing};
use crate::xsk::umem::{Exclusive, Kind, Umem};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A socket that is bound, and its rings, each of which can go to a thread of its own.
#[derive(Debug)]
pub struct Bound<K: Kind = Exclusive, R = RxRing<K>, T = TxRing<K>> {
    /// What packets have come; `()` without RX ring.
    pub rx: R,
    /// What packets are to go; `()` without TX ring.
    pub tx: T,
    /// Frames for packets to come.
    pub fill: FillRing<K>,
    /// Frames of packets that have gone.
    pub completion: CompletionRing<K>,
    /// The socket itself.
    pub socket: Socket<K>,
}

/// A socket that shares another's queue, with its fill and completion ring.
#[derive(Debug)]
pub struct Sharing<K: Kind = Exclusive, R = RxRing<K>, T = TxRing<K>> {
    /// What packets have come; `()` without RX ring.
    pub rx: R,
    /// What packets are to go; `()` without TX ring.
    pub tx: T,
    /// The socket itself.
    pub socket: Socket<K>,
}

mod sealed {
    pub trait Sealed {}
}

/// One of a socket's two ends, or none.
pub trait End<K: Kind, Ring>: sealed::Sealed + Sized {
    #[doc(hidden)]
    fn from_ring(ring: Option<Ring>) -> Option<Self>;
}

impl sealed::Sealed for () {}
impl<K: Kind> sealed::Sealed for RxRing<K> {}
impl<K: Kind> sealed::Sealed for TxRing<K> {}

impl<K: Kind, Ring> End<K, Ring> for () {
    fn from_ring(_: Option<Ring>) -> Option<Self> {
        Some(())
    }
}

impl<K: Kind> End<K, Self> for RxRing<K> {
    fn from_ring(ring: Option<Self>) -> Option<Self> {
        ring
    }
}

impl<K: Kind> End<K, Self> for TxRing<K> {
    fn from_ring(ring: Option<Self>) -> Option<Self> {
        ring
    }
}

/// How many packets a call is to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxBudget {
    pub(super) packets: u32,
    /// Or else there is to be no socket.
    pub(super) is_needed: bool,
}

/// Everything that was asked for.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) rx: Option<u32>,
    pub(super) tx: Option<u32>,
    pub(super) fill: u32,
    pub(super) completion: u32,
    pub(super) mode: BindMode,
    pub(super) need_wakeup: bool,
    pub(super) multi_buffer: bool,
    pub(super) software_checksum: bool,
    pub(super) prefill: Prefill,
    pub(super) busy_poll: Option<BusyPoll>,
    pub(super) tx_budget: Option<TxBudget>,
    pub(super) bind_retry: Duration,
    pub(super) descriptor: Option<OwnedFd>,
    pub(super) program: Option<(Xdp, Mode)>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            rx: None,
            tx: None,
            fill: 2048,
            completion: 2048,
            mode: BindMode::Auto,
            need_wakeup: true,
            multi_buffer: false,
            software_checksum: false,
            prefill: Prefill::Auto,
            busy_poll: None,
            tx_budget: None,
            bind_retry: Duration::from_secs(1),
            descriptor: None,
            program: None,
        }
    }
}

/// What a socket is to be. `R` and `T` are the ends that it has.
#[must_use = "nothing happens before it is bound"]
pub struct SocketBuilder<K: Kind = Exclusive, R = (), T = ()> {
    umem: Umem<K>,
    interface: Interface,
    queue: u32,
    wishes: Wishes,
    ends: PhantomData<(R, T)>,
}

impl<K: Kind, R, T> fmt::Debug for SocketBuilder<K, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketBuilder")
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("wishes", &self.wishes)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> SocketBuilder<K> {
    pub(super) fn new(umem: &Umem<K>, interface: &Interface, queue: u32) -> Self {
        let (umem, interface) = (umem.clone(), interface.clone());
        Self { umem, interface, queue, wishes: Wishes::default(), ends: PhantomData }
    }
}

impl<K: Kind, R, T> SocketBuilder<K, R, T> {
    fn with<R2, T2>(self, change: impl FnOnce(&mut Wishes)) -> SocketBuilder<K, R2, T2> {
        let Self { umem, interface, queue, mut wishes, .. } = self;
        change(&mut wishes);
        SocketBuilder { umem, interface, queue, wishes, ends: PhantomData }
    }

    /// With an RX ring of so many slots, a power of two.
    pub fn rx(self, size: u32) -> SocketBuilder<K, RxRing<K>, T> {
        self.with(|wishes| wishes.rx = Some(size))
    }

    /// With a TX ring of so many slots, a power of two.
    pub fn tx(self, size: u32) -> SocketBuilder<K, R, TxRing<K>> {
        self.with(|wishes| wishes.tx = Some(size))
    }

    /// Slots of the fill ring, a power of two; 2048 if it is not said. Twice those of the RX ring are a good number.
    pub fn fill(self, size: u32) -> Self {
        self.with(|wishes| wishes.fill = size)
    }

    /// Slots of the completion ring, a power of two; 2048 if it is not said. No less than those of the TX ring.
    pub fn completion(self, size: u32) -> Self {
        self.with(|wishes| wishes.completion = size)
    }

    /// Whether packets may be, or must be, copied. [`BindMode::Auto`] if it is not said.
    pub fn mode(self, mode: BindMode) -> Self {
        self.with(|wishes| wishes.mode = mode)
    }

    /// Whether the kernel may sleep, and rings tell when it must be woken. Yes if it is not said: without, every transmission needs a
    /// system call.
    pub fn need_wakeup(self, yes: bool) -> Self {
        self.with(|wishes| wishes.need_wakeup = yes)
    }

    /// Whether packets can have several fragments; since kernel 6.6. The XDP program must take such packets
    /// (`SEC("xdp.frags")`).
    pub fn multi_buffer(self, yes: bool) -> Self {
        self.with(|wishes| wishes.multi_buffer = yes)
    }

    /// Whether the kernel computes checksums that [`TxMetadata`](crate::xsk::TxMetadata) asks for in copy mode, where a device does not;
    /// since kernel 6.8. For tests: it is slow.
    pub fn software_checksum(self, yes: bool) -> Self {
        self.with(|wishes| wishes.software_checksum = yes)
    }

    /// How many frames the fill ring gets before the socket is bound.
    pub fn prefill(self, prefill: Prefill) -> Self {
        self.with(|wishes| wishes.prefill = prefill)
    }

    /// Polls the device in the socket's own calls; since kernel 5.11.
    pub fn busy_poll(self, busy_poll: BusyPoll) -> Self {
        self.with(|wishes| wishes.busy_poll = Some(busy_poll))
    }

    /// How many packets one call sends at most in copy mode: from 32, which it is if it is not said, to the size of the TX
    /// ring; since kernel 6.17.
    pub fn tx_budget(self, packets: u32) -> Self {
        self.with(|wishes| wishes.tx_budget = Some(TxBudget { packets, is_needed: true }))
    }

    /// The same where the kernel can, and at most the size of the TX ring. Who sends much needs fewer calls then; another
    /// thread that calls for the same socket waits longer.
    pub fn prefer_tx_budget(self, packets: u32) -> Self {
        self.with(|wishes| wishes.tx_budget = Some(TxBudget { packets, is_needed: false }))
    }

    /// For how long the queue is waited for while it is in use: the kernel lets go of a socket's queue some time after it
    /// was closed. A second if it is not said.
    pub fn bind_retry(self, patience: Duration) -> Self {
        self.with(|wishes| wishes.bind_retry = patience)
    }

    /// With the [default program](DefaultProgram) on the interface, which hands the socket what comes to its queue: the socket
    /// joins its users, and leaves them when the [`Socket`] is dropped. Without, packets come only if some other program hands them
    /// over ([`Map::set_socket`](crate::Map::set_socket)).
    pub fn default_program(self, xdp: &Xdp, mode: Mode) -> Self {
        self.with(|wishes| wishes.program = Some((xdp.clone(), mode)))
    }

    /// With a socket that somebody else has made in the interface's namespace (it takes `CAP_NET_RAW` to make one, and
    /// none to bind it). It must be fresh: nothing registered, no ring, not bound.
    pub fn descriptor(self, socket: OwnedFd) -> Self {
        self.with(|wishes| wishes.descriptor = Some(socket))
    }
}

impl<K: Kind, R: End<K, RxRing<K>>, T: End<K, TxRing<K>>> SocketBuilder<K, R, T> {
    /// Makes the socket and its rings, and binds it.
    ///
    /// Needs `CAP_NET_RAW` in the namespace's user namespace, and memory that can be locked (`RLIMIT_MEMLOCK`, or
    /// `CAP_IPC_LOCK`).
    ///
    /// # Errors
    /// [`RingSize`](crate::ErrorKind::RingSize), [`NotSupported`](crate::ErrorKind::NotSupported), or [`Os`](crate::ErrorKind::Os) with the likely
    /// cause. Nothing is left of it.
    pub fn bind(self) -> Result<Bound<K, R, T>> {
        let Self { umem, interface, queue, wishes, .. } = self;
        let Rings { socket, rx, tx, fill, completion } =
            bind::bind(&umem, &interface, queue, wishes)?;
        match (R::from_ring(rx), T::from_ring(tx), fill, completion) {
            (Some(rx), Some(tx), Some(fill), Some(completion)) => {
                Ok(Bound { rx, tx, fill, completion, socket })
            }
            _ => Err(bind::no_ring()),
        }
    }
}

/// What a socket is to be that shares another's queue.
#[must_use = "nothing happens before it is bound"]
pub struct SharingBuilder<'a, K: Kind = Exclusive, R = (), T = ()> {
    first: &'a Socket<K>,
    wishes: Wishes,
    ends: PhantomData<(R, T)>,
}

impl<K: Kind, R, T> fmt::Debug for SharingBuilder<'_, K, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharingBuilder").field("queue", &self.first.queue()).finish_non_exhaustive()
    }
}

impl<'a, K: Kind> SharingBuilder<'a, K> {
    pub(super) fn new(first: &'a Socket<K>) -> Self {
        Self { first, wishes: Wishes::default(), ends: PhantomData }
    }
}

impl<'a, K: Kind, R, T> SharingBuilder<'a, K, R, T> {
    fn with<R2, T2>(self, change: impl FnOnce(&mut Wishes)) -> SharingBuilder<'a, K, R2, T2> {
        let Self { first, mut wishes, .. } = self;
        change(&mut wishes);
        SharingBuilder { first, wishes, ends: PhantomData }
    }

    /// With an RX ring of so many slots, a power of two.
    pub fn rx(self, size: u32) -> SharingBuilder<'a, K, RxRing<K>, T> {
        self.with(|wishes| wishes.rx = Some(size))
    }

    /// With a TX ring of so many slots, a power of two.
    pub fn tx(self, size: u32) -> SharingBuilder<'a, K, R, TxRing<K>> {
        self.with(|wishes| wishes.tx = Some(size))
    }
}

impl<K: Kind, R: End<K, RxRing<K>>, T: End<K, TxRing<K>>> SharingBuilder<'_, K, R, T> {
    /// Makes the socket and its rings, and binds it.
    ///
    /// # Errors
    /// As for [`SocketBuilder::bind`].
    pub fn bind(self) -> Result<Sharing<K, R, T>> {
        let Rings { socket, rx, tx, .. } = bind::share(self.first, self.wishes)?;
        match (R::from_ring(rx), T::from_ring(tx)) {
            (Some(rx), Some(tx)) => Ok(Sharing { rx, tx, socket }),
            _ => Err(bind::no_ring()),
        }
    }
}
