//! AF_XDP sockets on veth, in copy mode, on whatever kernel this is. What a kernel is too old for must be refused by
//! name; it is never passed over.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../support/mod.rs"]
mod support;

mod errors;
mod fragments;
mod gone;
mod kernel;
mod lab;
mod memory;
mod metadata;
mod polling;
mod privilege;
mod raw;
mod rings;
mod sharing;
mod soak;
mod statistics;
mod threads;
mod traffic;
mod zero_copy;
