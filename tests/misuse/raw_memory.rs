// E0133: memory is given for a UMEM without a promise
use oxdp::xsk::Umem;

fn misuse(memory: &mut [u8]) -> Umem {
    Umem::builder().build_raw(std::ptr::NonNull::from(&mut *memory).cast(), memory.len()).unwrap()
}

fn main() {
    let _ = misuse;
}
