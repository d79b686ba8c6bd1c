//! A change that is decided under the lock, by what is there then: for who shares a program with others, and must know that
//! it is the first to come or the last to go.

use super::edit::Step;
use super::held::{Held, Present};
use super::inspect::LiveProgram;
use super::outcome::Outcome;
use super::request::{ATTACH, Request, Way};
use super::transaction::{ATTEMPTS, Transaction, pause};
use crate::error::Result;
use crate::net::Mode;
use crate::pins::Store;
use crate::program::Program;
use std::os::fd::{AsFd, BorrowedFd};

/// A program that runs on an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) id: u32,
    pub(crate) name: &'a str,
    /// Whether its slot says that it reads packets of several fragments; of one without a slot that is not told.
    pub(crate) has_frags: bool,
}

/// What is there.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    /// In the order in which they run; those whose pins are lost are not seen.
    pub(crate) programs: Vec<Running<'a>>,
    /// `None` where nothing is.
    pub(crate) mode: Option<Mode>,
    pub(crate) is_chain: bool,
    /// Whether the chain takes packets of several fragments.
    pub(crate) has_frags: bool,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    Stay,
    /// These are taken out.
    Remove(Vec<u32>),
    /// This one, which runs alone, is taken off, and then it is decided again.
    Clear(u32),
    /// The program that comes is added, and these are taken out.
    Insert { without: Vec<u32> },
    /// The program that comes takes the place of this one, which runs alone.
    Replace(u32),
    /// The slot of this one says from now on that it reads packets of several fragments.
    ReadFrags(u32),
}

/// Who decides. Both are called under the lock under which the interface is changed; for a program that runs alone, and so
/// has no pins, under that of the root, which is also C libxdp's.
pub(crate) trait Guest {
    /// Looks and decides; again if others were faster. `program` is the one that comes, if there is one.
    fn decide(&mut self, view: &View<'_>, program: Option<&mut Program>) -> Result<Decision>;

    /// It is done.
    fn settle(&mut self, program: Option<&Program>, outcome: Option<&Outcome>) -> Result<()>;
}

/// A change that was decided on and done; what it did, if anything.
type Decided = Option<Outcome>;

impl Transaction<'_> {
    /// Has the guest decide, and does it.
    pub(super) fn host(
        self,
        store: &Store,
        mut request: Request<'_>,
        guest: &mut dyn Guest,
    ) -> Result<Decided> {
        for attempt in 0..ATTEMPTS {
            pause(self.interface, attempt);
            let decided = if self.is_alone(request.mode)? {
                let _root = store.lock_everything()?;
                match self.look(ATTACH, request.mode)? {
                    Present::Chain(_) => None,
                    Present::Nothing if *self.way == Way::Chain => None,
                    present => self.decided(None, &present, &mut request, guest)?,
                }
            } else {
                let how = (request.mode, request.unexpected());
                let (held, present) = self.lock_chain(store, ATTACH, how)?;
                match present {
                    Present::Foreign(_) => None,
                    present => self.decided(Some(&held), &present, &mut request, guest)?,
                }
            };
            if let Some(decided) = decided {
                return Ok(decided);
            }
        }
        Err(self.contended(ATTACH))
    }

    /// Whether what is there, or what is to come, has no dispatcher.
    fn is_alone(&self, mode: Mode) -> Result<bool> {
        Ok(match self.look(ATTACH, mode)? {
            Present::Nothing => *self.way != Way::Chain,
            Present::Chain(_) => false,
            Present::Foreign(_) => true,
        })
    }

    /// One try; `None` if it is to be decided again.
    fn decided(
        &self,
        held: Option<&Held<'_>>,
        present: &Present,
        request: &mut Request<'_>,
        guest: &mut dyn Guest,
    ) -> Result<Option<Decided>> {
        let program = request.programs.first_mut().map(|program| &mut **program);
        let decision = guest.decide(&view(present), program)?;
        let outcome = match self.carry_out(&decision, held, present, request)? {
            None => return Ok(None),
            Some(_) if matches!(decision, Decision::Clear(_)) => return Ok(None),
            Some(outcome) => outcome,
        };
        guest.settle(request.programs.first().map(|program| &**program), outcome.as_ref())?;
        Ok(Some(outcome))
    }

    fn carry_out(
        &self,
        decision: &Decision,
        held: Option<&Held<'_>>,
        present: &Present,
        request: &mut Request<'_>,
    ) -> Result<Option<Decided>> {
        let remove = |ids: &[u32]| ids.iter().copied().map(Step::Remove).collect::<Vec<_>>();
        request.steps = Some(match decision {
            Decision::Stay => return Ok(Some(None)),
            Decision::Remove(ids) => remove(ids),
            Decision::Clear(id) => remove(&[*id]),
            Decision::Insert { without } => {
                remove(without).into_iter().chain([Step::Insert(0)]).collect()
            }
            Decision::ReadFrags(id) => vec![Step::SetFrags(*id)],
            Decision::Replace(_) => vec![Step::Insert(0)],
        });
        let done = match decision {
            Decision::Replace(_) => self.single(present, request, "what it replaces runs alone"),
            _ => self.attempt(held, present, request),
        };
        Ok(done?.map(Some))
    }
}

fn view(present: &Present) -> View<'_> {
    match present {
        Present::Nothing => {
            View { programs: Vec::new(), mode: None, is_chain: false, has_frags: false }
        }
        Present::Foreign(foreign) => {
            let id = foreign.description.id;
            let (fd, name) = (foreign.program.as_fd(), foreign.description.name.as_str());
            View {
                programs: vec![Running { fd, id, name, has_frags: false }],
                mode: Some(foreign.description.mode),
                is_chain: false,
                has_frags: false,
            }
        }
        Present::Chain(chain) => {
            let programs = chain.members.iter().filter_map(|member| {
                let LiveProgram { fd, info, name } = member.program.as_ref()?;
                let has_frags = member.config.has_frags();
                Some(Running { fd: fd.as_fd(), id: info.id, name, has_frags })
            });
            View {
                programs: programs.collect(),
                mode: Some(chain.dispatcher.mode),
                is_chain: true,
                has_frags: chain.dispatcher.config.has_frags,
            }
        }
    }
}
