//! AF_XDP: packets that go between a queue of an interface and a program, past the network stack.
//!
//! Owns UMEMs, their frames, rings and sockets. Its promise: safe Rust cannot use a frame that is the kernel's, use one
//! twice, or put one where it does not belong. In libxdp this is `xsk.c` and `xsk.h`, which leave all that to the program.

mod refusal;
pub(crate) mod ring;
mod socket;
mod socket_core;
pub(crate) mod umem;

pub use refusal::{Refusal, Rejected};
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub use ring::bench;
pub use ring::{
    Buffer, Completed, CompletionBatch, CompletionRing, FillBatch, FillRing, FragmentedPacket,
    RxBatch, RxRing, TxBatch, TxRing,
};
pub use socket::{
    BindMode, Bound, BusyPoll, End, Granted, Prefill, Sharing, SharingBuilder, Socket,
    SocketBuilder, Statistics,
};
pub use socket_core::Wake;
pub use umem::{
    BadDescriptor, Chunks, Exclusive, Frame, FrameCache, FrameCensus, HugePages, Kind,
    MIN_CHUNK_SIZE, Packet, PacketView, RxMetadata, Shared, TxMetadata, Umem, UmemBuilder,
    UmemRule, XDP_PACKET_HEADROOM,
};
