//! The two rtnetlink messages that XDP needs: tell me of a link, and put a program on it.
//!
//! Owns the wire format (`wire` has the framing, which all of netlink shares) and the socket (`socket`).

pub(super) mod socket;
pub(super) mod wire;

use super::Kernel;
use socket::Socket;
use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use wire::{
    Attributes, Message, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Reply, malformed,
    put_attribute, string, u32_at,
};

/// `sizeof(struct ifinfomsg)`, in bytes.
const IFINFO: usize = 16;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_IFNAME: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_ADDRESS: u16 = 1;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// `IFNAMSIZ`: a longer name can only be an alternative one.
const NAME_LENGTH: usize = 16;

/// How often links are listed again that changed meanwhile.
const DUMPS: u32 = 10;

/// Which link is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    Name(&'a str),
    Index(u32),
}

/// What must be on a link for a change to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected<'a> {
    Nothing,
    Program(BorrowedFd<'a>),
}

/// The program ids that the kernel reports for a link, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpIds {
    /// `XDP_ATTACHED_*`
    pub(crate) attached: u8,
    pub(crate) native: u32,
    pub(crate) skb: u32,
    pub(crate) hardware: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Queues that the device was made with, in use or not. `None` from a kernel without `CONFIG_RPS`.
    pub(crate) rx_queues: Option<u32>,
    pub(crate) tx_queues: Option<u32>,
    /// That of its link layer, in as many bytes as that has.
    pub(crate) address: Vec<u8>,
    pub(crate) xdp: XdpIds,
}

/// A request that failed: the errno and, from the driver or the core, a sentence about it.
#[derive(Debug)]
pub(crate) struct NetlinkError {
    pub(crate) source: io::Error,
    pub(crate) message: Option<String>,
    /// Whether the kernel said so. If it did not, its answer was lost, and what was asked for may be done.
    pub(crate) is_answer: bool,
}

impl From<io::Error> for NetlinkError {
    fn from(source: io::Error) -> Self {
        Self { source, message: None, is_answer: false }
    }
}

/// An rtnetlink socket, bound to one namespace.
#[derive(Debug)]
pub(crate) struct RouteSocket(Socket);

impl Kernel {
    /// A socket in the calling thread's namespace.
    pub(crate) fn route_socket(&self) -> io::Result<RouteSocket> {
        self.netlink_socket(libc::NETLINK_ROUTE).map(RouteSocket)
    }

    /// `SIOCGIFNAME`: the name of a link. Any socket will do (net/core/dev_ioctl.c), and `RTM_GETLINK` tells a thousand bytes
    /// more.
    pub(crate) fn link_name(&self, socket: &RouteSocket, index: u32) -> io::Result<String> {
        self.step("ioctl")?;
        let index = i32::try_from(index);
        let index = index.map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: index },
        };
        // SAFETY: SIOCGIFNAME takes an ifreq, and writes the name into it.
        match unsafe { libc::ioctl(socket.0.raw(), libc::SIOCGIFNAME, &raw mut request) } {
            0 => Ok(string(request.ifr_name.map(c_char::to_ne_bytes).as_flattened())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// `RTM_GETLINK`
    pub(crate) fn link_get(
        &self,
        socket: &mut RouteSocket,
        which: Which<'_>,
    ) -> Result<LinkInfo, NetlinkError> {
        self.step("RTM_GETLINK")?;
        let mut request = Message::new(RTM_GETLINK, NLM_F_REQUEST);
        match which {
            Which::Index(index) => put_ifinfo(&mut request, index),
            Which::Name(name) => {
                if name.contains('\0') {
                    return Err(io::Error::from_raw_os_error(libc::ENODEV).into());
                }
                put_ifinfo(&mut request, 0);
                let kind = if name.len() < NAME_LENGTH { IFLA_IFNAME } else { IFLA_ALT_IFNAME };
                request.attribute(kind, &[name.as_bytes(), b"\0"].concat());
            }
        }
        request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        match socket.0.exchange(request)? {
            Reply::Message { kind: RTM_NEWLINK, body } => link(body).ok_or_else(malformed),
            _ => Err(malformed()),
        }
    }

    /// `RTM_GETLINK` of all links of the socket's namespace.
    pub(crate) fn links(&self, socket: &mut RouteSocket) -> Result<Vec<LinkInfo>, NetlinkError> {
        for _ in 0..DUMPS {
            self.step("RTM_GETLINK of all")?;
            if let Some(links) = socket.dump_links()? {
                return Ok(links);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN).into())
    }

    /// `RTM_SETLINK`: puts `program` (none: nothing) on the link, if what is there is `expected`.
    pub(crate) fn link_set_xdp(
        &self,
        socket: &mut RouteSocket,
        index: u32,
        program: Option<BorrowedFd<'_>>,
        expected: Option<Expected<'_>>,
        flags: u32,
    ) -> Result<(), NetlinkError> {
        self.step("RTM_SETLINK")?;
        let number = |fd: BorrowedFd<'_>| fd.as_raw_fd();
        let mut xdp = Vec::new();
        let program: RawFd = program.map_or(-1, number);
        put_attribute(&mut xdp, IFLA_XDP_FD, &program.to_ne_bytes());
        put_attribute(&mut xdp, IFLA_XDP_FLAGS, &flags.to_ne_bytes());
        let expected = expected.map(|expected| match expected {
            Expected::Nothing => -1,
            Expected::Program(program) => number(program),
        });
        if let Some(expected) = expected {
            put_attribute(&mut xdp, IFLA_XDP_EXPECTED_FD, &expected.to_ne_bytes());
        }
        let mut request = Message::new(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK);
        put_ifinfo(&mut request, index);
        request.attribute(IFLA_XDP | NLA_F_NESTED, &xdp);
        let Reply::Done = socket.0.exchange(request)? else {
            return Err(malformed());
        };
        self.step("RTM_SETLINK answer")?;
        Ok(())
    }
}

impl RouteSocket {
    /// All links; `None` if they changed while they were listed.
    fn dump_links(&mut self) -> Result<Option<Vec<LinkInfo>>, NetlinkError> {
        let mut request = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
        put_ifinfo(&mut request, 0);
        request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let mut links = Vec::new();
        let is_whole = self.0.list(request, |kind, body| take_link(&mut links, kind, body))?;
        Ok(is_whole.then_some(links))
    }
}

/// `struct ifinfomsg` with nothing but the index.
fn put_ifinfo(request: &mut Message, index: u32) {
    request.put(&[0; 4]);
    request.put(&index.to_ne_bytes());
    request.put(&[0; 8]);
}

fn take_link(links: &mut Vec<LinkInfo>, kind: u16, body: &[u8]) -> Result<(), NetlinkError> {
    let link = if kind == RTM_NEWLINK { link(body) } else { None };
    links.push(link.ok_or_else(malformed)?);
    Ok(())
}

fn link(body: &[u8]) -> Option<LinkInfo> {
    let mut info = LinkInfo { index: u32_at(body, 4)?, ..Default::default() };
    for (kind, payload) in Attributes(body.get(IFINFO..)?) {
        match kind {
            IFLA_IFNAME => info.name = string(payload),
            IFLA_ADDRESS => info.address = payload.to_vec(),
            IFLA_NUM_RX_QUEUES => info.rx_queues = u32_at(payload, 0),
            IFLA_NUM_TX_QUEUES => info.tx_queues = u32_at(payload, 0),
            IFLA_XDP => info.xdp = xdp_ids(payload),
            _ => {}
        }
    }
    Some(info)
}

fn xdp_ids(bytes: &[u8]) -> XdpIds {
    let mut ids = XdpIds::default();
    let mut only = 0;
    for (kind, payload) in Attributes(bytes) {
        let id = u32_at(payload, 0).unwrap_or(0);
        match kind {
            IFLA_XDP_ATTACHED => ids.attached = payload.first().copied().unwrap_or(0),
            IFLA_XDP_PROG_ID => only = id,
            IFLA_XDP_DRV_PROG_ID => ids.native = id,
            IFLA_XDP_SKB_PROG_ID => ids.skb = id,
            IFLA_XDP_HW_PROG_ID => ids.hardware = id,
            _ => {}
        }
    }
    // Where one program is attached, the kernel may tell its id only without the mode's own attribute.
    match u32::from(ids.attached) {
        libbpf_sys::XDP_ATTACHED_DRV if ids.native == 0 => ids.native = only,
        libbpf_sys::XDP_ATTACHED_SKB if ids.skb == 0 => ids.skb = only,
        libbpf_sys::XDP_ATTACHED_HW if ids.hardware == 0 => ids.hardware = only,
        _ => {}
    }
    ids
}

/// Reads an answer, and the attributes in it, whatever kind it says it is.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let _ = wire::parse(data);
    let mut links = Vec::new();
    let _ =
        wire::Listing::default().read(data, &mut |kind, body| take_link(&mut links, kind, body));
    links.extend(link(data));
    assert!(links.iter().all(|link| link.name.len() <= 3 * data.len()));
    for flags in [wire::NLM_F_ACK_TLVS, wire::NLM_F_ACK_TLVS | wire::NLM_F_CAPPED] {
        let _ = wire::extack(data, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_link_with_its_programs() {
        let mut body = vec![0; IFINFO];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        put_attribute(&mut body, IFLA_IFNAME, b"eth0\0");
        put_attribute(&mut body, IFLA_NUM_RX_QUEUES, &4_u32.to_ne_bytes());
        let mut xdp = Vec::new();
        put_attribute(&mut xdp, IFLA_XDP_ATTACHED, &[2]);
        put_attribute(&mut xdp, IFLA_XDP_PROG_ID, &99_u32.to_ne_bytes());
        put_attribute(&mut body, IFLA_XDP | NLA_F_NESTED, &xdp);
        let link = link(&body).unwrap();
        assert_eq!((link.index, link.name.as_str()), (7, "eth0"));
        assert_eq!((link.rx_queues, link.tx_queues), (Some(4), None));
        assert_eq!(link.xdp, XdpIds { attached: 2, skb: 99, ..Default::default() });
    }

    #[test]
    fn only_links_are_links() {
        let mut links = Vec::new();
        let mut body = [0; IFINFO];
        body[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        take_link(&mut links, RTM_NEWLINK, &body).unwrap();
        assert!(take_link(&mut links, RTM_GETLINK, &body).is_err());
        assert!(take_link(&mut links, RTM_NEWLINK, &body[..15]).is_err());
        assert_eq!(links.iter().map(|link| link.index).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_kernel_lists_what_it_has() {
        let kernel = Kernel::default();
        let links = kernel.links(&mut kernel.route_socket().unwrap()).unwrap();
        assert!(links.iter().any(|link| link.name == "lo"), "{links:?}");
    }

    proptest! {
        #[test]
        fn no_link_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = link(&bytes);
        }
    }
}
