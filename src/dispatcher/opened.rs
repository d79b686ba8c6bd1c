#![forbid(unsafe_code)]

//! What is on an interface with its programs opened, as programs in C have it.

use super::handle::Xdp;
use super::inspect::{Live, LiveChain, LiveMember, LiveProgram};
use crate::error::{Context, Result};
use crate::net::{Attachment, Interface, Mode};
use crate::program::Program;
use crate::sys::Kernel;
use std::os::fd::AsFd;

/// As [`Occupant`](super::Occupant), but that nobody has looked what holds it there.
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
    pub(crate) fn open_occupant(&self, interface: &Interface) -> Result<Option<Opened>> {
        let attachment = Attachment::new(&self.kernel, interface);
        Ok(match self.live(interface, &attachment)? {
            None => None,
            Some((Live::Chain(chain), _)) => {
                Some(Opened::Chain(OpenedChain::new(&self.kernel, chain)?))
            }
            Some((Live::Foreign(foreign), _)) => {
                let mode = foreign.description.mode;
                Some(Opened::Foreign(Program::from_fd(foreign.program)?, mode))
            }
        })
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
