// E0382: a frame is given to the kernel twice
use oxdp::xsk::{FillBatch, Frame};

fn misuse(fill: &mut FillBatch<'_>, frame: Frame) {
    let _ = fill.push(frame);
    let _ = fill.push(frame);
}

fn main() {
    let _ = misuse;
}
