// E0505: a slice of a packet is kept after its frame went back
use oxdp::xsk::Packet;

fn misuse(packet: Packet) -> u8 {
    let data = packet.data().unwrap();
    drop(packet);
    data[0]
}

fn main() {
    let _ = misuse;
}
