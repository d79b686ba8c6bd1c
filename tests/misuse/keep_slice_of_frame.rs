// E0505: a slice of a frame is kept after the kernel has got it
use oxdp::xsk::{FillBatch, Frame};

fn misuse(fill: &mut FillBatch<'_>, frame: Frame) {
    let bytes = frame.bytes();
    let _ = fill.push(frame);
    println!("{}", bytes[0]);
}

fn main() {
    let _ = misuse;
}
