// E0277: a ring is cloned
use oxdp::xsk::FillRing;

fn misuse(fill: &FillRing) -> FillRing {
    FillRing::clone(fill)
}

fn main() {
    let _ = misuse;
}
