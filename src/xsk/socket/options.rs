//! What can be asked of a socket, and what comes back.

use crate::sys::xsk::{RawStatistics, XDP_COPY, XDP_ZEROCOPY};
use std::time::Duration;

/// Whether packets are copied between the device's memory and the UMEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindMode {
    /// Without copies if the device can, else with.
    #[default]
    Auto,
    /// With copies. Any device.
    Copy,
    /// Without copies, or an error.
    ZeroCopy,
}

impl BindMode {
    pub(super) fn flag(self) -> u16 {
        match self {
            Self::Auto => 0,
            Self::Copy => XDP_COPY,
            Self::ZeroCopy => XDP_ZEROCOPY,
        }
    }
}

/// What the kernel has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// Packets are not copied.
    pub zero_copy: bool,
    /// How many fragments a packet to send can have; 1 without multi-buffer.
    pub max_fragments: u32,
    /// How many frames were put into the fill ring before the socket was bound.
    pub prefilled: u32,
}

/// How many free frames of the UMEM go to the fill ring before the socket is bound: some drivers take them then, and leave
/// a queue without a frame for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefill {
    /// As many as the ring has slots and the UMEM has free, but at most half of the UMEM if the socket sends too.
    #[default]
    Auto,
    /// At most so many.
    Frames(u32),
}

/// Lets the socket's own calls poll the device, instead of interrupts; since kernel 5.11. The interface should be told to
/// hold its interrupts back (`napi_defer_hard_irqs`, `gro_flush_timeout` in its directory in sysfs); the library does
/// not touch those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long a call polls, rounded to microseconds.
    pub duration: Duration,
    /// How many packets are processed at once, at most 65535.
    pub budget: u16,
}

impl Default for BusyPoll {
    /// 20 µs, 64 packets.
    fn default() -> Self {
        Self { duration: Duration::from_micros(20), budget: 64 }
    }
}

/// What the kernel has counted since the socket was made; `struct xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Packets that were not received for other reasons than a full ring.
    pub rx_dropped: u64,
    /// Bad entries of the RX ring. Those of the fill ring are counted nowhere.
    pub rx_invalid_descriptors: u64,
    /// Bad entries of the TX ring.
    pub tx_invalid_descriptors: u64,
    /// Packets that were not received since the RX ring was full; since kernel 5.9.
    pub rx_ring_full: Option<u64>,
    /// How often no frame was in the fill ring; since kernel 5.9.
    pub rx_fill_ring_empty: Option<u64>,
    /// How often no packet was in the TX ring; since kernel 5.9.
    pub tx_ring_empty: Option<u64>,
}

impl Statistics {
    pub(super) fn from_raw(raw: &RawStatistics, known: usize) -> Self {
        let newer = |value: u64| (known >= 6).then_some(value);
        Self {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descriptors: raw.rx_invalid_descriptors,
            tx_invalid_descriptors: raw.tx_invalid_descriptors,
            rx_ring_full: newer(raw.rx_ring_full),
            rx_fill_ring_empty: newer(raw.rx_fill_ring_empty),
            tx_ring_empty: newer(raw.tx_ring_empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_old_kernel_does_not_count_is_not_zero() {
        let raw = RawStatistics { rx_dropped: 1, rx_ring_full: 7, ..RawStatistics::default() };
        assert_eq!(Statistics::from_raw(&raw, 3).rx_ring_full, None);
        assert_eq!(Statistics::from_raw(&raw, 6).rx_ring_full, Some(7));
        assert_eq!(Statistics::from_raw(&raw, 3).rx_dropped, 1);
    }
}
