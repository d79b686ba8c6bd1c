// E0277: a thread has a batch of another's ring
use oxdp::xsk::RxRing;

fn misuse(rx: &mut RxRing) {
    let batch = rx.peek(1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || batch.count());
    });
}

fn main() {
    let _ = misuse;
}
