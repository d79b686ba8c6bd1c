//! Netlink's framing, whatever a message is about: headers, attributes, and how an answer ends.

use super::NetlinkError;
use std::io;

/// `sizeof(struct nlmsghdr)`, in bytes.
pub(crate) const HEADER: usize = 16;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// What is listed was changed while it was listed.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_CAPPED: u16 = 0x100;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request under construction.
pub(crate) struct Message(pub(super) Vec<u8>);

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(0_u32.to_ne_bytes()); // length, filled by finish()
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes()); // sequence, filled by finish()
        bytes.extend(0_u32.to_ne_bytes()); // port: the kernel fills it
        Self(bytes)
    }

    /// Bytes of the family's own header.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        put_attribute(&mut self.0, kind, payload);
    }

    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
        self.0.splice(..4, length);
        self.0.splice(8..12, sequence.to_ne_bytes());
        self.0
    }
}

pub(crate) fn put_attribute(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(payload);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    number(bytes, at).map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_ne_bytes)
}

/// An answer that makes no sense.
pub(crate) fn malformed() -> NetlinkError {
    io::Error::from_raw_os_error(libc::EPROTO).into()
}

/// One message of an answer.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// That it is done.
    Done,
    /// A message of the family's own.
    Message { kind: u16, body: &'a [u8] },
}

/// The first message of an answer.
pub(crate) fn parse(bytes: &[u8]) -> Result<Reply<'_>, NetlinkError> {
    let length = u32_at(bytes, 0).ok_or_else(malformed)? as usize;
    let kind = u16_at(bytes, 4).ok_or_else(malformed)?;
    let flags = u16_at(bytes, 6).ok_or_else(malformed)?;
    let body = bytes.get(HEADER..length).ok_or_else(malformed)?;
    if kind != NLMSG_ERROR {
        return Ok(Reply::Message { kind, body });
    }
    match u32_at(body, 0).ok_or_else(malformed)?.cast_signed() {
        0 => Ok(Reply::Done),
        error => Err(NetlinkError {
            source: io::Error::from_raw_os_error(error.wrapping_neg()),
            message: extack(body, flags),
            is_answer: true,
        }),
    }
}

/// A listing that is being read, which takes several datagrams of several messages each.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(super) is_done: bool,
    pub(super) is_interrupted: bool,
}

impl Listing {
    /// Gives the messages of a datagram to `take`.
    pub(crate) fn read(
        &mut self,
        mut datagram: &[u8],
        take: &mut impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        while !datagram.is_empty() && !self.is_done {
            let length = u32_at(datagram, 0).ok_or_else(malformed)? as usize;
            let message = datagram.get(..length).filter(|message| message.len() >= HEADER);
            let message = message.ok_or_else(malformed)?;
            self.is_interrupted |= u16_at(message, 6).is_some_and(|f| f & NLM_F_DUMP_INTR != 0);
            match parse(message)? {
                Reply::Message { kind: NLMSG_DONE, body } => self.finish(body)?,
                Reply::Message { kind, body } => take(kind, body)?,
                Reply::Done => {}
            }
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// The last message says with what result the listing ended (`netlink_dump`, net/netlink/af_netlink.c).
    fn finish(&mut self, body: &[u8]) -> Result<(), NetlinkError> {
        self.is_done = true;
        match u32_at(body, 0).map_or(0, u32::cast_signed) {
            error @ ..0 => Err(NetlinkError {
                source: io::Error::from_raw_os_error(error.wrapping_neg()),
                message: None,
                is_answer: true,
            }),
            _ => Ok(()),
        }
    }
}

/// The sentence in an extended acknowledgement, behind the error and the request's own header (and, unless
/// capped, the whole request).
pub(super) fn extack(body: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = if flags & NLM_F_CAPPED == 0 { u32_at(body, 4)? as usize } else { HEADER };
    let attributes = body.get(4_usize.checked_add(echoed)?.next_multiple_of(4)..)?;
    let (_, text) = Attributes(attributes).find(|&(kind, _)| kind == NLMSGERR_ATTR_MSG)?;
    Some(string(text))
}

pub(super) fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// The attributes in a stretch of bytes; ends early where a length makes no sense.
pub(crate) struct Attributes<'a>(pub(super) &'a [u8]);

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

/// Gives every attribute in `bytes` to `take`. `None` where a length makes no sense, or `take` says so.
pub(crate) fn each_attribute<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(u16, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut attributes = Attributes(bytes);
    for (kind, payload) in attributes.by_ref() {
        take(kind, payload)?;
    }
    attributes.0.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Message::new(kind, flags);
        message.put(body);
        message.finish(1)
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

    #[test]
    fn a_listing_goes_on_until_the_end_is_said() {
        let mut seen = Vec::new();
        let mut take = |kind, body: &[u8]| {
            seen.push((kind, body.to_vec()));
            Ok(())
        };
        let mut listing = Listing::default();
        let two = [answer(16, 2, b"one."), answer(16, 2, b"two.")].concat();
        listing.read(&two, &mut take).unwrap();
        assert!(!listing.is_done && !listing.is_interrupted);
        listing.read(&answer(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, &[0; 4]), &mut take).unwrap();
        assert!(listing.is_done && listing.is_interrupted);
        assert!(Listing::default().read(&two[..30], &mut take).is_err());
        assert_eq!(seen[..2], [(16, b"one.".to_vec()), (16, b"two.".to_vec())]);
    }

    #[test]
    fn a_listing_can_fail_at_its_end() {
        let end = answer(NLMSG_DONE, 2, &(-12_i32).to_ne_bytes());
        let error = Listing::default().read(&end, &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOMEM));
    }

    #[test]
    fn attributes_of_a_wrong_length_are_no_attributes() {
        let mut bytes = Vec::new();
        put_attribute(&mut bytes, 1, &[7; 5]);
        put_attribute(&mut bytes, 2, &[]);
        let count = |bytes: &[u8]| {
            let mut count = 0;
            each_attribute(bytes, |_, _| {
                count += 1;
                Some(())
            })
            .map(|()| count)
        };
        assert_eq!((count(&bytes), count(&[])), (Some(2), Some(0)));
        for length in 1..bytes.len() {
            let whole = length == 12 || (9..12).contains(&length);
            assert_eq!(count(&bytes[..length]).is_some(), whole, "{length} bytes");
        }
        assert_eq!(count(&[3, 0, 1, 0]), None, "shorter than its own header");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (parse(&bytes).is_ok(), Listing::default().read(&bytes, &mut |_, _| Ok(())).is_ok());
            let framed = |kind, flags| answer(kind, flags, &bytes);
            for flags in [0, NLM_F_ACK_TLVS, NLM_F_ACK_TLVS | NLM_F_CAPPED] {
                let _ = (parse(&framed(NLMSG_ERROR, flags)).is_ok(), parse(&framed(20, flags)).is_ok());
            }
        }
    }
}
