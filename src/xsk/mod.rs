#![forbid(unsafe_code)]

//! AF_XDP: packets between a queue of a device and memory of this process.

mod capabilities;

pub use capabilities::{
    Channels, DeviceCapabilities, QueueCounts, RxMetadataFeatures, XdpFeatures, XskFeatures,
};
