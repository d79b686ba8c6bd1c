// E0521: a slice of a packet that is lent is kept
use oxdp::xsk::{FillBatch, RxBatch};

fn misuse(rx: &mut RxBatch<'_>, fill: &mut FillBatch<'_>) {
    let mut kept: &[u8] = &[];
    rx.recycle(fill, |view| kept = view.data().unwrap());
    println!("{}", kept.len());
}

fn main() {
    let _ = misuse;
}
