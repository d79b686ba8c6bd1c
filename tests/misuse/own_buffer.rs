// E0277: a fill ring gets something else than a frame
use oxdp::xsk::FillBatch;

fn misuse(fill: &mut FillBatch<'_>) {
    let _ = fill.push(4096_u64);
}

fn main() {
    let _ = misuse;
}
