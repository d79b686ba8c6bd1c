//! The record in a dispatcher's map, and its way back to bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oxdp::fuzzing::config(data));
