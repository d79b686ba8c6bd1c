// E0277: a frame is cloned
use oxdp::xsk::Frame;

fn misuse(frame: &Frame) -> Frame {
    Frame::clone(frame)
}

fn main() {
    let _ = misuse;
}
