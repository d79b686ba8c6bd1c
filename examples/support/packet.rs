//! Packets of Ethernet, IPv4 and UDP.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Bytes of the three headers.
pub(crate) const HEADERS: usize = 14 + 20 + 8;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac([u8; 6]);

impl Mac {
    pub(crate) fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let byte = |part| u8::from_str_radix(part, 16);
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
        Ok(Self(bytes.try_into().ok().context("an Ethernet address has six bytes")?))
    }
}

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) macs: (Mac, Mac),
    pub(crate) addresses: (Ipv4Addr, Ipv4Addr),
    pub(crate) ports: (u16, u16),
}

/// A packet of `size` bytes whose payload is zeroes. Without a UDP checksum, which IPv4 can do without.
pub(crate) fn udp(flow: &Flow, size: usize) -> Result<Vec<u8>> {
    ensure!(size >= HEADERS, "the smallest UDP packet has {HEADERS} bytes");
    let total = u16::try_from(size - 14)?;
    let mut ip = [&[0x45, 0][..], &total.to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    ip.extend(flow.addresses.0.octets());
    ip.extend(flow.addresses.1.octets());
    let checksum = !sum(&ip);
    ip.splice(10..12, checksum.to_be_bytes());
    let mut packet = [flow.macs.1.0, flow.macs.0.0].concat();
    packet.extend([8, 0]);
    packet.extend(ip);
    packet.extend(flow.ports.0.to_be_bytes());
    packet.extend(flow.ports.1.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.resize(size, 0);
    Ok(packet)
}

/// Big-endian words, with carries added again.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

/// Sends a packet back to where it came from.
pub(crate) fn swap_macs(bytes: &mut [u8]) {
    if let Some((destination, rest)) = bytes.split_first_chunk_mut::<6>()
        && let Some((source, _)) = rest.split_first_chunk_mut()
    {
        std::mem::swap(destination, source);
    }
}
