//! A pcapng file: what Wireshark and tcpdump read.

use anyhow::Result;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

/// Timestamps are in nanoseconds: units of 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// A file that grows packet by packet, of one interface.
pub(crate) struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// Bytes of a packet at most.
    snapshot: u32,
}

impl<W: Write> Capture<W> {
    pub(crate) fn new(to: W, interface: &str, snapshot: u32) -> Result<Self> {
        let mut writer = PcapNgWriter::new(to)?;
        let options = vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(interface)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let block =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: snapshot, options };
        writer.write_pcapng_block(block)?;
        Ok(Self { writer, snapshot })
    }

    /// A packet that came so long after the beginning of 1970.
    pub(crate) fn packet(&mut self, timestamp: Duration, packet: &[u8]) -> Result<()> {
        let kept = packet.len().min(usize::try_from(self.snapshot)?);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp,
            original_len: u32::try_from(packet.len())?,
            data: Cow::Borrowed(packet.get(..kept).unwrap_or(packet)),
            options: Vec::new(),
        };
        self.writer.write_pcapng_block(block)?;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.writer.get_mut().flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    #[test]
    fn a_reader_finds_what_was_written() {
        let mut file = Vec::new();
        let when = Duration::new(1_700_000_000, 123_456_789);
        {
            let mut capture = Capture::new(&mut file, "eth0", 64).unwrap();
            capture.packet(when, &[1; 60]).unwrap();
            capture.packet(when, &[2; 100]).unwrap();
            capture.flush().unwrap();
        }
        let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::EnhancedPacket(packet) => {
                    packets.push((packet.timestamp, packet.original_len, packet.data.to_vec()));
                }
                Block::InterfaceDescription(interface) => {
                    assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                }
                _ => {}
            }
        }
        assert_eq!(packets, [(when, 60, vec![1; 60]), (when, 100, vec![2; 64])]);
    }
}
