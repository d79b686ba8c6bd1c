//! Waiting in a tokio runtime. Nothing is held while a future waits, so it can be dropped at any time.
//!
//! epoll(7) tells changes only, and so do tokio's descriptors: before a future sleeps it clears what it was told, and looks
//! at the ring once more. What comes after that look wakes it.

#![forbid(unsafe_code)]

use super::ring::{CompletionRing, RxRing, TxRing};
use super::socket_core::{SocketCore, Wake};
use super::umem::{Exclusive, Kind};
use super::wait::{LOOK, NAP, push};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::xsk::RingKind;
use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

/// A socket and a clock that the runtime watches. The clock is a descriptor too, so that the runtime needs no timers.
#[derive(Debug)]
struct Watch {
    socket: AsyncFd<OwnedFd>,
    interest: Interest,
    timer: AsyncFd<OwnedFd>,
}

impl Watch {
    fn new(socket: &SocketCore, interest: Interest) -> Result<Self> {
        if ::tokio::runtime::Handle::try_current().is_err() {
            let kind = ErrorKind::from(io::Error::other("there is no tokio runtime here"));
            return Err(Error::new("watch", "a socket", kind));
        }
        Self::begin(socket, interest).during("watch", "a socket")
    }

    #[allow(
        deprecated,
        reason = "it is for types that change their descriptor, and an OwnedFd does not"
    )]
    fn begin(socket: &SocketCore, interest: Interest) -> io::Result<Self> {
        // A descriptor of its own for each ring: epoll(7) takes each only once.
        let fd = socket.as_fd().try_clone_to_owned()?;
        let timer = AsyncFd::with_interest(socket.kernel.timer()?, Interest::READABLE)?;
        Ok(Self { socket: AsyncFd::with_interest(fd, interest)?, interest, timer })
    }

    /// Until the socket is ready, or `timeout` has passed. May end too early.
    async fn wait(&self, socket: &SocketCore, timeout: Duration) -> io::Result<()> {
        socket.kernel.set_timer(self.timer.as_fd(), timeout)?;
        poll_fn(|context| {
            let of_socket = if self.interest.is_writable() {
                self.socket.poll_write_ready(context)
            } else {
                self.socket.poll_read_ready(context)
            };
            let ready = match of_socket {
                Poll::Pending => self.timer.poll_read_ready(context),
                ready @ Poll::Ready(_) => ready,
            };
            // Cleared before the ring is looked at again: what comes later is told again.
            ready.map_ok(|mut guard| guard.clear_ready())
        })
        .await
    }
}

/// An [`RxRing`] in a tokio runtime.
#[derive(Debug)]
pub struct AsyncRx<K: Kind = Exclusive> {
    watch: Watch,
    ring: RxRing<K>,
}

impl<K: Kind> AsyncRx<K> {
    /// Lets the runtime of the caller watch the socket.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] outside of a runtime that has I/O enabled, or without descriptors left.
    ///
    /// # Panics
    /// In a runtime that was built without I/O, says tokio.
    pub fn new(ring: RxRing<K>) -> Result<Self> {
        Ok(Self { watch: Watch::new(ring.socket(), Interest::READABLE)?, ring })
    }

    /// Waits until a packet has come, and gives the ring. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] with `ENETDOWN`, at most 100 ms after the device has gone; and as for [`RxRing::peek`].
    pub async fn ready(&mut self) -> Result<&mut RxRing<K>> {
        while self.ring.is_empty()? {
            self.sleep().await.during("wait for", "a packet")?;
        }
        Ok(&mut self.ring)
    }

    async fn sleep(&self) -> io::Result<()> {
        let socket = self.ring.socket();
        // A driver that sleeps for want of frames must be called, or nothing ever comes.
        let _ = socket.wake(RingKind::Fill);
        socket.check()?;
        self.watch.wait(socket, LOOK).await
    }

    /// The ring, as it is.
    pub fn get_mut(&mut self) -> &mut RxRing<K> {
        &mut self.ring
    }

    /// The ring, which the runtime watches no more.
    pub fn into_inner(self) -> RxRing<K> {
        self.ring
    }
}

/// A [`TxRing`] in a tokio runtime.
#[derive(Debug)]
pub struct AsyncTx<K: Kind = Exclusive> {
    watch: Watch,
    ring: TxRing<K>,
}

impl<K: Kind> AsyncTx<K> {
    /// Lets the runtime of the caller watch the socket.
    ///
    /// # Errors
    /// As for [`AsyncRx::new`].
    ///
    /// # Panics
    /// As for [`AsyncRx::new`].
    pub fn new(ring: TxRing<K>) -> Result<Self> {
        Ok(Self { watch: Watch::new(ring.socket(), Interest::WRITABLE)?, ring })
    }

    /// Waits until at most half of the ring is full, and gives the ring. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] with `ENETDOWN` or `ENXIO` once the device has gone.
    pub async fn ready(&mut self) -> Result<&mut TxRing<K>> {
        while self.ring.pending() > self.ring.size() / 2 {
            self.drain().await.during("wait for", "room to send")?;
        }
        Ok(&mut self.ring)
    }

    /// Waits until the kernel has taken all packets. Cancel safe.
    ///
    /// # Errors
    /// As for [`ready`](Self::ready).
    pub async fn flush(&mut self) -> Result<()> {
        while self.ring.pending() > 0 {
            self.drain().await.during("send through", "a socket")?;
        }
        Ok(())
    }

    /// Lets the kernel go on, and waits where it cannot.
    async fn drain(&self) -> io::Result<()> {
        let socket = self.ring.socket();
        socket.check()?;
        match socket.wake(RingKind::Tx)? {
            Wake::Done => ::tokio::task::yield_now().await,
            _ => self.watch.wait(socket, NAP).await?,
        }
        Ok(())
    }

    /// The ring, as it is.
    pub fn get_mut(&mut self) -> &mut TxRing<K> {
        &mut self.ring
    }

    /// The ring, which the runtime watches no more.
    pub fn into_inner(self) -> TxRing<K> {
        self.ring
    }
}

/// A [`CompletionRing`] in a tokio runtime.
#[derive(Debug)]
pub struct AsyncCompletion<K: Kind = Exclusive> {
    watch: Watch,
    ring: CompletionRing<K>,
}

impl<K: Kind> AsyncCompletion<K> {
    /// Lets the runtime of the caller watch the socket.
    ///
    /// # Errors
    /// As for [`AsyncRx::new`].
    ///
    /// # Panics
    /// As for [`AsyncRx::new`].
    pub fn new(ring: CompletionRing<K>) -> Result<Self> {
        Ok(Self { watch: Watch::new(ring.socket(), Interest::WRITABLE)?, ring })
    }

    /// Waits until a packet was sent, and gives the ring. No event tells that, so it looks every 200 µs. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] with `ENETDOWN` or `ENXIO` once the device has gone; and as for [`CompletionRing::peek`].
    pub async fn ready(&mut self) -> Result<&mut CompletionRing<K>> {
        while self.ring.is_empty()? {
            self.sleep().await.during("wait for", "packets to be sent")?;
        }
        Ok(&mut self.ring)
    }

    async fn sleep(&self) -> io::Result<()> {
        push(self.ring.socket())?;
        self.watch.wait(self.ring.socket(), NAP).await
    }

    /// The ring, as it is.
    pub fn get_mut(&mut self) -> &mut CompletionRing<K> {
        &mut self.ring
    }

    /// The ring, which the runtime watches no more.
    pub fn into_inner(self) -> CompletionRing<K> {
        self.ring
    }
}
