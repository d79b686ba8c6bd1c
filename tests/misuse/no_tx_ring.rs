// E0599: a socket without a TX ring sends
use oxdp::xsk::{Socket, SocketBuilder};

fn misuse(builder: SocketBuilder) {
    let mut bound = builder.rx(64).bind().unwrap();
    let _: &Socket = &bound.socket;
    bound.tx.reserve(1);
}

fn main() {
    let _ = misuse;
}
