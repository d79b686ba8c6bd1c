#![forbid(unsafe_code)]

//! AF_XDP: packets between a queue of a device and memory of this process.

mod capabilities;
mod diag;

pub use capabilities::{
    Channels, DeviceCapabilities, QueueCounts, RxMetadataFeatures, XdpFeatures, XskFeatures,
};
pub use diag::{MemoryInfo, SocketInfo, SocketStatistics, UmemInfo, count_sockets_in, sockets_in};
