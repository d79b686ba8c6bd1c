//! The one way a chain changes: a new dispatcher is built beside the old one and swapped for it.
//!
//! Everything that can fail comes before the swap, which is one atomic step of the kernel; all that is left
//! after it is to remove the old pins. Killed before the swap, the old chain runs; after it, the new one does.
//! What is made on the way is owned by values whose drop takes it back.

use super::config::SlotConfig;
use super::inspect::{self, Found, LiveChain, LiveProgram};
use super::load::{self, Dispatcher};
use super::plan::{Origin, Plan, Planned, Rank, RankKind};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Attachment, Interface, Known, Mode, Swap};
use crate::pins::{Lock, Scope, Staging, Store};
use crate::program::Program;
use crate::sys::Kernel;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// How often a change is tried when others change the interface in between.
const ATTEMPTS: u32 = 10;
const ATTACH: &str = "attach to";
const DETACH: &str = "detach from";

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Program id of the dispatcher that is attached now; `None` if the interface is empty now.
    pub dispatcher: Option<u32>,
    /// Program id of the dispatcher that was attached before.
    pub replaced: Option<u32>,
    /// Where the chain runs, or ran.
    pub mode: Mode,
    /// Whether the chain takes packets of several fragments: only if all its programs do, and the kernel is 5.18
    /// or newer.
    pub has_frags: bool,
    /// The directory of the new pins.
    pub pins: Option<PathBuf>,
    /// The directory of the old pins, if it could not be removed. They keep programs in the kernel that no
    /// packet reaches.
    pub leftover: Option<PathBuf>,
}

/// What is to change.
pub(super) enum Change<'a, 'p> {
    Add {
        programs: &'a mut [&'p mut Program],
        mode: Mode,
    },
    /// Programs by id.
    Remove(&'a [u32]),
    RemoveAll,
}

impl Change<'_, '_> {
    fn operation(&self) -> &'static str {
        if matches!(self, Self::Add { .. }) { ATTACH } else { DETACH }
    }
}

/// One change to one interface.
pub(super) struct Transaction<'a> {
    kernel: &'a Kernel,
    store: &'a Store,
    interface: &'a Interface,
    attachment: Attachment<'a>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        kernel: &'a Kernel,
        store: &'a Store,
        interface: &'a Interface,
    ) -> Result<Self> {
        let attachment = Attachment::open(kernel, interface)?;
        Ok(Self { kernel, store, interface, attachment })
    }

    /// Does the change, from the start again if others were faster, a bounded number of times.
    pub(super) fn run(&self, mut change: Change<'_, '_>) -> Result<Outcome> {
        let operation = change.operation();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                log::debug!("{} was changed by others, attempt {attempt}", self.interface);
                std::thread::sleep(Duration::from_millis(1 << attempt.min(6)));
            }
            if !matches!(change, Change::Add { .. }) && self.attachment.query()?.is_none() {
                return Err(Error::new(operation, self.interface, ErrorKind::NotAttached));
            }
            let (scope, chain) = self.lock_chain(operation)?;
            if let Some(outcome) = self.attempt(&scope, chain, &mut change)? {
                return Ok(outcome);
            }
        }
        Err(self.contended(operation))
    }

    fn contended(&self, operation: &'static str) -> Error {
        Error::new(operation, self.interface, ErrorKind::Contended { attempts: ATTEMPTS })
    }

    /// The chain that is attached, with the lock of the directory that its pins lie in: a chain stays where it
    /// is. Without one, the lock of the directory where the layout wants the pins.
    fn lock_chain(&self, operation: &'static str) -> Result<(Scope<'a>, Option<LiveChain>)> {
        let netns = self.interface.netns().id()?;
        let mut scope = self.store.lock_scope(netns)?;
        for _ in 0..ATTEMPTS {
            let Some(attached) = self.attachment.query()? else {
                return Ok((scope, None));
            };
            let dispatcher = match inspect::identify(self.kernel, attached)? {
                None => continue,
                Some(Found::Foreign(program)) => {
                    return Err(inspect::foreign(operation, self.interface, program));
                }
                Some(Found::Dispatcher(dispatcher)) => dispatcher,
            };
            let pins = self.store.find(&inspect::key(self.interface, &dispatcher)?)?;
            match &pins {
                Some(pins) if pins.path().parent() != Some(scope.path()) => {
                    // One lock at a time: two processes that hold one each and want the other's hang.
                    drop(scope);
                    // Gone meanwhile: then so is the chain that was seen, and another is to be found.
                    scope = match self.store.lock_around(pins)? {
                        Some(around) => around,
                        None => self.store.lock_scope(netns)?,
                    };
                }
                // Who replaces a chain that is pinned elsewhere holds another lock and removes its pins.
                None if self.attachment.query()? != Some(attached) => {}
                _ => return Ok((scope, Some(inspect::read_chain(self.kernel, dispatcher, pins)?))),
            }
        }
        Err(self.contended(operation))
    }

    /// One try; `None` if the interface is not as it was when the chain was read.
    fn attempt(
        &self,
        lock: &Lock,
        chain: Option<LiveChain>,
        change: &mut Change<'_, '_>,
    ) -> Result<Option<Outcome>> {
        match change {
            Change::Add { programs, mode } => self.add(lock, chain.as_ref(), programs, *mode),
            Change::Remove(ids) => self.remove(lock, &self.present(chain)?, ids),
            Change::RemoveAll => self.remove_all(lock, &self.present(chain)?),
        }
    }

    fn present(&self, chain: Option<LiveChain>) -> Result<LiveChain> {
        chain.ok_or_else(|| Error::new(DETACH, self.interface, ErrorKind::NotAttached))
    }

    fn add(
        &self,
        lock: &Lock,
        chain: Option<&LiveChain>,
        programs: &mut [&mut Program],
        mode: Mode,
    ) -> Result<Option<Outcome>> {
        let mode = match chain {
            Some(chain) => {
                compatible(chain.dispatcher.mode, mode).during(ATTACH, self.interface)?
            }
            None => mode,
        };
        self.must_be_new(chain, programs)?;
        let mut planned = chain.map_or_else(|| Ok(Vec::new()), |chain| self.kept(chain, ATTACH))?;
        planned.extend(programs.iter().enumerate().map(|(index, program)| added(index, program)));
        let plan = Plan::new(planned).during(ATTACH, self.interface)?;
        self.replace((ATTACH, lock), chain, &plan, programs, mode)
    }

    /// One program has one slot: its id is what it is taken out by.
    fn must_be_new(&self, chain: Option<&LiveChain>, programs: &[&mut Program]) -> Result<()> {
        let members = chain.iter().flat_map(|chain| &chain.members);
        let present: Vec<u32> =
            members.filter_map(|member| Some(member.program.as_ref()?.info.id)).collect();
        match programs.iter().find_map(|program| program.id().filter(|id| present.contains(id))) {
            None => Ok(()),
            Some(id) => Err(Error::new(ATTACH, self.interface, ErrorKind::AlreadyAttached { id })),
        }
    }

    fn remove(&self, lock: &Lock, chain: &LiveChain, ids: &[u32]) -> Result<Option<Outcome>> {
        let id_of = |program: &LiveProgram| program.info.id;
        let present: Vec<_> =
            chain.members.iter().map(|member| member.program.as_ref().map(id_of)).collect();
        if let Some(absent) = ids.iter().find(|id| !present.contains(&Some(**id))) {
            let object = format!("program {absent} on {}", self.interface);
            return Err(Error::new("detach", object, ErrorKind::NotAttached));
        }
        if present.iter().all(|id| id.is_some_and(|id| ids.contains(&id))) {
            return self.remove_all(lock, chain);
        }
        let mut planned = self.kept(chain, DETACH)?;
        let stays = |planned: &Planned| match planned.origin {
            Origin::Kept(index) => {
                !present.get(index).copied().flatten().is_some_and(|id| ids.contains(&id))
            }
            Origin::Added(_) => true,
        };
        planned.retain(stays);
        let plan = Plan::new(planned).during(DETACH, self.interface)?;
        self.replace((DETACH, lock), Some(chain), &plan, &mut [], chain.dispatcher.mode)
    }

    /// Takes the dispatcher off the interface, whole or not, and then its pins.
    fn remove_all(&self, lock: &Lock, chain: &LiveChain) -> Result<Option<Outcome>> {
        let swap = self.attachment.swap(DETACH, None, Some(known(chain)), chain.dispatcher.mode);
        match swap {
            Swap::Lost => Ok(None),
            Swap::Failed(error) | Swap::Unknown(error) => Err(error),
            Swap::Done => Ok(Some(Outcome {
                dispatcher: None,
                replaced: Some(chain.dispatcher.id),
                mode: chain.dispatcher.mode,
                has_frags: false,
                pins: None,
                leftover: self.remove_pins(lock, chain),
            })),
        }
    }

    /// The members of a chain that is whole and of the version that we write.
    fn kept(&self, chain: &LiveChain, operation: &'static str) -> Result<Vec<Planned>> {
        let (found, written) = (chain.dispatcher.config.version, super::config::VERSION);
        let kind = match chain.missing() {
            _ if found != written => ErrorKind::ProtocolVersion { found, written },
            missing if !missing.is_empty() => {
                ErrorKind::DamagedChain { dispatcher: chain.dispatcher.id, missing }
            }
            // A new dispatcher would not be, and its programs would lose the device's hints.
            _ if chain.dispatcher.config.is_device_bound => ErrorKind::DeviceBound,
            _ => {
                let members = chain.members.iter().enumerate();
                return Ok(members
                    .filter_map(|(index, member)| {
                        Some(kept(index, member.config, member.program.as_ref()?))
                    })
                    .collect());
            }
        };
        Err(Error::new(operation, self.interface, kind))
    }

    /// Builds a dispatcher for `plan` and puts it in the place of `chain`.
    fn replace(
        &self,
        (operation, lock): (&'static str, &Lock),
        chain: Option<&LiveChain>,
        plan: &Plan,
        programs: &mut [&mut Program],
        mode: Mode,
    ) -> Result<Option<Outcome>> {
        let dispatcher = load::dispatcher(self.kernel, &plan.config())?;
        let staging = self.store.stage(lock, self.interface.index(), dispatcher.id)?;
        let _links = self.fill(lock, &dispatcher, &staging, chain, plan, programs)?;
        let new = Known { fd: dispatcher.program.as_fd(), id: dispatcher.id };
        match self.attachment.swap(operation, Some(new), chain.map(known), mode) {
            Swap::Lost => Ok(None),
            Swap::Failed(error) => Err(error),
            // It may be the new chain that runs: its pins must stay, or its programs are gone.
            Swap::Unknown(error) => {
                let pins = staging.keep();
                log::error!("what is attached is not known; {} is kept", pins.path().display());
                Err(error)
            }
            Swap::Done => Ok(Some(Outcome {
                dispatcher: Some(dispatcher.id),
                replaced: chain.map(|chain| chain.dispatcher.id),
                mode: self.chosen(mode),
                has_frags: dispatcher.has_frags,
                pins: Some(staging.keep().path().to_owned()),
                leftover: chain.and_then(|chain| self.remove_pins(lock, chain)),
            })),
        }
    }

    /// The mode that the kernel chose where the caller left it to it. The change is done: a failure to ask is
    /// none of the change.
    fn chosen(&self, asked: Mode) -> Mode {
        if asked != Mode::Unspecified {
            return asked;
        }
        self.attachment.query().ok().flatten().map_or(asked, |attached| attached.mode)
    }

    /// Links and pins every program of the plan. The links hold the programs in their slots until the pins do.
    fn fill(
        &self,
        lock: &Lock,
        dispatcher: &Dispatcher,
        staging: &Staging<'_>,
        chain: Option<&LiveChain>,
        plan: &Plan,
        programs: &mut [&mut Program],
    ) -> Result<Vec<OwnedFd>> {
        let target = dispatcher.program.as_fd();
        let slots: Vec<SlotConfig> = plan.0.iter().map(|planned| planned.config).collect();
        let mut links = Vec::with_capacity(slots.len());
        for (slot, planned) in plan.0.iter().enumerate() {
            let function = load::slot_function(slot, &slots)?;
            let program = match planned.origin {
                Origin::Kept(index) => chain
                    .and_then(|chain| chain.members.get(index)?.program.as_ref())
                    .map(|program| program.fd.as_fd()),
                Origin::Added(index) => match programs.get_mut(index) {
                    None => None,
                    Some(program) => {
                        program.load(self.kernel, target, function.name)?;
                        program.fd()
                    }
                },
            };
            let program = program.ok_or(ErrorKind::NotLoaded).during("link", &planned.rank.name)?;
            let link = self.link(program, target, function.btf_id);
            let link = link.during("link", &planned.rank.name)?;
            staging.pin(lock, slot, program, link.as_fd())?;
            links.push(link);
        }
        Ok(links)
    }

    fn link(
        &self,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        function: u32,
    ) -> std::result::Result<OwnedFd, ErrorKind> {
        let refused = |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP) => ErrorKind::NoFreplace {
                why: format!("it refuses to link an extension program: {error}"),
            },
            Some(libc::EINVAL) => ErrorKind::Rejected {
                source: error,
                log: "the program cannot take the place of a dispatcher's function".into(),
            },
            _ => error.into(),
        };
        self.kernel.link_extension(program, target, function).map_err(refused)
    }

    /// Removes the pins of a chain that is no longer attached. They are of no use to anybody, but a failure to
    /// remove them does not undo the change: it is told, and left to recovery.
    fn remove_pins(&self, lock: &Lock, chain: &LiveChain) -> Option<PathBuf> {
        let pins = chain.pins.as_ref()?;
        let error = self.store.remove(lock, pins).err()?;
        log::warn!(
            "the pins of the former dispatcher {} are left behind: {error}",
            chain.dispatcher.id
        );
        Some(pins.path().to_owned())
    }
}

fn known(chain: &LiveChain) -> Known<'_> {
    Known { fd: chain.dispatcher.program.as_fd(), id: chain.dispatcher.id }
}

/// The mode of a change to a chain: that of the chain, which must not be another than the one asked for.
fn compatible(attached: Mode, asked: Mode) -> std::result::Result<Mode, ErrorKind> {
    if asked == Mode::Unspecified || asked == attached {
        return Ok(attached);
    }
    Err(ErrorKind::ModeConflict { attached: attached.name(), asked: asked.name() })
}

fn kept(index: usize, config: SlotConfig, program: &LiveProgram) -> Planned {
    let kind = RankKind::Loaded { tag: program.info.tag, load_time: program.info.load_time };
    let rank = Rank { name: program.name.clone(), kind };
    Planned { origin: Origin::Kept(index), config, rank }
}

fn added(index: usize, program: &Program) -> Planned {
    let kind = match program.info() {
        Some(info) => RankKind::Loaded { tag: info.tag, load_time: info.load_time },
        None => RankKind::Opened { size: program.size() },
    };
    let config = SlotConfig {
        priority: program.priority(),
        actions: program.chain_actions(),
        flags: SlotConfig::flags_of(program.has_frags()),
    };
    let rank = Rank { name: program.name().to_owned(), kind };
    Planned { origin: Origin::Added(index), config, rank }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_chain_keeps_its_mode() {
        assert_eq!(compatible(Mode::Native, Mode::Unspecified).unwrap(), Mode::Native);
        assert_eq!(compatible(Mode::Skb, Mode::Skb).unwrap(), Mode::Skb);
        assert!(matches!(
            compatible(Mode::Skb, Mode::Native),
            Err(ErrorKind::ModeConflict { attached: "skb", asked: "native" })
        ));
    }
}
