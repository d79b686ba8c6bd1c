//! What a change did.

use super::plan::Downgrade;
use crate::net::{Link, Mode};
use std::path::PathBuf;

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Program id of the dispatcher that is attached now; `None` if there is no chain on the interface now.
    pub dispatcher: Option<u32>,
    /// The program that was attached without a dispatcher, and why there is none.
    pub single: Option<Single>,
    /// Program id of what was attached before and is no longer: a dispatcher, or a program without one.
    pub replaced: Option<u32>,
    /// Where the chain runs, or ran.
    pub mode: Mode,
    /// Whether what is attached takes packets of several fragments: only if all programs do, and the kernel is 5.18
    /// or newer.
    pub has_frags: bool,
    /// Whether what is attached is bound to its device: only if all programs asked for it.
    pub is_device_bound: bool,
    /// What some of the programs have and the chain has not, and whose fault that is.
    pub downgrades: Vec<Downgrade>,
    /// The link that holds what is attached. That of a chain is pinned beside its programs. That of a program without
    /// a dispatcher is not: the [`Program`](crate::Program) keeps it, and the last clone of either takes the program off.
    pub link: Option<Link>,
    /// The directory of the new pins.
    pub pins: Option<PathBuf>,
    /// The directory of the old pins, if it could not be removed. They keep programs in the kernel that no
    /// packet reaches.
    pub leftover: Option<PathBuf>,
    /// Slots of the former chain whose programs had died, so that they ran nothing; they are not in the new one.
    pub dropped: Vec<usize>,
}

impl Outcome {
    /// Of an interface that is empty now.
    pub(super) fn empty(replaced: u32, mode: Mode) -> Self {
        Self {
            dispatcher: None,
            single: None,
            replaced: Some(replaced),
            mode,
            has_frags: false,
            is_device_bound: false,
            downgrades: Vec::new(),
            link: None,
            pins: None,
            leftover: None,
            dropped: Vec::new(),
        }
    }
}

/// A program that was attached without a dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Single {
    /// Its id; [`detach`](crate::Xdp::detach) takes it off by that.
    pub program: u32,
    /// Why there is no dispatcher.
    pub why: String,
}

/// With or without a dispatcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// As a component of a chain, or not at all: others can join. The default.
    #[default]
    Chain,
    /// Alone, without a dispatcher: nobody can join, but it works on kernels without freplace. The default where the
    /// environment has `LIBXDP_SKIP_DISPATCHER=1`.
    Single,
    /// As a component of a chain where the kernel can do that, else alone; [`Outcome::single`] tells why.
    Auto,
}
