// E0277: two threads have one ring
use oxdp::xsk::TxRing;

fn misuse(tx: &TxRing) {
    std::thread::scope(|scope| {
        scope.spawn(|| tx.pending());
    });
}

fn main() {
    let _ = misuse;
}
