// E0521: a packet that is lent is kept
use oxdp::xsk::{FillBatch, RxBatch};

fn misuse(rx: &mut RxBatch<'_>, fill: &mut FillBatch<'_>) {
    let mut kept = Vec::new();
    rx.recycle(fill, |view| kept.push(view));
}

fn main() {
    let _ = misuse;
}
