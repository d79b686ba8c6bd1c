// E0382: a packet is a fragment of two others
use oxdp::xsk::{Fragments, Packet};

fn misuse(first: &mut Fragments, second: &mut Fragments, packet: Packet) {
    first.push(packet);
    second.push(packet);
}

fn main() {
    let _ = misuse;
}
