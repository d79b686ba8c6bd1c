// E0505: a batch is used after its ring is gone
use oxdp::xsk::RxRing;

fn misuse(mut rx: RxRing) -> usize {
    let batch = rx.peek(1).unwrap();
    drop(rx);
    batch.count()
}

fn main() {
    let _ = misuse;
}
