// E0277: somebody makes a kind of memory of their own
use oxdp::xsk::Kind;

enum Mine {}

impl Kind for Mine {}

fn main() {}
