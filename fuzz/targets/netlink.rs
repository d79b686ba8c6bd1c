//! What the kernel answers over netlink.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oxdp::fuzzing::netlink(data));
