//! Going out: the last takes the program off. And for those who could not, whoever sees that they are dead.

use super::NAME;
use super::shared::Shared;
use super::usage::{Usage, Watch, has_socket};
use crate::dispatcher::{Decision, Guest, Outcome, View, Xdp};
use crate::error::{Context, Result};
use crate::net::{Interface, Mode};
use crate::program::Program;

/// Who leaves.
pub(super) struct Leaver<'a> {
    xdp: &'a Xdp,
    shared: &'a Shared,
    /// Whether it was the last; `None` before it is counted.
    is_last: Option<bool>,
}

impl<'a> Leaver<'a> {
    pub(super) fn new(xdp: &'a Xdp, shared: &'a Shared) -> Self {
        Self { xdp, shared, is_last: None }
    }

    /// Counts it out of a program that is on no interface any more.
    pub(super) fn count(&mut self) -> Result<()> {
        let kernel = self.xdp.kernel();
        match (self.is_last, self.shared.count(kernel)?) {
            (None, Some(count)) if count > 0 => self.shared.set_count(kernel, count - 1),
            _ => Ok(()),
        }
    }

    /// Whether it is the last; counted once. From then on the program joins nobody, whatever becomes of us.
    fn is_last(&mut self, view: &View<'_>, programs: &[u32]) -> Result<bool> {
        if let Some(is_last) = self.is_last {
            return Ok(is_last);
        }
        let kernel = self.xdp.kernel();
        let is_last = match self.shared.count(kernel)? {
            // It is not counted, or already over.
            None => false,
            Some(count) => {
                let left = self.left(count.saturating_sub(1), view, programs)?;
                self.shared.set_count(kernel, left)?;
                left == 0
            }
        };
        self.is_last = Some(is_last);
        Ok(is_last)
    }

    /// How many are left, of which `count` says one thing and what can be seen perhaps another.
    fn left(&self, count: i32, view: &View<'_>, programs: &[u32]) -> Result<i32> {
        let kernel = self.xdp.kernel();
        if count <= 0 {
            let looked = has_socket(kernel, &self.shared.sockets);
            let is_used = looked.during("look for sockets in", "the map of an AF_XDP program")?;
            return Ok(i32::from(is_used));
        }
        let own = self.shared.descriptors(view);
        match Watch::new(kernel, &[self.xdp.bpffs()]).usage(self.shared, programs, &own)? {
            Usage::Nobody => Ok(0),
            Usage::By(_) | Usage::Unknown(_) => Ok(count),
        }
    }
}

impl Guest for Leaver<'_> {
    fn decide(&mut self, view: &View<'_>, _: Option<&mut Program>) -> Result<Decision> {
        let mut programs = Vec::new();
        for running in view.programs.iter().filter(|running| running.name == NAME) {
            let shared = Shared::of(self.xdp.kernel(), running.fd)?;
            programs.extend(shared.filter(|other| other.id == self.shared.id).map(|_| running.id));
        }
        let is_last = self.is_last(view, &programs)?;
        Ok(if is_last && !programs.is_empty() {
            Decision::Remove(programs)
        } else {
            Decision::Stay
        })
    }

    fn settle(&mut self, _: Option<&Program>, _: Option<&Outcome>) -> Result<()> {
        Ok(())
    }
}

/// What came of dropping a default program that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Done,
    /// It is not there.
    Gone,
    /// Somebody uses it, or may: who, in words.
    InUse(String),
}

/// Who takes off what the dead have left.
struct Sweeper<'a> {
    xdp: &'a Xdp,
    program: u32,
    dropped: Dropped,
}

impl Xdp {
    /// Takes a default program off an interface if nobody uses it.
    pub(crate) fn drop_default(&self, interface: &Interface, program: u32) -> Result<Dropped> {
        let mut sweeper = Sweeper { xdp: self, program, dropped: Dropped::Gone };
        self.host(interface, None, Mode::Unspecified, &mut sweeper)?;
        Ok(sweeper.dropped)
    }
}

impl Guest for Sweeper<'_> {
    fn decide(&mut self, view: &View<'_>, _: Option<&mut Program>) -> Result<Decision> {
        self.dropped = Dropped::Gone;
        let running = view.programs.iter().find(|running| running.id == self.program);
        let Some(running) = running else { return Ok(Decision::Stay) };
        let kernel = self.xdp.kernel();
        let Some(shared) = Shared::of(kernel, running.fd)? else { return Ok(Decision::Stay) };
        let watch = Watch::new(kernel, &[self.xdp.bpffs()]);
        match watch.usage(&shared, &[self.program], &shared.descriptors(view))? {
            Usage::Nobody => {
                shared.set_count(kernel, 0)?;
                self.dropped = Dropped::Done;
                Ok(Decision::Remove(vec![self.program]))
            }
            Usage::By(who) | Usage::Unknown(who) => {
                self.dropped = Dropped::InUse(who);
                Ok(Decision::Stay)
            }
        }
    }

    fn settle(&mut self, _: Option<&Program>, _: Option<&Outcome>) -> Result<()> {
        Ok(())
    }
}
