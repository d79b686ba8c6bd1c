//! The two rtnetlink messages that XDP needs: tell me of a link, and put a program on it.
//!
//! Owns the socket and the wire format. A socket stays in the namespace it was made in.

use super::Kernel;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `sizeof(struct sockaddr_nl)`
const SENDER_SIZE: libc::socklen_t = 12;
const _: () = assert!(size_of::<libc::sockaddr_nl>() == 12);
/// The port of the kernel.
const KERNEL: u32 = 0;
const HEADER: usize = 16;
const IFINFO: usize = 16;
/// One answer about one link, in bytes; the kernel's own tools use as much.
const ANSWER: usize = 32 * 1024;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// What is listed was changed while it was listed.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_IFNAME: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
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
    /// For as many receive or transmit queues, whichever are more, the kernel has room.
    pub(crate) queues: u32,
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
pub(crate) struct RouteSocket {
    fd: OwnedFd,
    /// Number of the last request. An answer carries that of its request.
    sequence: u32,
    /// Room for an answer.
    answer: Box<[u8]>,
}

impl Kernel {
    /// A socket in the calling thread's namespace.
    pub(crate) fn route_socket(&self) -> io::Result<RouteSocket> {
        self.step("socket")?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: on is a live int of the size that is passed. A kernel that does not know the option
            // refuses it, and then answers without the text: no reason to stop.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    4,
                )
            };
        }
        Ok(RouteSocket { fd: socket, sequence: 0, answer: vec![0; ANSWER].into() })
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
            Which::Index(index) => request.ifinfo(index),
            Which::Name(name) => {
                if name.contains('\0') {
                    return Err(io::Error::from_raw_os_error(libc::ENODEV).into());
                }
                request.ifinfo(0);
                let kind = if name.len() < NAME_LENGTH { IFLA_IFNAME } else { IFLA_ALT_IFNAME };
                request.attribute(kind, &[name.as_bytes(), b"\0"].concat());
            }
        }
        request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        match socket.exchange(request)? {
            Answer::Link(link) => Ok(link),
            Answer::Done => Err(io::Error::from_raw_os_error(libc::EPROTO).into()),
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
        request.ifinfo(index);
        request.attribute(IFLA_XDP | NLA_F_NESTED, &xdp);
        socket.exchange(request)?;
        self.step("RTM_SETLINK answer")?;
        Ok(())
    }
}

impl RouteSocket {
    /// Sends a request and waits for its answer.
    fn exchange(&mut self, request: Message) -> Result<Answer, NetlinkError> {
        self.send(request)?;
        parse(self.answer()?)
    }

    /// All links; `None` if they changed while they were listed.
    fn dump_links(&mut self) -> Result<Option<Vec<LinkInfo>>, NetlinkError> {
        let mut request = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
        request.ifinfo(0);
        request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        self.send(request)?;
        let mut listed = Listed::default();
        while !listed.is_done {
            listed.read(self.answer()?)?;
        }
        Ok((!listed.is_interrupted).then_some(listed.links))
    }

    fn send(&mut self, request: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.finish(self.sequence);
        let fd = self.fd.as_raw_fd();
        // SAFETY: request is live and as long as the size beside it.
        let sent = unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next datagram of the answer to the last request. What others send to the socket, and late answers to
    /// earlier requests, are passed over.
    fn answer(&mut self) -> io::Result<&[u8]> {
        loop {
            let (size, sender) = self.receive()?;
            let answer = self.answer.get(..size).unwrap_or_default();
            if sender == KERNEL && u32_at(answer, 8) == Some(self.sequence) {
                // Said anew: the borrow checker does not let a loop return what it has borrowed.
                return Ok(self.answer.get(..size).unwrap_or_default());
            }
        }
    }

    /// Receives a datagram into the answer; its size, and the port that it came from.
    fn receive(&mut self) -> io::Result<(usize, u32)> {
        // SAFETY: sockaddr_nl is plain integers, for which all zeroes is a value.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        loop {
            let mut size = SENDER_SIZE;
            // SAFETY: the answer has the room that the size beside it says, and so has from.
            let got = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    self.answer.as_mut_ptr().cast(),
                    self.answer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            if let Ok(got) = usize::try_from(got) {
                return Ok((got, from.nl_pid));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// A request under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(0_u32.to_ne_bytes()); // length, filled by finish()
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes()); // sequence, filled by finish()
        bytes.extend(0_u32.to_ne_bytes()); // port: the kernel fills it
        Self(bytes)
    }

    /// `struct ifinfomsg` with nothing but the index.
    fn ifinfo(&mut self, index: u32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend([0; 8]);
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        put_attribute(&mut self.0, kind, payload);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
        self.0.splice(..4, length);
        self.0.splice(8..12, sequence.to_ne_bytes());
        self.0
    }
}

fn put_attribute(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(payload);
    to.resize(to.len().next_multiple_of(4), 0);
}

enum Answer {
    Link(LinkInfo),
    Done,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The first message of an answer; both of our requests are answered with one.
fn parse(bytes: &[u8]) -> Result<Answer, NetlinkError> {
    let malformed = || NetlinkError::from(io::Error::from_raw_os_error(libc::EPROTO));
    let length = u32_at(bytes, 0).ok_or_else(malformed)? as usize;
    let kind = u16_at(bytes, 4).ok_or_else(malformed)?;
    let flags = u16_at(bytes, 6).ok_or_else(malformed)?;
    let body = bytes.get(HEADER..length).ok_or_else(malformed)?;
    match kind {
        NLMSG_ERROR => match u32_at(body, 0).ok_or_else(malformed)?.cast_signed() {
            0 => Ok(Answer::Done),
            error => Err(NetlinkError {
                source: io::Error::from_raw_os_error(error.wrapping_neg()),
                message: extack(body, flags),
                is_answer: true,
            }),
        },
        RTM_NEWLINK => link(body).map(Answer::Link).ok_or_else(malformed),
        _ => Err(malformed()),
    }
}

/// Links that are being listed, which takes several datagrams of several messages each.
#[derive(Default)]
struct Listed {
    links: Vec<LinkInfo>,
    is_done: bool,
    is_interrupted: bool,
}

impl Listed {
    /// Takes the messages of a datagram.
    fn read(&mut self, mut datagram: &[u8]) -> Result<(), NetlinkError> {
        let malformed = || NetlinkError::from(io::Error::from_raw_os_error(libc::EPROTO));
        while !datagram.is_empty() && !self.is_done {
            let length = u32_at(datagram, 0).ok_or_else(malformed)? as usize;
            let message = datagram.get(..length).filter(|message| message.len() >= HEADER);
            let message = message.ok_or_else(malformed)?;
            self.is_interrupted |= u16_at(message, 6).is_some_and(|f| f & NLM_F_DUMP_INTR != 0);
            if u16_at(message, 4) == Some(NLMSG_DONE) {
                self.is_done = true;
            } else if let Answer::Link(link) = parse(message)? {
                self.links.push(link);
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The sentence in an extended acknowledgement, behind the error and the request's own header (and, unless
/// capped, the whole request).
fn extack(body: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = if flags & NLM_F_CAPPED == 0 { u32_at(body, 4)? as usize } else { HEADER };
    let attributes = body.get(4_usize.checked_add(echoed)?.next_multiple_of(4)..)?;
    let (_, text) = Attributes(attributes).find(|&(kind, _)| kind == NLMSGERR_ATTR_MSG)?;
    Some(string(text))
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn link(body: &[u8]) -> Option<LinkInfo> {
    let mut info = LinkInfo { index: u32_at(body, 4)?, ..Default::default() };
    for (kind, payload) in Attributes(body.get(IFINFO..)?) {
        match kind {
            IFLA_IFNAME => info.name = string(payload),
            IFLA_XDP => info.xdp = xdp_ids(payload),
            IFLA_NUM_TX_QUEUES | IFLA_NUM_RX_QUEUES => {
                info.queues = info.queues.max(u32_at(payload, 0).unwrap_or(0));
            }
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

/// The attributes in a stretch of bytes; ends early where a length makes no sense.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

/// Reads an answer, and the attributes in it, whatever kind it says it is.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    if let Ok(Answer::Link(info)) = parse(data) {
        assert!(info.name.len() <= 3 * data.len());
    }
    let _ = Listed::default().read(data);
    let _ = (link(data), extack(data, NLM_F_ACK_TLVS), extack(data, NLM_F_ACK_TLVS | NLM_F_CAPPED));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Message::new(kind, flags);
        message.0.extend(body);
        message.finish(1)
    }

    #[test]
    fn reads_a_link_with_its_programs() {
        let mut body = vec![0; IFINFO];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        put_attribute(&mut body, IFLA_IFNAME, b"eth0\0");
        put_attribute(&mut body, IFLA_NUM_TX_QUEUES, &4_u32.to_ne_bytes());
        put_attribute(&mut body, IFLA_NUM_RX_QUEUES, &2_u32.to_ne_bytes());
        let mut xdp = Vec::new();
        put_attribute(&mut xdp, IFLA_XDP_ATTACHED, &[2]);
        put_attribute(&mut xdp, IFLA_XDP_PROG_ID, &99_u32.to_ne_bytes());
        put_attribute(&mut body, IFLA_XDP | NLA_F_NESTED, &xdp);
        let Ok(Answer::Link(link)) = parse(&answer(RTM_NEWLINK, 0, &body)) else {
            panic!("not a link")
        };
        assert_eq!((link.index, link.name.as_str(), link.queues), (7, "eth0", 4));
        assert_eq!(link.xdp, XdpIds { attached: 2, skb: 99, ..Default::default() });
    }

    #[test]
    fn all_links_are_listed_until_the_end_is_said() {
        let body = |index: u32| {
            let mut body = vec![0; IFINFO];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            body
        };
        let links = [answer(RTM_NEWLINK, 2, &body(1)), answer(RTM_NEWLINK, 2, &body(2))].concat();
        let mut listed = Listed::default();
        listed.read(&links).unwrap();
        assert!(!listed.is_done && !listed.is_interrupted);
        listed.read(&answer(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, &[0; 4])).unwrap();
        assert!(listed.is_done && listed.is_interrupted);
        assert_eq!(listed.links.iter().map(|link| link.index).collect::<Vec<_>>(), [1, 2]);
        assert!(Listed::default().read(&links[..40]).is_err());
    }

    #[test]
    fn the_kernel_lists_what_it_has() {
        let kernel = Kernel::default();
        let links = kernel.links(&mut kernel.route_socket().unwrap()).unwrap();
        assert!(links.iter().any(|link| link.name == "lo"), "{links:?}");
    }

    #[test]
    fn an_error_carries_the_kernel_s_sentence() {
        let mut body = (-16_i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        put_attribute(&mut body, NLMSGERR_ATTR_MSG, b"XDP program already attached\0");
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let Err(error) = parse(&answer(NLMSG_ERROR, flags, &body)) else { panic!("not an error") };
        assert_eq!(error.source.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(error.message.as_deref(), Some("XDP program already attached"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
            let length = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
            for kind in [NLMSG_ERROR, RTM_NEWLINK] {
                let mut framed = bytes.clone();
                framed.splice(..framed.len().min(4), length);
                framed.splice(framed.len().min(4)..framed.len().min(6), kind.to_ne_bytes());
                let _ = parse(&framed);
            }
        }
    }
}
