// E0308: a packet that is lent is swapped for one that is owned
use oxdp::xsk::{FillBatch, Packet, RxBatch};

fn misuse(rx: &mut RxBatch<'_>, fill: &mut FillBatch<'_>, packet: &mut Packet) {
    rx.recycle(fill, |mut view| std::mem::swap(&mut view, packet));
}

fn main() {
    let _ = misuse;
}
