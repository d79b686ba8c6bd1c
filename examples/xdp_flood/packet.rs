//! The packets of a stream: their fixed headers, and what the BPF program needs to make the rest.

use crate::network::Mac;
use anyhow::{Result, bail, ensure};
use oxdp::Program;
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const TTL: u8 = 64;
/// Room for the headers in the program, which copies words.
const HEADERS: usize = 56;

/// A port, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    first: u16,
    more: u16,
}

impl FromStr for Ports {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (first.parse()?, last.parse()?);
        let more = last.checked_sub(first);
        let more = more.ok_or_else(|| anyhow::anyhow!("the range ends before it starts"))?;
        Ok(Self { first, more })
    }
}

impl Ports {
    /// As `struct ports` of the program.
    fn to_bytes(self) -> Vec<u8> {
        [self.first.to_ne_bytes(), self.more.to_ne_bytes()].concat()
    }
}

/// All packets of a stream; they differ in their ports, and so in their checksums.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Ethernet and IP.
    headers: Vec<u8>,
    is_ipv6: bool,
    /// UDP header and payload.
    udp_length: u16,
    /// What the UDP checksum covers besides the ports.
    sum: u32,
    from: Ports,
    to: Ports,
    size: usize,
}

impl Stream {
    /// Of `size` bytes each; of each pair, the source comes first.
    pub(crate) fn new(
        macs: (Mac, Mac),
        addresses: (IpAddr, IpAddr),
        ports: (Ports, Ports),
        size: usize,
    ) -> Result<Self> {
        let ip = if addresses.1.is_ipv6() { IPV6 } else { IPV4 };
        let smallest = ETHERNET + ip + UDP;
        ensure!(
            size >= smallest,
            "the smallest UDP packet to {} has {smallest} bytes",
            addresses.1
        );
        let udp_length = u16::try_from(size - ETHERNET - ip)?;
        let mut headers = [macs.1.bytes(), macs.0.bytes()].concat();
        let pseudo = match addresses {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                headers.extend([0x08, 0x00]);
                headers.extend(ipv4(from.octets(), to.octets(), udp_length)?);
                [from.octets(), to.octets()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                headers.extend([0x86, 0xdd]);
                headers.extend([0x60, 0, 0, 0]);
                headers.extend(udp_length.to_be_bytes());
                headers.extend([PROTOCOL_UDP, TTL]);
                headers.extend([from.octets(), to.octets()].concat());
                [from.octets(), to.octets()].concat()
            }
            (from, to) => bail!("{from} and {to} are not of the same family"),
        };
        // The length counts twice, in the pseudo header and in the UDP header; the payload is zeroes.
        let sum = sum(&pseudo) + u32::from(PROTOCOL_UDP) + 2 * u32::from(udp_length);
        let (from, to) = ports;
        Ok(Self { headers, is_ipv6: ip == IPV6, udp_length, sum, from, to, size })
    }

    /// A packet for the program to write its headers into.
    pub(crate) fn blank(&self) -> Vec<u8> {
        vec![0; self.size]
    }

    /// Makes a program that is not loaded yet send every `stride`-th packet of the stream, from packet `start` on,
    /// out of the interface `out`.
    pub(crate) fn configure(
        &self,
        program: &mut Program,
        out: u32,
        start: u64,
        stride: u64,
    ) -> oxdp::Result<()> {
        let mut headers = self.headers.clone();
        headers.resize(HEADERS, 0);
        for (name, value) in [
            ("headers", headers),
            ("is_ipv6", vec![u8::from(self.is_ipv6)]),
            ("udp_length", self.udp_length.to_ne_bytes().into()),
            ("sum", self.sum.to_ne_bytes().into()),
            ("source", self.from.to_bytes()),
            ("destination", self.to.to_bytes()),
            ("out", out.to_ne_bytes().into()),
            ("start", start.to_ne_bytes().into()),
            ("stride", stride.to_ne_bytes().into()),
        ] {
            program.set_global(name, &value)?;
        }
        Ok(())
    }
}

/// Not to be fragmented, so it needs no identification.
fn ipv4(from: [u8; 4], to: [u8; 4], udp_length: u16) -> Result<Vec<u8>> {
    let length = udp_length.checked_add(20).ok_or_else(|| anyhow::anyhow!("too long"))?;
    let [high, low] = length.to_be_bytes();
    let start = [0x45, 0, high, low, 0, 0, 0x40, 0, TTL, PROTOCOL_UDP];
    let addresses = [from, to].concat();
    let mut total = sum(&start) + sum(&addresses);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let checksum = !u16::try_from(total)?;
    Ok([&start[..], &checksum.to_be_bytes(), &addresses].concat())
}

/// Of an even number of bytes, as big-endian words.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}
