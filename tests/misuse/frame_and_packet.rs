// E0382: a frame is used beside the packet that it became
use oxdp::xsk::Frame;

fn misuse(frame: Frame) {
    let packet = frame.into_packet(60).unwrap();
    println!("{} {}", packet.len(), frame.bytes().len());
}

fn main() {
    let _ = misuse;
}
