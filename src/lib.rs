//! placeholder
// The tests' lab speaks of the crate by its name.
#[cfg(test)]
extern crate self as oxdp;

mod census;
mod dispatcher;
mod error;
mod net;
mod pins;
mod program;
mod sys;

pub use census::Census;
pub use dispatcher::{
    Builder, Chain, Component, Features, ForeignProgram, MAX_PROGRAMS, Member, Occupant, Outcome,
    Support, Xdp,
};
pub use error::{Error, ErrorKind, Result};
pub use net::{Interface, Mode, Netns, NetnsId};
pub use pins::{Auto, Legacy, NetnsInode, PinKey, PinLayout, PinPath};
pub use program::{ChainActions, Map, Program, Select};
