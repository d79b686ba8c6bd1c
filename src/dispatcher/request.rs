//! What is asked for: a change, and how it is to be made.

use super::config::ProtocolVersion;
use super::edit::Step;
use super::inspect::Unexpected;
use super::plan::{ChainFeature, Downgrade};
use crate::error::ErrorKind;
use crate::net::{AttachBy, Mode};
use crate::program::Program;

pub(super) const ATTACH: &str = "attach to";
pub(super) const DETACH: &str = "detach from";
pub(super) const CHANGE: &str = "change the chain on";
pub(super) const MEND: &str = "mend the chain on";

/// With a dispatcher, or without one and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Chain,
    Single { why: String },
}

/// What is to change, and how.
#[derive(Debug)]
pub(super) struct Request<'p> {
    pub(super) programs: Vec<&'p mut Program>,
    /// What is to change in a chain; `None`: everything is taken off.
    pub(super) steps: Option<Vec<Step>>,
    pub(super) mode: Mode,
    /// How a fresh chain, or a program without one, is held on its interface.
    pub(super) attach_by: AttachBy,
    /// The version of a fresh chain.
    pub(super) version: ProtocolVersion,
    /// The program, part of no chain, that may be replaced.
    pub(super) replaces: Option<u32>,
    /// What must not be lost.
    pub(super) required: Vec<ChainFeature>,
    /// The dispatcher that is mended: what of it has died goes, and the chain with it if that is all.
    pub(super) mends: Option<u32>,
    /// The dispatcher that is meant, and no other.
    pub(super) only: Option<u32>,
}

/// That nothing is lost that must not be.
pub(super) fn check_kept(required: &[ChainFeature], lost: &[Downgrade]) -> Result<(), ErrorKind> {
    let missed = lost.iter().find(|lost| required.contains(&lost.feature));
    missed.map_or(Ok(()), |missed| Err(ErrorKind::Downgraded(missed.clone())))
}

impl Request<'_> {
    pub(super) fn steps(&self) -> &[Step] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// Whether it is for another dispatcher than this.
    pub(super) fn means_another(&self, dispatcher: u32) -> bool {
        self.mends.or(self.only).is_some_and(|meant| meant != dispatcher)
    }

    /// Whether it can start a chain.
    pub(super) fn inserts(&self) -> bool {
        self.steps().iter().any(|step| matches!(step, Step::Insert(_)))
    }

    /// Whatever is pinned, the whole chain can be taken off.
    pub(super) fn unexpected(&self) -> Unexpected {
        if self.steps.is_none() { Unexpected::Lost } else { Unexpected::Refused }
    }

    pub(super) fn operation(&self) -> &'static str {
        if self.mends.is_some() {
            return MEND;
        }
        let removes = |step: &Step| matches!(step, Step::Remove(_));
        if self.inserts() {
            ATTACH
        } else if self.steps().iter().all(removes) {
            DETACH
        } else {
            CHANGE
        }
    }
}
