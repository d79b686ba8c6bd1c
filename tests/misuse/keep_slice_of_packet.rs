// E0505: a slice of a packet is kept after the kernel has got it
use oxdp::xsk::{Packet, TxBatch};

fn misuse(tx: &mut TxBatch<'_>, mut packet: Packet) {
    let data = packet.data_mut().unwrap();
    let _ = tx.push(packet);
    data[0] = 1;
}

fn main() {
    let _ = misuse;
}
