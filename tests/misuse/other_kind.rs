// E0277: a frame of one kind of memory goes to a ring of another
use oxdp::xsk::{FillBatch, Frame, Shared};

fn misuse(fill: &mut FillBatch<'_>, frame: Frame<Shared>) {
    let _ = fill.push(frame);
}

fn main() {
    let _ = misuse;
}
