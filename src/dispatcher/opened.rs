//! What is on an interface with its programs opened, as programs in C have it.

use super::handle::Xdp;
use super::inspect::{Live, LiveChain, LiveMember, LiveProgram};
use super::outcome::Outcome;
use super::request::{Request, Way};
use crate::error::{Context, Result};
use crate::net::{Attachment, Interface, Mode};
use crate::program::Program;
use crate::sys::Kernel;
use std::os::fd::AsFd;

/// As [`Occupant`](super::Occupant), but that nobody has looked what holds it there.
#[derive(Debug)]
pub(crate) struct OpenedOccupant {
    pub(crate) what: Opened,
    /// On the device, beside what is on the host.
    pub(crate) beside: Option<Program>,
}

#[derive(Debug)]
pub(crate) enum Opened {
    Chain(OpenedChain),
    Foreign(Program, Mode),
}

#[derive(Debug)]
pub(crate) struct OpenedChain {
    pub(crate) dispatcher: Program,
    /// With the settings that they have there, in order; `None` if the pin of any is lost.
    pub(crate) members: Option<Vec<Program>>,
    pub(crate) mode: Mode,
    pub(crate) has_frags: bool,
    pub(crate) is_device_bound: bool,
}

impl Xdp {
    /// What is on an interface; `None` for nothing. Errors as [`Xdp::inspect`].
    pub(crate) fn open_occupant(&self, interface: &Interface) -> Result<Option<OpenedOccupant>> {
        let attachment = Attachment::new(&self.kernel, interface);
        let Some((live, _, beside)) = self.live(interface, &attachment)? else { return Ok(None) };
        let beside = beside.map(|beside| Program::from_id(beside.program)).transpose()?;
        let what = match live {
            Live::Chain(chain) => Opened::Chain(OpenedChain::new(&self.kernel, chain)?),
            Live::Foreign(foreign) => {
                let mode = foreign.description.mode;
                Opened::Foreign(Program::from_fd(foreign.program)?, mode)
            }
        };
        Ok(Some(OpenedOccupant { what, beside }))
    }

    /// As [`Xdp::detach_all`], of this dispatcher and no other.
    pub(crate) fn detach_dispatcher(&self, interface: &Interface, id: u32) -> Result<Outcome> {
        let request = Request { steps: None, only: Some(id), ..self.request() };
        self.change(interface, request, &Way::Chain)
    }
}

impl Opened {
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Chain(chain) => chain.mode,
            Self::Foreign(_, mode) => *mode,
        }
    }

    /// The program of an interface that has no chain, or one of which pins are lost: that counts as its dispatcher alone.
    pub(crate) fn alone(&self) -> Option<u32> {
        match self {
            Self::Foreign(program, _) => program.id(),
            Self::Chain(chain) if chain.members.is_none() => chain.dispatcher.id(),
            Self::Chain(_) => None,
        }
    }

    /// Whether a program is there by itself or in a chain.
    pub(crate) fn has(&self, id: u32) -> bool {
        match self {
            Self::Chain(OpenedChain { members: Some(members), .. }) => {
                members.iter().any(|member| member.id() == Some(id))
            }
            _ => self.alone() == Some(id),
        }
    }
}

impl OpenedChain {
    fn new(kernel: &Kernel, chain: LiveChain) -> Result<Self> {
        let dispatcher = chain.dispatcher;
        let info = kernel.prog_info(dispatcher.program.as_fd());
        let info = info.during("query", format_args!("program {}", dispatcher.id))?;
        let name = info.name.clone();
        Ok(Self {
            dispatcher: Program::described(dispatcher.program, info, name, None),
            members: chain.members.into_iter().map(program_of).collect(),
            mode: dispatcher.mode,
            has_frags: dispatcher.config.has_frags,
            is_device_bound: dispatcher.config.is_device_bound,
        })
    }
}

fn program_of(member: LiveMember) -> Option<Program> {
    let LiveProgram { fd, info, name } = member.program?;
    let mut program = Program::described(fd, info, name, None);
    program.set_priority(member.config.priority);
    program.set_chain_actions(member.config.actions);
    program.set_frags(member.config.has_frags());
    Some(program)
}
