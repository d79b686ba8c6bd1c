#![forbid(unsafe_code)]

//! AF_XDP: packets from a queue of an interface to a socket and back, past the network stack.
//!
//! Owns the program that takes the packets to the sockets. In libxdp: xsk.c.

pub(crate) mod program;

pub use program::{DefaultProgram, ProgramOptions};
