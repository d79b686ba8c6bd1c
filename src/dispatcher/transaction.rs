//! The one way an interface changes: what is to run is built beside what runs, and swapped for it.
//!
//! Everything that can fail comes before the swap, which is one atomic step of the kernel; all that is left
//! after it is to remove the old pins. Killed before the swap, the old chain runs; after it, the new one does.
//! What is made on the way is owned by values whose drop takes it back.

use super::config::{ProtocolVersion, SlotConfig};
use super::edit::{self, Step};
use super::inspect::{
    self, Found, LiveChain, LiveDispatcher, LiveForeign, LiveProgram, Unexpected,
};
use super::load::{self, Dispatcher, Loader};
use super::outcome::Outcome;
use super::plan::{Origin, Plan, Planned, Rank, RankKind};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{AttachBy, Attached, Attachment, Interface, Known, Link, Linked, Mode, Swap};
use crate::pins::{Lock, OpenPins, Scope, Staging, Store};
use crate::program::{LoadTarget, Program};
use crate::sys::Kernel;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// How often a change is tried when others change the interface in between.
const ATTEMPTS: u32 = 10;
pub(super) const ATTACH: &str = "attach to";
const DETACH: &str = "detach from";
const CHANGE: &str = "change the chain on";

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
}

impl Request<'_> {
    pub(super) fn steps(&self) -> &[Step] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// Whether it can start a chain.
    pub(super) fn inserts(&self) -> bool {
        self.steps().iter().any(|step| matches!(step, Step::Insert(_)))
    }

    /// Whatever is pinned, the whole chain can be taken off.
    fn unexpected(&self) -> Unexpected {
        if self.steps.is_none() { Unexpected::Lost } else { Unexpected::Refused }
    }

    fn operation(&self) -> &'static str {
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

/// What is on the interface when a change begins.
#[derive(Debug)]
pub(super) enum Present {
    Nothing,
    Chain(LiveChain),
    Foreign(LiveForeign),
}

/// One change to one interface.
pub(super) struct Transaction<'a> {
    loader: &'a Loader,
    pub(super) kernel: &'a Kernel,
    /// None where there is no bpf file system: some changes need none.
    store: Option<&'a Store>,
    pub(super) interface: &'a Interface,
    attachment: Attachment<'a>,
    way: &'a Way,
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
            if attempt > 0 {
                log::debug!("{} was changed by others, attempt {attempt}", self.interface);
                std::thread::sleep(Duration::from_millis(1 << attempt.min(6)));
            }
            if !request.inserts() && self.attachment.query_for(request.mode)?.is_none() {
                return Err(Error::new(operation, self.interface, ErrorKind::NotAttached));
            }
            let (scope, present) = match (self.store, self.way) {
                (Some(store), Way::Chain) => {
                    let how = (request.mode, request.unexpected());
                    let (scope, present) = self.lock_chain(store, operation, how)?;
                    (Some(scope), present)
                }
                _ => (None, self.look(operation, request.mode)?),
            };
            if let Some(outcome) = self.attempt(scope.as_deref(), &present, &mut request)? {
                return Ok(outcome);
            }
        }
        Err(self.contended(operation))
    }

    fn contended(&self, operation: &'static str) -> Error {
        Error::new(operation, self.interface, ErrorKind::Contended { attempts: ATTEMPTS })
    }

    /// What is attached, where no pins are needed: without a chain, or to take something off that is none.
    fn look(&self, operation: &'static str, mode: Mode) -> Result<Present> {
        for _ in 0..ATTEMPTS {
            let Some(attached) = self.attachment.query_for(mode)? else {
                return Ok(Present::Nothing);
            };
            match inspect::identify(self.kernel, attached)? {
                None => {}
                Some(Found::Foreign(foreign)) => return Ok(Present::Foreign(foreign)),
                Some(Found::Dispatcher(dispatcher)) => {
                    return Ok(Present::Chain(self.read(dispatcher, None, Unexpected::Refused)?));
                }
            }
        }
        Err(self.contended(operation))
    }

    fn read(
        &self,
        dispatcher: LiveDispatcher,
        pins: Option<OpenPins<'_>>,
        unexpected: Unexpected,
    ) -> Result<LiveChain> {
        inspect::read_chain(self.kernel, &self.attachment, dispatcher, pins, unexpected)
    }

    /// The chain that is attached, with the lock of the directory that its pins lie in: a chain stays where it
    /// is. Without one, the lock of the directory where the layout wants the pins.
    fn lock_chain(
        &self,
        store: &'a Store,
        operation: &'static str,
        (mode, unexpected): (Mode, Unexpected),
    ) -> Result<(Scope<'a>, Present)> {
        let netns = self.interface.netns().id()?;
        let mut scope = store.lock_scope(netns)?;
        for _ in 0..ATTEMPTS {
            let Some(attached) = self.attachment.query_for(mode)? else {
                return Ok((scope, Present::Nothing));
            };
            let dispatcher = match inspect::identify(self.kernel, attached)? {
                None => continue,
                Some(Found::Foreign(program)) => return Ok((scope, Present::Foreign(program))),
                Some(Found::Dispatcher(dispatcher)) => dispatcher,
            };
            let pins = store.find(&inspect::key(self.interface, &dispatcher)?)?;
            match &pins {
                Some(pins) if pins.place().path().parent() != Some(scope.path()) => {
                    // One lock at a time: two processes that hold one each and want the other's hang.
                    drop(scope);
                    // Gone meanwhile: then so is the chain that was seen, and another is to be found.
                    scope = match store.lock_around(pins.place())? {
                        Some(around) => around,
                        None => store.lock_scope(netns)?,
                    };
                }
                // Who replaces a chain that is pinned elsewhere holds another lock and removes its pins.
                None if self.attachment.query_for(mode)? != Some(attached) => {}
                _ => {
                    let chain = self.read(dispatcher, pins, unexpected)?;
                    return Ok((scope, Present::Chain(chain)));
                }
            }
        }
        Err(self.contended(operation))
    }

    /// One try; `None` if the interface is not as it was when the chain was read.
    fn attempt(
        &self,
        lock: Option<&Lock>,
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
            Present::Chain(chain) if request.steps.is_none() => {
                return self.remove_all(lock, chain);
            }
            Present::Chain(chain) if *self.way != Way::Chain && request.inserts() => {
                return refused(ErrorKind::ChainAttached { dispatcher: chain.dispatcher.id });
            }
            _ => {}
        }
        match (self.way, lock) {
            (Way::Single { why }, _) if request.inserts() => self.single(present, request, why),
            (_, Some(lock)) => self.change_chain(lock, present, request),
            // No bpf file system, so no pins: a chain cannot be changed, only taken off.
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
        lock: &Lock,
        present: &Present,
        request: &mut Request<'_>,
    ) -> Result<Option<Outcome>> {
        let operation = request.operation();
        let chain = present.chain();
        let version = match chain {
            Some(chain) => self.changeable(chain, operation)?,
            None => request.version,
        };
        let before: Vec<Planned> = chain.map(kept).unwrap_or_default();
        let coming = |index: usize| Some(added(index, request.programs.get(index)?));
        let planned = edit::apply(before, request.steps(), coming);
        let planned = planned.during(operation, self.interface)?;
        match chain {
            Some(chain) if planned.is_empty() => return self.remove_all(Some(lock), chain),
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
        self.replace((operation, lock), present, &plan, (version, mode), request)
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

    /// The version of a chain that is whole and can be written.
    fn changeable(&self, chain: &LiveChain, operation: &'static str) -> Result<ProtocolVersion> {
        let found = chain.dispatcher.config.version;
        let kind = match (ProtocolVersion::of(found), chain.missing()) {
            (None, _) => ErrorKind::ProtocolVersion { found },
            (Some(version), missing) if missing.is_empty() => return Ok(version),
            (_, missing) => ErrorKind::DamagedChain { dispatcher: chain.dispatcher.id, missing },
        };
        Err(Error::new(operation, self.interface, kind))
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
    fn remove_all(&self, lock: Option<&Lock>, chain: &LiveChain) -> Result<Option<Outcome>> {
        let (id, mode) = (chain.dispatcher.id, chain.dispatcher.mode);
        Ok(self.take_off(known(chain), chain.link.as_ref(), mode)?.then(|| Outcome {
            leftover: lock.and_then(|lock| self.remove_pins(lock, chain)),
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
    fn holder(&self, error: &Error, program: u32, mode: Mode) -> Result<Option<Link>> {
        if error.errno() != Some(libc::EBUSY) {
            return Ok(None);
        }
        self.attachment.holder(Attached { program, mode })
    }

    /// Builds a dispatcher for `plan` and puts it in the place of what is there.
    fn replace(
        &self,
        (operation, lock): (&'static str, &Lock),
        present: &Present,
        plan: &Plan,
        (version, mode): (ProtocolVersion, Mode),
        request: &mut Request<'_>,
    ) -> Result<Option<Outcome>> {
        let Some(store) = self.store else { return Ok(None) };
        let dispatcher = self.loader.dispatcher(&plan.config(version), Some(self.interface))?;
        let staging = store.stage(lock, self.interface.index(), dispatcher.id)?;
        let chain = present.chain();
        let _links = self.fill(lock, &dispatcher, &staging, chain, plan, &mut request.programs)?;
        let held = chain.and_then(|chain| chain.link.clone());
        if let Some(link) = &held {
            staging.pin_attachment(lock, link.as_fd())?;
        }
        let new = Known { fd: dispatcher.program.as_fd(), id: dispatcher.id };
        let way = (mode, request.attach_by);
        let (swap, link) = self.swap_in(operation, new, present, held, way);
        if let (Some(link), Present::Nothing) = (&link, present) {
            self.keep_link(lock, &staging, link, dispatcher.id)?;
        }
        match swap {
            Swap::Lost => Ok(None),
            Swap::Failed(error) => Err(blamed(error, plan)),
            // It may be the new chain that runs: its pins must stay, or its programs are gone.
            Swap::Unknown(error) => {
                let pins = staging.keep();
                log::error!("what is attached is not known; {} is kept", pins.path().display());
                Err(error)
            }
            Swap::Done => Ok(Some(Outcome {
                dispatcher: Some(dispatcher.id),
                single: None,
                replaced: present.id(),
                mode: self.chosen(mode),
                has_frags: dispatcher.config.has_frags,
                is_device_bound: dispatcher.config.is_device_bound,
                downgrades: plan.downgrades(&dispatcher.config),
                link,
                pins: Some(staging.keep().path().to_owned()),
                leftover: chain.and_then(|chain| self.remove_pins(lock, chain)),
            })),
        }
    }

    /// Pins the link that has just attached a fresh chain; without the pin, the chain would go with this process.
    fn keep_link(
        &self,
        lock: &Lock,
        staging: &Staging<'_>,
        link: &Link,
        program: u32,
    ) -> Result<()> {
        let pinned = staging.pin_attachment(lock, link.as_fd());
        if pinned.is_err()
            && let Err(error) = self.attachment.unlink(ATTACH, link, program)
        {
            log::warn!("the link goes with its descriptor: {error}");
        }
        pinned
    }

    /// Puts `new` in the place of what is there, the way that is held; on an empty interface, the way asked for.
    pub(super) fn swap_in(
        &self,
        operation: &'static str,
        new: Known<'_>,
        present: &Present,
        held: Option<Link>,
        (mode, attach_by): (Mode, AttachBy),
    ) -> (Swap, Option<Link>) {
        let Some(expected) = present.known() else {
            if attach_by == AttachBy::Netlink {
                return (self.attachment.swap(operation, Some(new), None, mode), None);
            }
            return match self.attachment.link(operation, new, mode) {
                Ok(Linked::Done(link)) => (Swap::Done, Some(link)),
                Ok(Linked::Lost) => (Swap::Lost, None),
                Err(error) => (Swap::Failed(error), None),
            };
        };
        if let Some(link) = held {
            return (
                self.attachment.swap_within(operation, &link, new, expected, mode),
                Some(link),
            );
        }
        let error = match self.attachment.swap(operation, Some(new), Some(expected), mode) {
            Swap::Failed(error) => error,
            other => return (other, None),
        };
        // A link holds it that is pinned nowhere, or elsewhere: the chain would go when its owner lets go.
        match self.holder(&error, expected.id, mode) {
            Ok(Some(link)) => {
                let kind = ErrorKind::HeldByLink { link: link.id(), program: expected.id };
                (Swap::Failed(Error::new(operation, self.interface, kind)), None)
            }
            _ => (Swap::Failed(error), None),
        }
    }

    /// The mode that the kernel chose where the caller left it to it. The change is done: a failure to ask is
    /// none of the change.
    pub(super) fn chosen(&self, asked: Mode) -> Mode {
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
                        program.load(
                            self.kernel,
                            LoadTarget::Slot {
                                dispatcher: target,
                                name: function.name,
                                btf_id: function.btf_id,
                            },
                        )?;
                        Some(program.fd()?)
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
        let (Some(store), Some(pins)) = (self.store, &chain.pins) else { return None };
        let error = store.remove(lock, pins).err()?;
        log::warn!(
            "the pins of the former dispatcher {} are left behind: {error}",
            chain.dispatcher.id
        );
        Some(pins.path().to_owned())
    }
}

impl Present {
    fn chain(&self) -> Option<&LiveChain> {
        match self {
            Self::Chain(chain) => Some(chain),
            _ => None,
        }
    }

    fn known(&self) -> Option<Known<'_>> {
        match self {
            Self::Nothing => None,
            Self::Chain(chain) => Some(known(chain)),
            Self::Foreign(foreign) => Some(foreign.known()),
        }
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.known().map(|known| known.id)
    }
}

impl LiveForeign {
    fn known(&self) -> Known<'_> {
        Known { fd: self.program.as_fd(), id: self.description.id }
    }
}

fn known(chain: &LiveChain) -> Known<'_> {
    Known { fd: chain.dispatcher.program.as_fd(), id: chain.dispatcher.id }
}

/// An MTU that is too large is so for the programs that read no fragments.
fn blamed(error: Error, plan: &Plan) -> Error {
    let lacking = plan.0.iter().filter(|planned| !planned.config.has_frags());
    error.blaming(lacking.map(|planned| planned.rank.name.clone()).collect())
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

/// The members of a chain that is whole.
fn kept(chain: &LiveChain) -> Vec<Planned> {
    let member = |(index, config, program): (usize, SlotConfig, &LiveProgram)| {
        let kind = RankKind::Loaded { tag: program.info.tag, load_time: program.info.load_time };
        let rank = Rank { name: program.name.clone(), kind };
        Planned { origin: Origin::Kept(index), id: Some(program.info.id), config, rank }
    };
    let members = chain.members.iter().enumerate();
    members
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
