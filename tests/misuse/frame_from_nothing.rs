// E0451: a frame is made of numbers
use oxdp::xsk::{Exclusive, Frame};

fn misuse(frame: Frame) -> Frame {
    let other: Frame<Exclusive> = Frame { base: 4096, ..frame };
    other
}

fn main() {
    let _ = misuse;
}
