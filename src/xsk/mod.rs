//! AF_XDP: packets that go between a queue of an interface and a program, past the network stack.
//!
//! Owns UMEMs, their frames, rings and sockets. Its promise: safe Rust cannot use a frame that is the kernel's, use one
//! twice, or put one where it does not belong. In libxdp this is `xsk.c` and `xsk.h`, which leave all that to the program.

#[cfg(any(test, fuzzing))]
pub(crate) mod drill;
mod refusal;
pub(crate) mod ring;
mod socket;
mod socket_core;
#[cfg(feature = "tokio")]
mod tokio;
pub(crate) mod umem;
mod wait;

pub use refusal::{Refusal, Rejected};
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
