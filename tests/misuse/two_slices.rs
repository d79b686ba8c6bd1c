// E0499: two slices of one packet, both to write to
use oxdp::xsk::Packet;

fn misuse(packet: &mut Packet) {
    let first = packet.data_mut().unwrap();
    let second = packet.data_mut().unwrap();
    first[0] = second[0];
}

fn main() {
    let _ = misuse;
}
