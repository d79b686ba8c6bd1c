//! Two families of generic netlink: `netdev`, which tells what a device can do with XDP, and `ethtool`, which tells
//! its channels. Neither question needs a capability.
//!
//! Owns the requests and the readers of the answers. A value that an answer does not have is `None`, never 0.

use super::Kernel;
use super::netlink::NetlinkError;
use super::netlink::socket::Socket;
use super::netlink::wire::{
    Message, NLA_F_NESTED, NLM_F_REQUEST, Reply, each_attribute, malformed, put_attribute, u16_at,
    u32_at, u64_at,
};
use std::io;

/// `sizeof(struct genlmsghdr)`, in bytes; include/uapi/linux/genetlink.h.
const GENL_HEADER: usize = 4;

/// `GENL_ID_CTRL`, the family that knows the numbers of the others.
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// include/uapi/linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;

// include/uapi/linux/ethtool_netlink.h
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_CHANNELS_HEADER: u16 = 1;
const ETHTOOL_A_CHANNELS_RX_MAX: u16 = 2;
const ETHTOOL_A_CHANNELS_TX_MAX: u16 = 3;
const ETHTOOL_A_CHANNELS_COMBINED_MAX: u16 = 5;
const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
const ETHTOOL_A_CHANNELS_TX_COUNT: u16 = 7;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;

/// A generic netlink socket, bound to one namespace.
#[derive(Debug)]
pub(crate) struct GenericSocket(Socket);

/// What `netdev` tells of a device, as bits of include/uapi/linux/netdev.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceFeatures {
    pub(crate) index: u32,
    /// `enum netdev_xdp_act`
    pub(crate) xdp: u64,
    /// Kernel 6.6, and only of a device that has zero copy.
    pub(crate) zero_copy_max_segments: Option<u32>,
    /// `enum netdev_xdp_rx_metadata`, kernel 6.7
    pub(crate) rx_metadata: Option<u64>,
    /// `enum netdev_xsk_flags`, kernel 6.8
    pub(crate) xsk: Option<u64>,
}

/// What `ethtool` tells of a device's channels. A kind that the device has none of is told nothing about
/// (`channels_fill_reply`, net/ethtool/channels.c), and 0 here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelCounts {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) combined: u32,
    pub(crate) max_rx: u32,
    pub(crate) max_tx: u32,
    pub(crate) max_combined: u32,
}

impl Kernel {
    /// A socket in the calling thread's namespace.
    pub(crate) fn generic_socket(&self) -> io::Result<GenericSocket> {
        self.netlink_socket(libc::NETLINK_GENERIC).map(GenericSocket)
    }

    /// `NETDEV_CMD_DEV_GET`. `None` from a kernel without the family, one before 6.3.
    pub(crate) fn device_features(
        &self,
        socket: &mut GenericSocket,
        index: u32,
    ) -> Result<Option<DeviceFeatures>, NetlinkError> {
        let Some(family) = self.family(socket, "netdev")? else {
            return Ok(None);
        };
        self.step("NETDEV_CMD_DEV_GET")?;
        let mut request = request(family, NETDEV_CMD_DEV_GET, 1);
        request.attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
        let found = features(socket.ask(family, request)?).ok_or_else(malformed)?;
        if found.index == index { Ok(Some(found)) } else { Err(malformed()) }
    }

    /// `ETHTOOL_MSG_CHANNELS_GET`. `None` of a device without channels, and from a kernel without the family
    /// (`CONFIG_ETHTOOL_NETLINK`, 5.6).
    pub(crate) fn channels(
        &self,
        socket: &mut GenericSocket,
        index: u32,
    ) -> Result<Option<ChannelCounts>, NetlinkError> {
        let Some(family) = self.family(socket, "ethtool")? else {
            return Ok(None);
        };
        self.step("ETHTOOL_MSG_CHANNELS_GET")?;
        let mut device = Vec::new();
        put_attribute(&mut device, ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
        let mut request = request(family, ETHTOOL_MSG_CHANNELS_GET, 1);
        request.attribute(ETHTOOL_A_CHANNELS_HEADER | NLA_F_NESTED, &device);
        match socket.ask(family, request) {
            Ok(answer) => counts(answer).map(Some).ok_or_else(malformed),
            Err(error) if error.source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of a family; `None` if the kernel does not have it.
    fn family(&self, socket: &mut GenericSocket, name: &str) -> Result<Option<u16>, NetlinkError> {
        self.step("CTRL_CMD_GETFAMILY")?;
        let mut request = request(CONTROL, CTRL_CMD_GETFAMILY, CTRL_VERSION);
        request.attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), b"\0"].concat());
        match socket.ask(CONTROL, request) {
            Ok(answer) => number(answer).map(Some).ok_or_else(malformed),
            Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl GenericSocket {
    /// Sends a request; the attributes of its answer.
    fn ask(&mut self, family: u16, request: Message) -> Result<&[u8], NetlinkError> {
        match self.0.exchange(request)? {
            Reply::Message { kind, body } if kind == family => {
                body.get(GENL_HEADER..).ok_or_else(malformed)
            }
            _ => Err(malformed()),
        }
    }
}

/// A request with `struct genlmsghdr`.
fn request(family: u16, command: u8, version: u8) -> Message {
    let mut request = Message::new(family, NLM_F_REQUEST);
    request.put(&[command, version, 0, 0]);
    request
}

/// The number in the answer about a family.
fn number(attributes: &[u8]) -> Option<u16> {
    let mut found = None;
    each_attribute(attributes, |kind, payload| {
        if kind == CTRL_ATTR_FAMILY_ID {
            found = Some(u16_at(payload, 0)?);
        }
        Some(())
    })?;
    found
}

/// The answer to `NETDEV_CMD_DEV_GET`. `None` if it makes no sense; index and XDP features are in every one.
fn features(attributes: &[u8]) -> Option<DeviceFeatures> {
    let (mut found, mut index, mut xdp) = (DeviceFeatures::default(), None, None);
    each_attribute(attributes, |kind, payload| {
        match kind {
            NETDEV_A_DEV_IFINDEX => index = Some(u32_at(payload, 0)?),
            NETDEV_A_DEV_XDP_FEATURES => xdp = Some(u64_at(payload, 0)?),
            NETDEV_A_DEV_XDP_ZC_MAX_SEGS => {
                found.zero_copy_max_segments = Some(u32_at(payload, 0)?);
            }
            NETDEV_A_DEV_XDP_RX_METADATA_FEATURES => found.rx_metadata = Some(u64_at(payload, 0)?),
            NETDEV_A_DEV_XSK_FEATURES => found.xsk = Some(u64_at(payload, 0)?),
            _ => {}
        }
        Some(())
    })?;
    Some(DeviceFeatures { index: index?, xdp: xdp?, ..found })
}

/// The answer to `ETHTOOL_MSG_CHANNELS_GET`. `None` if it makes no sense.
fn counts(attributes: &[u8]) -> Option<ChannelCounts> {
    let mut found = ChannelCounts::default();
    each_attribute(attributes, |kind, payload| {
        let count = match kind {
            ETHTOOL_A_CHANNELS_RX_MAX => &mut found.max_rx,
            ETHTOOL_A_CHANNELS_TX_MAX => &mut found.max_tx,
            ETHTOOL_A_CHANNELS_COMBINED_MAX => &mut found.max_combined,
            ETHTOOL_A_CHANNELS_RX_COUNT => &mut found.rx,
            ETHTOOL_A_CHANNELS_TX_COUNT => &mut found.tx,
            ETHTOOL_A_CHANNELS_COMBINED_COUNT => &mut found.combined,
            _ => return Some(()),
        };
        *count = u32_at(payload, 0)?;
        Some(())
    })?;
    Some(found)
}

/// Reads an answer's attributes as those of each question.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let _ = (number(data), features(data), counts(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in list {
            put_attribute(&mut bytes, *kind, payload);
        }
        bytes
    }

    #[test]
    fn what_an_old_kernel_does_not_tell_is_not_made_up() {
        let told = attributes(&[(1, &7_u32.to_ne_bytes()), (3, &3_u64.to_ne_bytes())]);
        let expected = DeviceFeatures { index: 7, xdp: 3, ..Default::default() };
        assert_eq!(features(&told), Some(expected));
        assert_eq!((expected.rx_metadata, expected.xsk), (None, None));
    }

    #[test]
    fn every_feature_is_read() {
        let told = attributes(&[
            (1, &7_u32.to_ne_bytes()),
            (2, &[]), // padding
            (3, &0x7f_u64.to_ne_bytes()),
            (5, &7_u64.to_ne_bytes()),
            (6, &0_u64.to_ne_bytes()),
            (4, &8_u32.to_ne_bytes()),
            (99, b"of a later kernel"),
        ]);
        let expected = DeviceFeatures {
            index: 7,
            xdp: 0x7f,
            zero_copy_max_segments: Some(8),
            rx_metadata: Some(7),
            xsk: Some(0),
        };
        assert_eq!(features(&told), Some(expected));
    }

    #[test]
    fn short_and_missing_values_are_an_error() {
        let index: (u16, &[u8]) = (1, &7_u32.to_ne_bytes());
        let xdp: (u16, &[u8]) = (3, &3_u64.to_ne_bytes());
        for wrong in [
            vec![],
            vec![index],
            vec![xdp],
            vec![index, (3, &[0; 7])],
            vec![index, xdp, (4, &[0; 3])],
            vec![index, xdp, (5, &[0; 4])],
            vec![index, xdp, (6, &[])],
        ] {
            assert_eq!(features(&attributes(&wrong)), None, "{wrong:?}");
        }
        let cut = attributes(&[index, xdp]);
        assert_eq!(features(&cut[..cut.len() - 1]), None);
        assert_eq!(counts(&attributes(&[(5, &[0; 2])])), None);
        assert_eq!((number(&attributes(&[(1, &[9])])), number(&[])), (None, None));
        assert_eq!(number(&attributes(&[(2, b"netdev\0"), (1, &[0x1c, 0])])), Some(0x1c));
    }

    #[test]
    fn channels_of_a_kind_that_is_not_told_are_none() {
        let told =
            attributes(&[(1, &[0; 8]), (2, &4_u32.to_ne_bytes()), (6, &3_u32.to_ne_bytes())]);
        let expected = ChannelCounts { rx: 3, max_rx: 4, ..Default::default() };
        assert_eq!(counts(&told), Some(expected));
        assert_eq!(counts(&[]), Some(ChannelCounts::default()));
    }

    #[test]
    fn a_family_that_nobody_has_is_none() {
        let kernel = Kernel::default();
        let mut socket = kernel.generic_socket().unwrap();
        assert_eq!(kernel.family(&mut socket, "oxdp-absent").unwrap(), None);
        assert_eq!(kernel.family(&mut socket, "nlctrl").unwrap(), Some(CONTROL));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = (number(&bytes), features(&bytes), counts(&bytes));
        }
    }
}
