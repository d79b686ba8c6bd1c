// E0599: a socket without an RX ring receives
use oxdp::xsk::Socket;

fn misuse(socket: &Socket) {
    let mut shared = socket.share().tx(64).bind().unwrap();
    shared.rx.peek(1);
}

fn main() {
    let _ = misuse;
}
