// E0499: two batches of one ring live at once
use oxdp::xsk::RxRing;

fn misuse(rx: &mut RxRing) {
    let first = rx.peek(1).unwrap();
    let second = rx.peek(1).unwrap();
    drop((first, second));
}

fn main() {
    let _ = misuse;
}
