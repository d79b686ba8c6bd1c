//! What a host says to whoever looks for it: ARP and ICMP echo, made in place of the question.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Address, Ipv4Packet,
};

/// A host that answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Its hardware address.
    pub(crate) mac: EthernetAddress,
    /// Its IP address.
    pub(crate) ip: Ipv4Address,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// "I have that address."
    Arp,
    /// "I am here."
    Echo,
}

impl Host {
    /// Makes the answer of a question that is for this host; `None` if there is none, and the packet is as it was.
    pub(crate) fn answer(&self, packet: &mut [u8]) -> Option<Answer> {
        let mut frame = EthernetFrame::new_checked(packet).ok()?;
        let (to, from) = (frame.dst_addr(), frame.src_addr());
        if to != self.mac && !to.is_broadcast() {
            return None;
        }
        let answer = match frame.ethertype() {
            EthernetProtocol::Arp => self.answer_arp(frame.payload_mut())?,
            EthernetProtocol::Ipv4 => self.answer_echo(frame.payload_mut())?,
            _ => return None,
        };
        frame.set_dst_addr(from);
        frame.set_src_addr(self.mac);
        Some(answer)
    }

    fn answer_arp(&self, payload: &mut [u8]) -> Option<Answer> {
        let mut packet = ArpPacket::new_checked(payload).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: asker,
            source_protocol_addr: asker_ip,
            target_protocol_addr: wanted,
            ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        if wanted != self.ip {
            return None;
        }
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: self.mac,
            source_protocol_addr: self.ip,
            target_hardware_addr: asker,
            target_protocol_addr: asker_ip,
        };
        reply.emit(&mut packet);
        Some(Answer::Arp)
    }

    fn answer_echo(&self, payload: &mut [u8]) -> Option<Answer> {
        let mut packet = Ipv4Packet::new_checked(payload).ok()?;
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
        if to != self.ip || packet.next_header() != IpProtocol::Icmp || !is_whole {
            return None;
        }
        if !packet.verify_checksum() {
            return None;
        }
        echo(packet.payload_mut())?;
        packet.set_dst_addr(from);
        packet.set_src_addr(self.ip);
        packet.set_hop_limit(64);
        packet.fill_checksum();
        Some(Answer::Echo)
    }
}

fn echo(payload: &mut [u8]) -> Option<()> {
    let mut message = Icmpv4Packet::new_checked(payload).ok()?;
    let is_question = message.msg_type() == Icmpv4Message::EchoRequest && message.msg_code() == 0;
    if !is_question || !message.verify_checksum() {
        return None;
    }
    message.set_msg_type(Icmpv4Message::EchoReply);
    message.fill_checksum();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{EthernetRepr, Icmpv4Repr, Ipv4Repr};

    const HOST: Host =
        Host { mac: EthernetAddress([2, 0, 0, 0, 0, 1]), ip: Ipv4Address::new(10, 0, 0, 1) };
    const ASKER: Host =
        Host { mac: EthernetAddress([2, 0, 0, 0, 0, 2]), ip: Ipv4Address::new(10, 0, 0, 2) };

    fn frame(to: EthernetAddress, ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0; 14 + payload];
        let header = EthernetRepr { src_addr: ASKER.mac, dst_addr: to, ethertype };
        header.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
        bytes
    }

    fn ping(to: Ipv4Address) -> Vec<u8> {
        let message = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"hello" };
        let header = Ipv4Repr {
            src_addr: ASKER.ip,
            dst_addr: to,
            next_header: IpProtocol::Icmp,
            payload_len: message.buffer_len(),
            hop_limit: 1,
        };
        let mut bytes =
            frame(HOST.mac, EthernetProtocol::Ipv4, header.buffer_len() + message.buffer_len());
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        header.emit(&mut packet, &ChecksumCapabilities::default());
        message.emit(
            &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
            &ChecksumCapabilities::default(),
        );
        bytes
    }

    #[test]
    fn answers_an_echo_with_the_same_data() {
        let mut packet = ping(HOST.ip);
        assert_eq!(HOST.answer(&mut packet), Some(Answer::Echo));
        let frame = EthernetFrame::new_checked(&packet).unwrap();
        assert_eq!((frame.dst_addr(), frame.src_addr()), (ASKER.mac, HOST.mac));
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.dst_addr(), packet.src_addr()), (ASKER.ip, HOST.ip));
        let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum());
        assert_eq!(
            (message.echo_ident(), message.echo_seq_no(), message.data()),
            (7, 9, &b"hello"[..])
        );
        assert_eq!(message.msg_type(), Icmpv4Message::EchoReply);
    }

    #[test]
    fn tells_who_has_its_address() {
        let mut packet = frame(EthernetAddress::BROADCAST, EthernetProtocol::Arp, 28);
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: ASKER.mac,
            source_protocol_addr: ASKER.ip,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: HOST.ip,
        };
        question.emit(&mut ArpPacket::new_unchecked(&mut packet[14..]));
        assert_eq!(HOST.answer(&mut packet), Some(Answer::Arp));
        let frame = EthernetFrame::new_checked(&packet).unwrap();
        assert_eq!(frame.dst_addr(), ASKER.mac);
        let answer = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
        let expected = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: HOST.mac,
            source_protocol_addr: HOST.ip,
            target_hardware_addr: ASKER.mac,
            target_protocol_addr: ASKER.ip,
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn leaves_everything_else_as_it_was() {
        let mut broken = ping(HOST.ip);
        broken[40] ^= 1;
        for packet in
            [ping(Ipv4Address::new(10, 0, 0, 3)), broken, vec![0; 5], Vec::new(), vec![255; 60]]
        {
            let mut answered = packet.clone();
            assert_eq!(HOST.answer(&mut answered), None);
            assert_eq!(answered, packet);
        }
        for length in 0..ping(HOST.ip).len() {
            assert_eq!(HOST.answer(&mut ping(HOST.ip)[..length]), None, "{length}");
        }
    }
}
