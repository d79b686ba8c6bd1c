//! The one way an interface changes: what is to run is built beside what runs, and swapped for it.
//!
//! Everything that can fail comes before the swap, which is one atomic step of the kernel; all that is left
//! after it is to remove the old pins. Killed before the swap, the old chain runs; after it, the new one does.
//! What is made on the way is owned by values whose drop takes it back.

use super::config::{ProtocolVersion, SlotConfig};
use super::edit::{self, Step};
use super::held::{Held, Present, known};
use super::inspect::{LiveChain, LiveForeign, LiveProgram};
use super::load::Loader;
use super::outcome::Outcome;
use super::plan::{Origin, Plan, Planned, Rank, RankKind};
use super::request::{DETACH, Request, Way};
use super::slots::{self, Fate};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Attached, Attachment, Interface, Known, Link, Mode, Swap};
use crate::pins::{Lock, PinnedDispatcher, Store};
use crate::program::Program;
use crate::sys::Kernel;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How often a change is tried when others change the interface in between.
pub(super) const ATTEMPTS: u32 = 10;
/// One change to one interface.
pub(super) struct Transaction<'a> {
    pub(super) loader: &'a Loader,
    pub(super) kernel: &'a Kernel,
    /// None where there is no bpf file system: some changes need none.
    pub(super) store: Option<&'a Store>,
    pub(super) interface: &'a Interface,
    pub(super) attachment: Attachment<'a>,
    pub(super) way: &'a Way,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        loader: &'a Loader,
        store: Option<&'a Store>,
        interface: &'a Interface,
        way: &'a Way,
    ) -> Self {
        let kernel = loader.kernel();
        let attachment = Attachment::new(kernel, interface);
        Self { loader, kernel, store, interface, attachment, way }
    }

    /// Does the change, from the start again if others were faster, a bounded number of times.
    pub(super) fn run(self, mut request: Request<'_>) -> Result<Outcome> {
        let operation = request.operation();
        for attempt in 0..ATTEMPTS {
            pause(self.interface, attempt);
            if !request.inserts() && self.attachment.query_for(request.mode)?.is_none() {
                return Err(Error::new(operation, self.interface, ErrorKind::NotAttached));
            }
            let (held, present) = match (self.store, self.way) {
                (Some(store), Way::Chain) => {
                    let how = (request.mode, request.unexpected());
                    let (held, present) = self.lock_chain(store, operation, how)?;
                    (Some(held), present)
                }
                _ => (None, self.look(operation, request.mode)?),
            };
            if let Some(outcome) = self.attempt(held.as_ref(), &present, &mut request)? {
                return Ok(outcome);
            }
        }
        Err(self.contended(operation))
    }

    pub(super) fn contended(&self, operation: &'static str) -> Error {
        Error::new(operation, self.interface, ErrorKind::Contended { attempts: ATTEMPTS })
    }

    /// One try; `None` if the interface is not as it was when the chain was read.
    pub(super) fn attempt(
        &self,
        held: Option<&Held<'_>>,
        present: &Present,
        request: &mut Request<'_>,
    ) -> Result<Option<Outcome>> {
        let operation = request.operation();
        let refused = |kind| Err(Error::new(operation, self.interface, kind));
        match present {
            Present::Nothing if !request.inserts() => return refused(ErrorKind::NotAttached),
            Present::Foreign(foreign) => {
                let id = foreign.description.id;
                if *request.steps() == [Step::Remove(id)] {
                    return self.remove_single(foreign);
                }
                if !request.inserts() || request.replaces != Some(id) {
                    let program = Box::new(foreign.description.clone());
                    return refused(ErrorKind::ForeignProgram(program));
                }
            }
            Present::Chain(chain) if request.means_another(chain.dispatcher.id) => {
                return refused(ErrorKind::NotAttached);
            }
            Present::Chain(chain) if request.steps.is_none() => {
                return self.remove_all(held, chain);
            }
            Present::Chain(chain) if *self.way != Way::Chain && request.inserts() => {
                return refused(ErrorKind::ChainAttached { dispatcher: chain.dispatcher.id });
            }
            _ => {}
        }
        match (self.way, held) {
            (Way::Single { why }, _) if request.inserts() => self.single(present, request, why),
            (_, Some(held)) => self.change_chain(held, present, request),
            // No bpf file system, so no pins: a chain cannot be changed, only taken off.
            (_, None) if request.mends.is_some() => self.mend_without_pins(present, operation),
            (_, None) => refused(match present {
                Present::Chain(chain) => ErrorKind::DamagedChain {
                    dispatcher: chain.dispatcher.id,
                    missing: chain.missing(),
                },
                _ => ErrorKind::NotAttached,
            }),
        }
    }

    fn change_chain(
        &self,
        held: &Held<'_>,
        present: &Present,
        request: &mut Request<'_>,
    ) -> Result<Option<Outcome>> {
        let operation = request.operation();
        let chain = present.chain();
        let (version, dropped) = match chain {
            Some(chain) => self.changeable(chain, operation)?,
            None => (request.version, Vec::new()),
        };
        // What a recovery does it tells by itself.
        if !dropped.is_empty() && request.mends.is_none() {
            log::warn!(
                "slots {dropped:?} of the chain on {} have lost their programs, and are dropped",
                self.interface
            );
        }
        let before = chain.map(|chain| kept(chain, &dropped)).unwrap_or_default();
        let coming = |index: usize| Some(added(index, request.programs.get(index)?));
        let planned = edit::apply(before, request.steps(), coming);
        let planned = planned.during(operation, self.interface)?;
        match chain {
            Some(chain) if planned.is_empty() => return self.remove_all(Some(held), chain),
            None if planned.is_empty() => {
                return Err(Error::new(operation, self.interface, ErrorKind::NotAttached));
            }
            _ => {}
        }
        let plan = Plan::new(planned).during(operation, self.interface)?;
        if let Some(chain) = chain {
            let slots = &chain.dispatcher.config.slots;
            if edit::is_unchanged(&plan.0, slots) {
                return Ok(Some(unchanged(chain, &plan)));
            }
            self.must_stay_bound(chain, &plan, operation)?;
        }
        let mode = self.mode(operation, present, request.mode)?;
        let outcome = self.replace((operation, held), present, &plan, (version, mode), request)?;
        Ok(outcome.map(|outcome| Outcome { dropped, ..outcome }))
    }

    /// The mode of a change: that of what is attached, which must not be another than the one asked for.
    pub(super) fn mode(
        &self,
        operation: &'static str,
        present: &Present,
        asked: Mode,
    ) -> Result<Mode> {
        let attached = match present {
            Present::Nothing => return Ok(asked),
            Present::Chain(chain) => chain.dispatcher.mode,
            Present::Foreign(foreign) => foreign.description.mode,
        };
        compatible(attached, asked).during(operation, self.interface)
    }

    /// The version of a chain that can be written, and its slots whose programs have died. Every other one must be whole.
    fn changeable(
        &self,
        chain: &LiveChain,
        operation: &'static str,
    ) -> Result<(ProtocolVersion, Vec<usize>)> {
        let found = chain.dispatcher.config.version;
        let Some(version) = ProtocolVersion::of(found) else {
            return Err(Error::new(
                operation,
                self.interface,
                ErrorKind::ProtocolVersion { found },
            ));
        };
        let missing = chain.missing();
        if missing.is_empty() {
            return Ok((version, missing));
        }
        let dead = self.dead(chain, &missing)?;
        if dead != missing {
            let missing = missing.into_iter().filter(|slot| !dead.contains(slot)).collect();
            let dispatcher = chain.dispatcher.id;
            let kind = ErrorKind::DamagedChain { dispatcher, missing };
            return Err(Error::new(operation, self.interface, kind));
        }
        Ok((version, dead))
    }

    /// Takes off a chain in which nothing is left.
    fn mend_without_pins(
        &self,
        present: &Present,
        operation: &'static str,
    ) -> Result<Option<Outcome>> {
        let Some(chain) = present.chain() else {
            return Err(Error::new(operation, self.interface, ErrorKind::NotAttached));
        };
        let (_, dropped) = self.changeable(chain, operation)?;
        let outcome = self.remove_all(None, chain)?;
        Ok(outcome.map(|outcome| Outcome { dropped, ..outcome }))
    }

    /// Those of some slots that run nothing, for sure.
    fn dead(&self, chain: &LiveChain, slots: &[usize]) -> Result<Vec<usize>> {
        let links = slots::links(self.kernel)?.slots;
        let tells = links.iter().all(|link| link.target.is_some());
        let (id, own) = (chain.dispatcher.id, chain.pins.as_ref().map(PinnedDispatcher::path));
        let elsewhere = match self.store {
            Some(store) if !tells => store.links_elsewhere(id, own)?,
            _ => BTreeSet::new(),
        };
        let has_link = |slot: usize| chain.members.get(slot).is_some_and(|member| member.is_linked);
        let is_dead = |slot: &usize| {
            !has_link(*slot) && slots::fate(&links, &elsewhere, id, *slot) == Fate::Dead
        };
        Ok(slots.iter().copied().filter(is_dead).collect())
    }

    /// Programs that were loaded for a device-bound chain go into no other.
    fn must_stay_bound(
        &self,
        chain: &LiveChain,
        plan: &Plan,
        operation: &'static str,
    ) -> Result<()> {
        let misfit = plan.0.iter().find(|planned| !planned.config.is_device_bound());
        let stays = plan.0.iter().any(|planned| matches!(planned.origin, Origin::Kept(_)));
        match misfit {
            Some(misfit) if stays && chain.dispatcher.config.is_device_bound => {
                let kind = ErrorKind::MixedDeviceBinding { program: misfit.rank.name.clone() };
                Err(Error::new(operation, self.interface, kind))
            }
            _ => Ok(()),
        }
    }

    /// Takes the dispatcher off the interface, whole or not, and then its pins.
    fn remove_all(&self, held: Option<&Held<'_>>, chain: &LiveChain) -> Result<Option<Outcome>> {
        let (id, mode) = (chain.dispatcher.id, chain.dispatcher.mode);
        Ok(self.take_off(known(chain), chain.link.as_ref(), mode)?.then(|| Outcome {
            leftover: held.and_then(|held| self.remove_pins(held.old_pins(), chain)),
            ..Outcome::empty(id, mode)
        }))
    }

    /// Takes off a program that is part of no chain, because its id was given.
    fn remove_single(&self, foreign: &LiveForeign) -> Result<Option<Outcome>> {
        let (id, mode) = (foreign.description.id, foreign.description.mode);
        let taken_off = self.take_off(foreign.known(), None, mode)?;
        Ok(taken_off.then(|| Outcome::empty(id, mode)))
    }

    /// Takes `program` off; `false` if it is not what is attached. A link may hold it without anybody having said so.
    fn take_off(&self, program: Known<'_>, link: Option<&Link>, mode: Mode) -> Result<bool> {
        if let Some(link) = link {
            return self.attachment.unlink(DETACH, link, program.id);
        }
        match self.attachment.swap(DETACH, None, Some(program), mode) {
            Swap::Done => Ok(true),
            Swap::Lost => Ok(false),
            Swap::Unknown(error) => Err(error),
            Swap::Failed(error) => match self.holder(&error, program.id, mode)? {
                Some(link) => self.attachment.unlink(DETACH, &link, program.id),
                None => Err(error),
            },
        }
    }

    /// The link behind a refusal to change what is attached by netlink.
    pub(super) fn holder(&self, error: &Error, program: u32, mode: Mode) -> Result<Option<Link>> {
        if error.errno() != Some(libc::EBUSY) {
            return Ok(None);
        }
        self.attachment.holder(Attached { program, mode })
    }

    /// Removes the pins of a chain that is no longer attached. They are of no use to anybody, but a failure to
    /// remove them does not undo the change: it is told, and left to recovery.
    pub(super) fn remove_pins(&self, lock: &Lock, chain: &LiveChain) -> Option<PathBuf> {
        let (Some(store), Some(pins)) = (self.store, &chain.pins) else { return None };
        let error = store.remove(lock, pins).err()?;
        log::warn!(
            "the pins of the former dispatcher {} are left behind: {error}",
            chain.dispatcher.id
        );
        Some(pins.path().to_owned())
    }
}

/// Before what is tried again: others were faster.
pub(super) fn pause(interface: &Interface, attempt: u32) {
    if attempt > 0 {
        log::debug!("{interface} was changed by others, attempt {attempt}");
        std::thread::sleep(Duration::from_millis(1 << attempt.min(6)));
    }
}

fn compatible(attached: Mode, asked: Mode) -> std::result::Result<Mode, ErrorKind> {
    if asked == Mode::Unspecified || asked == attached {
        return Ok(attached);
    }
    Err(ErrorKind::ModeConflict { attached: attached.name(), asked: asked.name() })
}

/// What a change that changes nothing tells.
fn unchanged(chain: &LiveChain, plan: &Plan) -> Outcome {
    let config = &chain.dispatcher.config;
    Outcome {
        dispatcher: Some(chain.dispatcher.id),
        replaced: None,
        has_frags: config.has_frags,
        is_device_bound: config.is_device_bound,
        downgrades: plan.downgrades(config),
        link: chain.link.clone(),
        pins: chain.pins.as_ref().map(|pins| pins.path().to_owned()),
        ..Outcome::empty(chain.dispatcher.id, chain.dispatcher.mode)
    }
}

/// The members of a chain, but for those that were dropped.
fn kept(chain: &LiveChain, dropped: &[usize]) -> Vec<Planned> {
    let member = |(index, config, program): (usize, SlotConfig, &LiveProgram)| {
        let kind = RankKind::Loaded { tag: program.info.tag, load_time: program.info.load_time };
        let rank = Rank { name: program.name.clone(), kind };
        Planned { origin: Origin::Kept(index), id: Some(program.info.id), config, rank }
    };
    let members = chain.members.iter().enumerate();
    members
        .filter(|(index, _)| !dropped.contains(index))
        .filter_map(|(index, member)| Some((index, member.config, member.program.as_ref()?)))
        .map(member)
        .collect()
}

fn added(index: usize, program: &Program) -> Planned {
    let kind = match program.info() {
        Some(info) => RankKind::Loaded { tag: info.tag, load_time: info.load_time },
        None => RankKind::Opened { size: program.size() },
    };
    let config = SlotConfig {
        priority: program.priority(),
        actions: program.chain_actions(),
        flags: SlotConfig::flags_of(program.has_frags(), program.is_device_bound()),
    };
    let rank = Rank { name: program.name().to_owned(), kind };
    Planned { origin: Origin::Added(index), id: program.id(), config, rank }
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
