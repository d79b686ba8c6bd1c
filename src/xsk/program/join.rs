//! Coming in: the program that is there, or a new one.

use super::frags::reads_frags;
use super::shared::{COUNTER, Shared};
use super::usage::{Usage, Watch};
use super::{NAME, ProgramOptions};
use crate::dispatcher::{Decision, Guest, Outcome, Running, View, Xdp};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Interface, Mode};
use crate::openers::{Object, Openers};
use crate::program::{Instead, MapChoice, Program, Select, has_frags};
use crate::sys::Kernel;
use crate::xsk::capabilities::QueueCounts;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

const JOIN: &str = "join the default AF_XDP program on";
const OBJECT: &[u8] = include_bytes!("../../../bpf/prebuilt/xsk_def_prog.o");
/// The ends of the names of the object's maps.
const SOCKETS: &str = "xsks_map";
const DATA: &str = ".data";

/// Who joins.
pub(super) struct Joiner<'a> {
    xdp: &'a Xdp,
    interface: &'a Interface,
    options: ProgramOptions,
    /// Whether one that is there may run in another mode.
    pub(super) takes_any_mode: bool,
    template: Program,
    queues: u32,
    /// What was found, and what its count is to be.
    found: Option<(Shared, i32)>,
    mode: Mode,
    has_frags: bool,
    /// The program that was attached for us, before all was well.
    attached: Option<u32>,
}

impl<'a> Joiner<'a> {
    pub(super) fn new(
        xdp: &'a Xdp,
        interface: &'a Interface,
        options: ProgramOptions,
    ) -> Result<Self> {
        let mut template = Program::from_bytes(OBJECT, Select::Function(NAME))?;
        template.set_frags(options.multi_buffer);
        Ok(Self {
            xdp,
            interface,
            options,
            takes_any_mode: false,
            template,
            queues: QueueCounts::of(interface)?.limit(),
            found: None,
            mode: options.mode,
            has_frags: false,
            attached: None,
        })
    }

    /// A program to load, with maps of its own.
    pub(super) fn fresh(&self) -> Program {
        let mut program = self.template.clone();
        let instead = |of, instead| MapChoice { of, instead };
        program.choose_maps(vec![
            instead(SOCKETS, Instead::Sized(self.queues)),
            instead(DATA, Instead::Named(COUNTER)),
        ]);
        program
    }

    /// A program to load, with maps that others use.
    fn with_maps_of(&self, shared: &Shared) -> Result<Program> {
        let mut program = self.template.clone();
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(Arc::new);
        let (sockets, counter) = shared.maps();
        let counter = match counter {
            Some(counter) => Instead::Existing(own(counter).during(JOIN, self.interface)?),
            None => Instead::Named(COUNTER),
        };
        let sockets = Instead::Existing(own(sockets).during(JOIN, self.interface)?);
        program.choose_maps(vec![
            MapChoice { of: SOCKETS, instead: sockets },
            MapChoice { of: DATA, instead: counter },
        ]);
        Ok(program)
    }

    /// What was joined, where it runs, and whether it takes packets of several fragments.
    pub(super) fn finish(self, interface: &Interface) -> Result<(Shared, Mode, bool)> {
        let (shared, _) = self.found.ok_or(ErrorKind::NotAttached).during(JOIN, interface)?;
        Ok((shared, self.mode, self.has_frags))
    }

    /// Takes off what was attached, where what came after it failed.
    pub(super) fn undo(&self) {
        let Some(program) = self.attached else { return };
        if let Err(error) = self.xdp.detach(self.interface, program) {
            log::warn!("program {program} is left behind: {error}");
        }
    }

    fn kernel(&self) -> &'a Kernel {
        self.xdp.kernel()
    }

    /// Joins one that is there.
    fn join(
        &mut self,
        view: &View<'_>,
        running: &Running<'_>,
        shared: Shared,
        program: &mut Program,
    ) -> Result<Decision> {
        let attached = view.mode.unwrap_or_default();
        if !self.takes_any_mode && ![attached, Mode::Unspecified].contains(&self.options.mode) {
            let (attached, asked) = (attached.name(), self.options.mode.name());
            let kind = ErrorKind::ModeConflict { attached, asked };
            return Err(Error::new(JOIN, self.interface, kind));
        }
        self.mode = attached;
        let own = shared.descriptors(view);
        let count = self.count(&shared, running.id, &own)?;
        let decision = if view.is_chain {
            self.has_frags = view.has_frags;
            let lacks_frags = self.options.multi_buffer && !running.has_frags;
            if lacks_frags { Decision::ReadFrags(running.id) } else { Decision::Stay }
        } else {
            self.join_alone(running, &shared, &own, program)?
        };
        self.found = Some((shared, count));
        Ok(decision)
    }

    /// What the count becomes. Those who have been killed are in it for ever: if nobody else is there, it is one.
    fn count(&self, shared: &Shared, program: u32, own: &[RawFd]) -> Result<i32> {
        let Some(count) = shared.count(self.kernel())? else { return Ok(0) };
        let watch = Watch::new(self.kernel(), &[self.xdp.bpffs()]);
        match watch.usage(shared, &[program], own)? {
            Usage::Nobody => {
                log::info!("the {count} users of program {program} have died");
                Ok(1)
            }
            Usage::By(_) | Usage::Unknown(_) => Ok(count.saturating_add(1)),
        }
    }

    /// One without a slot that says whether it reads fragments: if it does not, and is to, another program over the same
    /// maps takes its place. Not if somebody has it open: C libxdp takes it off by its id.
    fn join_alone(
        &mut self,
        running: &Running<'_>,
        shared: &Shared,
        own: &[RawFd],
        program: &mut Program,
    ) -> Result<Decision> {
        if !self.options.multi_buffer || !has_frags(self.kernel()).during(JOIN, self.interface)? {
            return Ok(Decision::Stay);
        }
        self.has_frags = reads_frags(self.kernel(), running.fd).during(JOIN, self.interface)?;
        if self.has_frags {
            return Ok(Decision::Stay);
        }
        let openers = Openers::take();
        let user = openers.of(Object::Program(running.id), own);
        let user = user.map(|process| format!("{process} goes by its id"));
        if let Some(why) = user.or_else(|| openers.gap()) {
            let kind = ErrorKind::NoFrags { program: running.id, why };
            return Err(Error::new(JOIN, self.interface, kind));
        }
        *program = self.with_maps_of(shared)?;
        Ok(Decision::Replace(running.id))
    }
}

impl Guest for Joiner<'_> {
    fn decide(&mut self, view: &View<'_>, program: Option<&mut Program>) -> Result<Decision> {
        let program = program.ok_or(ErrorKind::NotLoaded).during(JOIN, self.interface)?;
        *program = self.fresh();
        self.found = None;
        let mut without = Vec::new();
        for running in view.programs.iter().filter(|running| running.name == NAME) {
            let Some(shared) = Shared::of(self.kernel(), running.fd)? else { continue };
            match shared.count(self.kernel())? {
                // Its last user is about to take it off, or was when it died. It gives packets to nobody.
                Some(count) if count <= 0 => without.push(running.id),
                _ => return self.join(view, running, shared, program),
            }
        }
        Ok(match without.first() {
            Some(id) if !view.is_chain => Decision::Clear(*id),
            _ => Decision::Insert { without },
        })
    }

    fn settle(&mut self, program: Option<&Program>, outcome: Option<&Outcome>) -> Result<()> {
        if let Some(outcome) = outcome {
            self.mode = outcome.mode;
            self.has_frags = outcome.has_frags;
        }
        if let Some((shared, count)) = &self.found {
            return shared.set_count(self.kernel(), *count);
        }
        let program = program.ok_or(ErrorKind::NotLoaded).during(JOIN, self.interface)?;
        self.attached = program.id();
        let shared = Shared::of(self.kernel(), program.fd()?)?;
        let shared = shared.ok_or_else(|| ErrorKind::NoSuchName(SOCKETS.into()));
        // It counts who loads it.
        self.found = Some((shared.during(JOIN, self.interface)?, 1));
        self.attached = None;
        Ok(())
    }
}
