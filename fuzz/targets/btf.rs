//! BTF: walked, and a program's run config read from it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oxdp::fuzzing::btf(data));
