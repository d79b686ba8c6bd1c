// E0624: a packet is made of a descriptor
use oxdp::xsk::Packet;

fn misuse(packet: Packet) {
    packet.into_descriptor();
}

fn main() {
    let _ = misuse;
}
