//! What a device can do with AF_XDP, and how many queues it has, as the kernel tells.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Interface;
use crate::sys::Kernel;
use crate::sys::genl::{ChannelCounts, DeviceFeatures, GenericSocket};
use crate::sys::netlink::{NetlinkError, Which};
use bitflags::bitflags;

const CAPABILITIES: &str = "read the capabilities of";
const QUEUES: &str = "count the queues of";

bitflags! {
    /// What a driver can do with XDP (`enum netdev_xdp_act`, include/uapi/linux/netdev.h).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct XdpFeatures: u64 {
        /// `XDP_ABORTED`, `XDP_DROP`, `XDP_PASS` and `XDP_TX`: it runs programs natively.
        const BASIC = 1 << 0;
        /// `XDP_REDIRECT` out of the device, what an AF_XDP socket needs to receive in native mode.
        const REDIRECT = 1 << 1;
        /// Packets can be redirected to the device. Some drivers can do that only while they have a program of their
        /// own.
        const NDO_XMIT = 1 << 2;
        /// AF_XDP without copies.
        const XSK_ZEROCOPY = 1 << 3;
        /// Programs run in the hardware.
        const HW_OFFLOAD = 1 << 4;
        /// Programs get packets of several fragments.
        const RX_SG = 1 << 5;
        /// Packets of several fragments can be redirected to the device.
        const NDO_XMIT_SG = 1 << 6;
        /// Bits of later kernels are kept.
        const _ = !0;
    }
}

bitflags! {
    /// What a program can ask the driver of a received packet (`enum netdev_xdp_rx_metadata`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct RxMetadataFeatures: u64 {
        /// When it came, `bpf_xdp_metadata_rx_timestamp`.
        const TIMESTAMP = 1 << 0;
        /// The hash over its addresses, `bpf_xdp_metadata_rx_hash`.
        const HASH = 1 << 1;
        /// The VLAN tag that the device took off, `bpf_xdp_metadata_rx_vlan_tag`. Kernel 6.8.
        const VLAN_TAG = 1 << 2;
        /// Bits of later kernels are kept.
        const _ = !0;
    }
}

bitflags! {
    /// What the driver does for packets that an AF_XDP socket sends without a copy (`enum netdev_xsk_flags`).
    ///
    /// Sockets that copy do not need it: there the kernel itself stamps, computes checksums and gives the launch time
    /// to the queueing discipline (`xsk_build_skb` and `xsk_skb_metadata`, net/xdp/xsk.c).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct XskFeatures: u64 {
        /// It says when a packet was sent.
        const TX_TIMESTAMP = 1 << 0;
        /// It computes a checksum.
        const TX_CHECKSUM = 1 << 1;
        /// It holds a packet until the time that it carries, in the order of sending. Kernel 6.15.
        const TX_LAUNCH_TIME_FIFO = 1 << 2;
        /// Bits of later kernels are kept.
        const _ = !0;
    }
}

/// What a device can do with XDP and AF_XDP. Some of it changes when programs come and go, or with settings.
///
/// ```no_run
/// use oxdp::xsk::{DeviceCapabilities, XdpFeatures};
/// use oxdp::{Interface, Netns};
///
/// # fn main() -> oxdp::Result<()> {
/// let eth0 = Interface::by_name(&Netns::current()?, "eth0")?;
/// let capabilities = DeviceCapabilities::of(&eth0)?;
/// if capabilities.xdp.contains(XdpFeatures::XSK_ZEROCOPY) {
///     println!("zero copy on {} queues", capabilities.queues());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceCapabilities {
    /// What its driver can do with XDP.
    pub xdp: XdpFeatures,
    /// How many fragments a packet can have in zero copy; 1 is none but the first. `None` before kernel 6.6, and of a
    /// device without zero copy.
    pub zero_copy_max_segments: Option<u32>,
    /// What programs can ask of a packet. `None` before kernel 6.7.
    pub rx_metadata: Option<RxMetadataFeatures>,
    /// What it does for packets that are sent without a copy. `None` before kernel 6.8.
    pub xsk: Option<XskFeatures>,
    /// Its queues.
    pub counts: QueueCounts,
}

impl DeviceCapabilities {
    /// Asks in the interface's own namespace, by generic netlink (`NETDEV_CMD_DEV_GET`). No capability is needed but
    /// that to enter the namespace.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] before kernel 6.3, where [`QueueCounts::of`] still answers.
    /// [`ErrorKind::NoInterface`] if it is gone.
    #[doc(alias = "bpf_xdp_query")]
    pub fn of(interface: &Interface) -> Result<Self> {
        let kernel = Kernel::default();
        let mut socket = open(&kernel, interface, CAPABILITIES)?;
        let features = kernel
            .device_features(&mut socket, interface.index())
            .map_err(|error| failed(CAPABILITIES, interface, error))?;
        let counts = QueueCounts::read(&kernel, &mut socket, interface)?;
        let features = features.ok_or(ErrorKind::NotSupported {
            feature: "what a device can do with XDP (netdev netlink)",
            needs: "kernel 6.3",
        });
        Ok(Self::new(features.during(CAPABILITIES, interface)?, counts))
    }

    fn new(features: DeviceFeatures, counts: QueueCounts) -> Self {
        Self {
            xdp: XdpFeatures::from_bits_retain(features.xdp),
            zero_copy_max_segments: features.zero_copy_max_segments,
            rx_metadata: features.rx_metadata.map(RxMetadataFeatures::from_bits_retain),
            xsk: features.xsk.map(XskFeatures::from_bits_retain),
            counts,
        }
    }

    /// [`QueueCounts::queues`].
    pub fn queues(&self) -> u32 {
        self.counts.queues()
    }
}

/// How many queues a device has, by what each of two parts of the kernel calls so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounts {
    /// Receive queues that the device was made with, in use or not (`num_rx_queues`). `None` from a kernel without
    /// `CONFIG_RPS`.
    pub rx: Option<u32>,
    /// Transmit queues that the device was made with, in use or not (`num_tx_queues`).
    pub tx: Option<u32>,
    /// Its channels, as its driver counts them. `None` of a device whose driver does not, and from a kernel without
    /// `CONFIG_ETHTOOL_NETLINK`.
    pub channels: Option<Channels>,
}

/// Channels of a device, as its driver counts them: queues with an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channels {
    /// In use, with a receive queue alone.
    pub rx: u32,
    /// In use, with a transmit queue alone.
    pub tx: u32,
    /// In use, with one of each.
    pub combined: u32,
    /// The most that `rx` can be set to.
    pub max_rx: u32,
    /// The most that `tx` can be set to.
    pub max_tx: u32,
    /// The most that `combined` can be set to.
    pub max_combined: u32,
}

impl QueueCounts {
    /// Asks in the interface's own namespace, by rtnetlink and `ETHTOOL_MSG_CHANNELS_GET`. Every kernel that the
    /// library runs on can tell. No capability is needed but that to enter the namespace.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`] if it is gone.
    pub fn of(interface: &Interface) -> Result<Self> {
        let kernel = Kernel::default();
        let mut socket = open(&kernel, interface, QUEUES)?;
        Self::read(&kernel, &mut socket, interface)
    }

    fn read(kernel: &Kernel, socket: &mut GenericSocket, interface: &Interface) -> Result<Self> {
        let index = interface.index();
        let fail = |error| failed(QUEUES, interface, error);
        let link = kernel.link_get(&mut interface.socket(), Which::Index(index)).map_err(fail)?;
        let channels = kernel.channels(socket, index).map_err(fail)?;
        Ok(Self { rx: link.rx_queues, tx: link.tx_queues, channels: channels.map(Channels::from) })
    }

    /// How many queues C libxdp takes the device to have, and the number of entries that it gives an `xsks_map`: the
    /// largest of the channels' maxima, and 1 of a device without channels.
    ///
    /// The latter can be too few, for drivers with queues and without channels: veth before kernel 5.13, tun. Every
    /// queue has its place in a map of [`limit`](Self::limit) entries.
    #[doc(alias = "xsk_get_max_queues")]
    pub fn queues(&self) -> u32 {
        let most = |channels: Channels| {
            channels.max_rx.max(channels.max_tx).max(channels.max_combined).max(1)
        };
        self.channels.map_or(1, most)
    }

    /// A number that no queue's id reaches, however the device is set: the larger of [`queues`](Self::queues) and of
    /// the queues that the device was made with.
    pub fn limit(&self) -> u32 {
        self.queues().max(self.rx.unwrap_or(0)).max(self.tx.unwrap_or(0))
    }

    /// How many queues are in use, as the driver counts them: a socket can be bound to the ids below. `None` if it
    /// does not.
    ///
    /// bind(2) answers `EINVAL` to an id that is neither that of a receive queue in use nor that of a transmit queue
    /// (`xsk_reg_pool_at_qid`, net/xdp/xsk.c).
    pub fn in_use(&self) -> Option<u32> {
        let used = |channels: Channels| {
            channels.combined.saturating_add(channels.rx.max(channels.tx)).max(1)
        };
        self.channels.map(used)
    }
}

impl From<ChannelCounts> for Channels {
    fn from(counts: ChannelCounts) -> Self {
        let ChannelCounts { rx, tx, combined, max_rx, max_tx, max_combined } = counts;
        Self { rx, tx, combined, max_rx, max_tx, max_combined }
    }
}

/// A socket in the interface's namespace.
fn open(kernel: &Kernel, interface: &Interface, operation: &'static str) -> Result<GenericSocket> {
    let socket = interface.netns().enter(kernel, || kernel.generic_socket())?;
    socket.during(operation, interface)
}

fn failed(operation: &'static str, interface: &Interface, error: NetlinkError) -> Error {
    let kind = match error.source.raw_os_error() {
        Some(libc::ENODEV) => ErrorKind::NoInterface,
        _ => error.into(),
    };
    Error::new(operation, interface, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rx: u32, tx: u32, channels: Option<ChannelCounts>) -> QueueCounts {
        QueueCounts { rx: Some(rx), tx: Some(tx), channels: channels.map(Channels::from) }
    }

    #[test]
    fn queues_are_counted_as_drivers_count_them() {
        let combined = ChannelCounts { combined: 4, max_combined: 63, ..Default::default() };
        let apart = ChannelCounts { rx: 2, tx: 3, max_rx: 8, max_tx: 4, ..Default::default() };
        let both = ChannelCounts { combined: 4, rx: 1, max_rx: 8, max_combined: 8, ..apart };
        for (counts, queues, limit, in_use) in [
            (counts(64, 64, Some(combined)), 63, 64, Some(4)),
            (counts(8, 4, Some(apart)), 8, 8, Some(3)),
            (counts(8, 8, Some(both)), 8, 8, Some(7)),
            (counts(1, 1, Some(ChannelCounts::default())), 1, 1, Some(1)),
            (counts(256, 256, None), 1, 256, None),
            (QueueCounts { rx: None, tx: None, channels: None }, 1, 1, None),
        ] {
            assert_eq!(counts.queues(), queues, "{counts:?}");
            assert_eq!(counts.limit(), limit, "{counts:?}");
            assert_eq!(counts.in_use(), in_use, "{counts:?}");
        }
    }

    #[test]
    fn features_of_later_kernels_are_kept() {
        let features = DeviceFeatures { xdp: 1 << 40 | 1, ..Default::default() };
        let capabilities = DeviceCapabilities::new(features, counts(1, 1, None));
        assert!(capabilities.xdp.contains(XdpFeatures::BASIC));
        assert_eq!(capabilities.xdp.bits(), 1 << 40 | 1);
        assert_eq!((capabilities.rx_metadata, capabilities.xsk), (None, None));
    }
}
