//! AF_XDP: packets that go between a queue of an interface and a program, past the network stack.
//!
//! Owns UMEMs, their frames, rings and sockets. Its promise: safe Rust cannot use a frame that is the kernel's, use one
//! twice, or put one where it does not belong. In libxdp this is `xsk.c` and `xsk.h`, which leave all that to the program.
//!
//! A [`Umem`] is memory, cut into frames. A [`Frame`] is a token: who has it has its bytes, alone. Pushed into a ring it is
//! the kernel's, and comes back out of another ring as a new token:
//!
//! ```text
//!              Frame                    Packet
//!   FillRing <---------+  Umem,  +-----------------> TxRing
//!      |                 FrameCache                    |
//!      |     Packet    +         +     Completed       |
//!   RxRing ------------>         <------------- CompletionRing
//! ```
//!
//! ```no_run
//! use oxdp::xsk::{Socket, Umem};
//! use oxdp::{Interface, Netns};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let eth0 = Interface::by_name(&Netns::current()?, "eth0")?;
//! let umem = Umem::builder().frames(4096).build()?;
//! let mut eth0 = Socket::builder(&umem, &eth0, 0).rx(2048).tx(2048).bind()?;
//! let mut frames = umem.cache();
//!
//! // Every packet that an XDP program hands to the socket goes back to where it came from.
//! loop {
//!     eth0.rx.wait(None)?;
//!     let mut sent = eth0.tx.reserve(64)?;
//!     for mut packet in eth0.rx.peek(sent.left())? {
//!         let (to, from) = packet.data_mut()?.split_at_mut(6);
//!         to.swap_with_slice(&mut from[..6]);
//!         sent.push(packet)?;
//!     }
//!     sent.commit();
//!     eth0.tx.wake()?;
//!     // What was sent is received into again.
//!     eth0.completion.drain(&mut frames)?;
//!     eth0.fill.fill(&mut frames, 64)?;
//!     eth0.fill.wake()?;
//! }
//! # }
//! ```
//!
//! # Threads
//!
//! Each ring is [`Send`] and not [`Sync`]: it can go to a thread of its own, and there is one end of it. A UMEM can be
//! cloned to anywhere; a [`FrameCache`] for each thread keeps them off its lock.
//!
//! # Who is trusted
//!
//! The kernel is trusted not to hand out one frame twice: it can write to all memory of the process as it is. What it says
//! is still checked before memory is touched. An address or a length that is not within a frame is a [`BadDescriptor`], an index
//! that cannot be true [poisons](crate::ErrorKind::RingPoisoned) its ring. Another process that has the memory too
//! (a [`Umem<Shared>`](Shared)) is trusted with nothing: there are no references into it, packets are copied in and out.
//!
//! # When a UMEM goes
//!
//! With the last of its handles, rings, frames and packets, in whichever order they go. A frame that is dropped is free
//! again; one that was forgotten ([`std::mem::forget`]) is lost, [counted](Umem::census), and keeps the memory mapped for
//! good. Frames that the kernel had when a socket was closed come back by [`Umem::reclaim`].

mod capabilities;
mod diag;
pub(crate) mod program;
mod refusal;
pub(crate) mod ring;
mod socket;
mod socket_core;
#[cfg(feature = "tokio")]
mod tokio;
pub(crate) mod umem;
mod wait;

pub use capabilities::{
    Channels, DeviceCapabilities, QueueCounts, RxMetadataFeatures, XdpFeatures, XskFeatures,
};
pub use diag::{MemoryInfo, SocketInfo, SocketStatistics, UmemInfo, count_sockets_in, sockets_in};
pub use program::{DefaultProgram, ProgramOptions};
pub use refusal::{Refusal, Rejected};
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub use ring::bench;
pub use ring::{
    Buffer, Completed, CompletionBatch, CompletionRing, FillBatch, FillRing, Fragments,
    FragmentsBatch, RxBatch, RxRing, TxBatch, TxRing,
};
pub use socket::{
    BindMode, Bound, BusyPoll, End, Granted, Prefill, Sharing, SharingBuilder, Socket,
    SocketBuilder, Statistics,
};
pub use socket_core::Wake;
#[cfg(feature = "tokio")]
pub use tokio::{AsyncCompletion, AsyncRx, AsyncTx};
pub use umem::{
    BadDescriptor, Chunks, Exclusive, Frame, FrameCache, FrameCensus, HugePages, Kind,
    MIN_CHUNK_SIZE, Packet, PacketView, RxMetadata, Shared, TxMetadata, Umem, UmemBuilder,
    UmemRule, XDP_PACKET_HEADROOM,
};
