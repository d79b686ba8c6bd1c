//! Names below bpffs's `xdp` directory, by every layout.
#![no_main]

libfuzzer_sys::fuzz_target!(|path: &str| oxdp::fuzzing::pins(path));
