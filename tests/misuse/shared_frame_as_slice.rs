// E0599: memory that another process writes to is a slice
use oxdp::xsk::{Frame, Shared};

fn misuse(frame: &Frame<Shared>) -> usize {
    frame.bytes().len()
}

fn main() {
    let _ = misuse;
}
