//! AF_XDP rings, used in any order, with a kernel that lies.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| oxdp::fuzzing::rings(moves));
