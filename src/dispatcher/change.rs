//! A change as its caller puts it together, step by step.

use super::edit::Step;
use super::handle::Xdp;
use super::outcome::{Outcome, Policy};
use super::plan::ChainFeature;
use super::request::{Request, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{AttachBy, Interface, Mode};
use crate::program::{ChainActions, Program};

/// A change to what is on an interface, being put together; [`commit`](Edit::commit) does it.
///
/// Its steps follow one another: what an earlier one has taken out, a later one cannot change. Programs of the chain go by
/// their ids ([`Chain::members`](crate::Chain::members), [`Program::id`]).
#[derive(Debug)]
#[must_use = "nothing changes before commit()"]
pub struct Edit<'x, 'p> {
    pub(super) xdp: &'x Xdp,
    pub(super) interface: &'x Interface,
    pub(super) request: Request<'p>,
    pub(super) policy: Policy,
}

impl<'p> Edit<'_, 'p> {
    fn step(mut self, step: Step) -> Self {
        self.request.steps.get_or_insert_default().push(step);
        self
    }

    fn coming(&mut self, program: &'p mut Program) -> usize {
        self.request.programs.push(program);
        self.request.programs.len() - 1
    }

    /// Adds a program, with its own priority and actions.
    pub fn insert(mut self, program: &'p mut Program) -> Self {
        let index = self.coming(program);
        self.step(Step::Insert(index))
    }

    /// Takes a program out.
    pub fn remove(self, program: u32) -> Self {
        self.step(Step::Remove(program))
    }

    /// Puts a program in the place of another one, with that one's priority and actions.
    pub fn replace(mut self, program: u32, by: &'p mut Program) -> Self {
        let index = self.coming(by);
        self.step(Step::Replace(program, index))
    }

    /// Changes the run priority of a program.
    pub fn set_priority(self, program: u32, priority: u32) -> Self {
        self.step(Step::SetPriority(program, priority))
    }

    /// Changes the actions after which the chain goes on behind a program.
    pub fn set_chain_actions(self, program: u32, actions: ChainActions) -> Self {
        self.step(Step::SetActions(program, actions))
    }

    /// Where a fresh chain, or a program without one, is to run. For a chain that is there, the mode that it must have.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.request.mode = mode;
        self
    }

    /// With or without a dispatcher, in place of what the [`Xdp`] says.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How a fresh chain, or a program without one, is held, in place of what the [`Xdp`] says.
    pub fn attach_by(mut self, by: AttachBy) -> Self {
        self.request.attach_by = by;
        self
    }

    /// Makes the loss of a feature an error, [`ErrorKind::Downgraded`], by which nothing changes; otherwise
    /// [`Outcome::downgrades`] tells of it.
    pub fn require(mut self, feature: ChainFeature) -> Self {
        self.request.required.push(feature);
        self
    }

    /// Lets the change replace a program that is part of no chain, if it has this id and is attached by netlink. What
    /// takes its place is attached by netlink too. Without this, or with another program there, the change fails with
    /// [`ErrorKind::ForeignProgram`].
    pub fn replace_foreign(mut self, program: u32) -> Self {
        self.request.replaces = Some(program);
        self
    }

    /// Does all steps in one swap, or none.
    ///
    /// Steps that change nothing leave the chain as it is, and succeed. If no program is left, the chain is taken off.
    ///
    /// # Errors
    /// As [`Xdp::attach`], [`ErrorKind::NotInChain`] for a program that is not there, and `EINVAL` without any step.
    pub fn commit(self) -> Result<Outcome> {
        let invalid = |errno, message: &str| {
            let source = std::io::Error::from_raw_os_error(errno);
            Error::new("change", self.interface, ErrorKind::Os { source, message: message.into() })
        };
        if self.request.steps().is_empty() {
            return Err(invalid(libc::EINVAL, "nothing was asked for"));
        }
        let way = self.xdp.way(self.policy, &self.request)?;
        if way == Way::Chain && self.request.mode == Mode::Hardware && self.request.inserts() {
            let source = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            let message = "a device runs no dispatcher; attach one program alone".into();
            let kind = ErrorKind::ModeUnsupported { mode: "hardware", source, message };
            return Err(Error::new("attach to", self.interface, kind));
        }
        self.xdp.change(self.interface, self.request, &way)
    }
}
