// E0499: two batches write the same slots
use oxdp::xsk::FillRing;

fn misuse(fill: &mut FillRing) {
    let first = fill.reserve(1).unwrap();
    let second = fill.reserve(1).unwrap();
    first.commit();
    second.commit();
}

fn main() {
    let _ = misuse;
}
