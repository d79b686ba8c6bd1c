// E0599: memory that another process writes to is a slice
use oxdp::xsk::{FillBatch, RxBatch, Shared};

fn misuse(rx: &mut RxBatch<'_, Shared>, fill: &mut FillBatch<'_, Shared>) {
    rx.recycle(fill, |view| println!("{}", view.data().unwrap().len()));
}

fn main() {
    let _ = misuse;
}
