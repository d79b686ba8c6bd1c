// E0382: a packet is changed after it was given to the kernel
use oxdp::xsk::{Packet, TxBatch};

fn misuse(tx: &mut TxBatch<'_>, mut packet: Packet) {
    let _ = tx.push(packet);
    packet.data_mut().unwrap().fill(0);
}

fn main() {
    let _ = misuse;
}
