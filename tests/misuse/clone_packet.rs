// E0277: a packet is cloned
use oxdp::xsk::Packet;

fn misuse(packet: &Packet) -> Packet {
    Packet::clone(packet)
}

fn main() {
    let _ = misuse;
}
