#![forbid(unsafe_code)]

//! One XDP program: where it comes from, its place in a chain, and its maps.
//!
//! Owns the opened object and, once loaded, its maps and program. Never attaches anything. In libxdp:
//! `struct xdp_program`.

mod actions;
mod btf;
mod map;
mod run_config;
mod source;

pub use actions::ChainActions;
pub(crate) use btf::Btf;
pub use map::Map;
pub use source::{Program, Select};
