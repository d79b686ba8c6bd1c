//! The kernel's list of AF_XDP sockets: `NETLINK_SOCK_DIAG`, answered by net/xdp/xsk_diag.c.
//!
//! Owns the request and the reader of the answer (include/uapi/linux/xdp_diag.h).

use super::Kernel;
use super::netlink::NetlinkError;
use super::netlink::wire::{
    Message, NLM_F_DUMP, NLM_F_REQUEST, each_attribute, malformed, u32_at, u64_at,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_XDP: u8 = 44;
const _: () = assert!(libc::AF_XDP == AF_XDP as libc::c_int);
/// `sizeof(struct xdp_diag_msg)`, in bytes.
const XDP_MESSAGE: usize = 16;

/// `XDP_SHOW_INFO`, `_RING_CFG`, `_UMEM`, `_MEMINFO`, and since 5.9 `_STATS`. A bit that the kernel does not know is not
/// looked at.
const XDP_SHOW_ALL: u32 = 0x1f;

const XDP_DIAG_INFO: u16 = 1;
const XDP_DIAG_UID: u16 = 2;
const XDP_DIAG_RX_RING: u16 = 3;
const XDP_DIAG_TX_RING: u16 = 4;
const XDP_DIAG_UMEM: u16 = 5;
const XDP_DIAG_UMEM_FILL_RING: u16 = 6;
const XDP_DIAG_UMEM_COMPLETION_RING: u16 = 7;
const XDP_DIAG_MEMINFO: u16 = 8;
const XDP_DIAG_STATS: u16 = 9;
/// Of [`XdpUmem::flags`].
pub(crate) const XDP_DU_F_ZEROCOPY: u32 = 1 << 0;

/// What the kernel tells of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpSocket {
    pub(crate) inode: u32,
    pub(crate) cookie: u64,
    /// 0 while it is not bound.
    pub(crate) interface: u32,
    pub(crate) queue: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) rx_ring: Option<u32>,
    pub(crate) tx_ring: Option<u32>,
    pub(crate) fill_ring: Option<u32>,
    pub(crate) completion_ring: Option<u32>,
    pub(crate) umem: Option<XdpUmem>,
    /// `SK_MEMINFO_*`, include/uapi/linux/sock_diag.h
    pub(crate) memory: Option<[u32; 9]>,
    /// `struct xdp_diag_stats`
    pub(crate) statistics: Option<[u64; 6]>,
}

/// `struct xdp_diag_umem`, without interface and queue, which are the socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpUmem {
    pub(crate) size: u64,
    pub(crate) id: u32,
    pub(crate) pages: u32,
    pub(crate) chunk_size: u32,
    pub(crate) headroom: u32,
    pub(crate) flags: u32,
    pub(crate) references: u32,
}

impl Kernel {
    /// The AF_XDP sockets of the calling thread's namespace, the newest first. `None` from a kernel without
    /// `CONFIG_XDP_SOCKETS_DIAG`, and from one whose module for it cannot be loaded.
    pub(crate) fn xdp_sockets(&self) -> Result<Option<Vec<XdpSocket>>, NetlinkError> {
        let mut netlink = match self.netlink_socket(libc::NETLINK_SOCK_DIAG) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
            other => other?,
        };
        self.step("SOCK_DIAG_BY_FAMILY")?;
        let mut sockets = Vec::new();
        match netlink.list(request(), |kind, body| take(&mut sockets, kind, body)) {
            Ok(_) => Ok(Some(sockets)),
            // Nobody has registered for the address family (`__sock_diag_cmd`, net/core/sock_diag.c).
            Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `struct xdp_diag_req`
fn request() -> Message {
    let mut request = Message::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP);
    request.put(&[AF_XDP, 0, 0, 0]);
    request.put(&0_u32.to_ne_bytes()); // inode: not looked at
    request.put(&XDP_SHOW_ALL.to_ne_bytes());
    request.put(&[0; 8]); // cookie: not looked at
    request
}

fn take(sockets: &mut Vec<XdpSocket>, kind: u16, body: &[u8]) -> Result<(), NetlinkError> {
    let socket = if kind == SOCK_DIAG_BY_FAMILY { socket(body) } else { None };
    sockets.push(socket.ok_or_else(malformed)?);
    Ok(())
}

/// `struct xdp_diag_msg` and its attributes. `None` if a part is too short, or the kernel's part about the binding is
/// not there. One that is longer than what is known is one of a later kernel.
fn socket(body: &[u8]) -> Option<XdpSocket> {
    if body.first() != Some(&AF_XDP) {
        return None;
    }
    let mut found = XdpSocket {
        inode: u32_at(body, 4)?,
        cookie: u64::from(u32_at(body, 8)?) | u64::from(u32_at(body, 12)?) << 32,
        ..Default::default()
    };
    let mut info = None;
    each_attribute(body.get(XDP_MESSAGE..)?, |kind, payload| {
        match kind {
            XDP_DIAG_INFO => info = Some((u32_at(payload, 0)?, u32_at(payload, 4)?)),
            XDP_DIAG_UID => found.uid = Some(u32_at(payload, 0)?),
            XDP_DIAG_RX_RING => found.rx_ring = Some(u32_at(payload, 0)?),
            XDP_DIAG_TX_RING => found.tx_ring = Some(u32_at(payload, 0)?),
            XDP_DIAG_UMEM => found.umem = Some(umem(payload)?),
            XDP_DIAG_UMEM_FILL_RING => found.fill_ring = Some(u32_at(payload, 0)?),
            XDP_DIAG_UMEM_COMPLETION_RING => found.completion_ring = Some(u32_at(payload, 0)?),
            XDP_DIAG_MEMINFO => found.memory = Some(numbers(payload, u32_at)?),
            XDP_DIAG_STATS => found.statistics = Some(numbers(payload, u64_at)?),
            _ => {}
        }
        Some(())
    })?;
    (found.interface, found.queue) = info?;
    Some(found)
}

fn umem(payload: &[u8]) -> Option<XdpUmem> {
    let size = u64_at(payload, 0)?;
    let [id, pages, chunk_size, headroom, _interface, _queue, flags, references] =
        numbers(payload.get(8..)?, u32_at)?;
    Some(XdpUmem { size, id, pages, chunk_size, headroom, flags, references })
}

/// The first numbers in a stretch of bytes.
fn numbers<T: Copy + Default, const N: usize>(
    bytes: &[u8],
    read: impl Fn(&[u8], usize) -> Option<T>,
) -> Option<[T; N]> {
    let mut numbers = [T::default(); N];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = read(bytes, at * size_of::<T>())?;
    }
    Some(numbers)
}

/// Reads a list of sockets, and the message about one.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let mut sockets = Vec::new();
    let mut take = |kind, body: &[u8]| take(&mut sockets, kind, body);
    let _ = super::netlink::wire::Listing::default().read(data, &mut take);
    sockets.extend(socket(data));
    // Message and info.
    assert!(sockets.len() <= data.len() / 28);
}

#[cfg(test)]
mod tests {
    use super::super::netlink::wire::put_attribute;
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn message(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = [vec![AF_XDP, 3, 0, 0], words(&[4711, 5, 6])].concat();
        for (kind, payload) in attributes {
            put_attribute(&mut body, *kind, payload);
        }
        body
    }

    /// Size in bytes, then all else.
    fn umem_bytes() -> Vec<u8> {
        [65536_u64.to_ne_bytes().to_vec(), words(&[1, 16, 2048, 64, 10, 3, 1, 2])].concat()
    }

    fn whole() -> Vec<(u16, Vec<u8>)> {
        vec![
            (XDP_DIAG_INFO, words(&[10, 3])),
            (XDP_DIAG_UID, words(&[1000])),
            (XDP_DIAG_RX_RING, words(&[16])),
            (XDP_DIAG_TX_RING, words(&[8])),
            (XDP_DIAG_UMEM, umem_bytes()),
            (XDP_DIAG_UMEM_FILL_RING, words(&[64])),
            (XDP_DIAG_UMEM_COMPLETION_RING, words(&[32])),
            (XDP_DIAG_MEMINFO, words(&[1, 2, 3, 4, 5, 6, 7, 8, 9])),
            (XDP_DIAG_STATS, (1..=6_u64).flat_map(u64::to_ne_bytes).collect()),
            (99, b"of a later kernel".to_vec()),
        ]
    }

    #[test]
    fn a_socket_is_read_with_all_it_has() {
        let expected = XdpSocket {
            inode: 4711,
            cookie: 5 | 6 << 32,
            interface: 10,
            queue: 3,
            uid: Some(1000),
            rx_ring: Some(16),
            tx_ring: Some(8),
            fill_ring: Some(64),
            completion_ring: Some(32),
            umem: Some(XdpUmem {
                size: 65536,
                id: 1,
                pages: 16,
                chunk_size: 2048,
                headroom: 64,
                flags: XDP_DU_F_ZEROCOPY,
                references: 2,
            }),
            memory: Some([1, 2, 3, 4, 5, 6, 7, 8, 9]),
            statistics: Some([1, 2, 3, 4, 5, 6]),
        };
        assert_eq!(socket(&message(&whole())), Some(expected));
    }

    #[test]
    fn one_that_has_nothing_yet_is_read() {
        let bare = socket(&message(&[(XDP_DIAG_INFO, words(&[0, 0]))])).unwrap();
        assert_eq!((bare.inode, bare.interface, bare.umem, bare.statistics), (4711, 0, None, None));
    }

    #[test]
    fn every_part_that_is_too_short_is_an_error() {
        for (at, (kind, _)) in whole().iter().enumerate().take(9) {
            let mut parts = whole();
            parts[at].1.pop();
            assert_eq!(socket(&message(&parts)), None, "attribute {kind}");
        }
        assert_eq!(socket(&message(&[])), None, "it says not where it is bound");
        let whole = message(&whole());
        let mut other = whole.clone();
        other[0] = 2;
        assert_eq!(socket(&other), None, "of another family");
        for length in 0..whole.len() {
            let _ = socket(&whole[..length]);
        }
        assert_eq!(socket(&whole[..15]), None);
    }

    #[test]
    fn a_longer_part_is_one_of_a_later_kernel() {
        let mut parts = whole();
        for (_, payload) in &mut parts {
            payload.extend([7; 8]);
        }
        assert_eq!(socket(&message(&parts)), socket(&message(&whole())));
    }

    #[test]
    fn only_sockets_are_taken() {
        let (mut sockets, body) = (Vec::new(), message(&whole()));
        take(&mut sockets, SOCK_DIAG_BY_FAMILY, &body).unwrap();
        assert!(take(&mut sockets, 16, &body).is_err());
        assert!(take(&mut sockets, SOCK_DIAG_BY_FAMILY, &body[1..]).is_err());
        assert_eq!(sockets.len(), 1);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (socket(&bytes), socket(&[&[AF_XDP], &bytes[..]].concat()));
        }
    }
}
