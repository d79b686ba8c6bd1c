// E0599: memory that another process writes to is a slice
use oxdp::xsk::{Packet, Shared};

fn misuse(packet: &Packet<Shared>) -> usize {
    packet.data().unwrap().len()
}

fn main() {
    let _ = misuse;
}
