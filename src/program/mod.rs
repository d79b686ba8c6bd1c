#![forbid(unsafe_code)]

//! One XDP program: where it comes from, its place in a chain, its maps, and a run of it on a packet.
//!
//! Owns the linked code and, once loaded, its maps and program. Never attaches anything. In libxdp:
//! `struct xdp_program`.

mod actions;
mod btf;
mod check;
mod elf;
mod image;
mod map;
mod names;
mod run_config;
mod select;
mod source;
mod test_run;

pub use actions::ChainActions;
pub(crate) use btf::Btf;
#[cfg(fuzzing)]
pub(crate) use image::fuzz as fuzz_load;
pub(crate) use image::{
    Instead, LoadTarget, MapChoice, has_frags, load_frags_pass, load_pass, load_xdp_code,
};
pub use map::Map;
pub(crate) use names::{completed_name, kernel_btf, may_be_cut};
#[cfg(fuzzing)]
pub(crate) use run_config::fuzz as fuzz_btf;
pub use select::Select;
pub use source::Program;
pub use test_run::{Action, TestRun, TestRunOutcome};
