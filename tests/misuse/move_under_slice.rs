// E0502: a packet gets another place while it is looked at
use oxdp::xsk::Packet;

fn misuse(packet: &mut Packet) -> u8 {
    let data = packet.data().unwrap();
    packet.trim_front(1).unwrap();
    data[0]
}

fn main() {
    let _ = misuse;
}
