//! A plan carried out, line by line: each looks again, under the lock, whether things still are as it says.

use super::evidence::Evidence;
use super::plan::{Action, ChainAt, PlanLine, RecoveryPlan};
use crate::dispatcher::slots::{self, SlotLink};
use crate::dispatcher::{Outcome, Xdp};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Interface;
use crate::pins::{Lock, PinKey, PinnedDispatcher, Staging, Store};
use crate::sys::Kernel;
use crate::sys::bpf::LinkKind;
use crate::xsk::program::Dropped;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// How often a line is begun that needs two locks, of which the second is held by somebody else.
const ATTEMPTS: u32 = 10;

/// What came of a line of a plan.
#[derive(Debug)]
#[non_exhaustive]
pub struct Applied {
    /// The line.
    pub line: PlanLine,
    /// What came of it.
    pub done: Done,
}

/// What came of a line of a plan.
#[derive(Debug)]
#[non_exhaustive]
pub enum Done {
    /// It is done.
    Changed,
    /// There was nothing to do.
    Nothing,
    /// Things are no longer as they were when the plan was made, so nothing was done.
    Outdated {
        /// What is different, in words.
        why: String,
    },
    /// It failed.
    Failed(Error),
}

impl Xdp {
    /// Carries out a plan, each line by itself: one that fails does not keep the others from being tried. A process that
    /// is killed in between leaves what another inventory and plan put right.
    ///
    /// Before pins are removed all namespaces are looked into a second time: after every change that was under way when
    /// the plan was made has ended, and namespaces that have died are gone. Changing chains needs what [`attach`](Xdp::attach) needs.
    ///
    /// # Errors
    /// If the machine cannot be looked at again; what fails for one line is told there.
    #[doc(alias = "libxdp_clean_references")]
    pub fn apply(&self, plan: &RecoveryPlan) -> Result<Vec<Applied>> {
        let store = self.existing_store()?;
        let evidence = Evidence::take(self.kernel(), store.as_ref(), plan)?;
        let applier = Applier { xdp: self, store: store.as_ref(), evidence };
        let apply = |line: &PlanLine| Applied {
            done: applier.apply(&line.action).unwrap_or_else(Done::Failed),
            line: line.clone(),
        };
        Ok(plan.lines.iter().map(apply).collect())
    }
}

struct Applier<'a> {
    xdp: &'a Xdp,
    store: Option<&'a Store>,
    evidence: Evidence,
}

impl Applier<'_> {
    fn apply(&self, action: &Action) -> Result<Done> {
        let Some(store) = self.store else {
            return Ok(match action {
                Action::Detach { chain } => self.mend(chain)?,
                action if action.is_change() => outdated("there is no bpf file system any more"),
                _ => Done::Nothing,
            });
        };
        match action {
            Action::Nothing { .. } | Action::LeaveAlone { .. } => Ok(Done::Nothing),
            Action::Adopt { chain, into, slots } => self.adopt(store, chain, into, slots),
            Action::Rehome { chain, from, to } => self.rehome(store, chain, from, to),
            Action::DropSlots { chain, .. } | Action::Detach { chain } => self.mend(chain),
            Action::DropDefault { chain, program } => self.drop_default(chain, *program),
            Action::RemovePins { path, dispatcher } => self.remove(store, path, *dispatcher),
            Action::RemoveScope { path, has_note } => remove_scope(store, path, *has_note),
        }
    }

    /// The interface of a chain, if it still has that.
    fn find(&self, chain: &ChainAt) -> Result<Option<Interface>> {
        let Some((netns, interface)) = self.evidence.scan.find(chain.dispatcher) else {
            return Ok(None);
        };
        let is_it = netns.id.agrees_with(&chain.netns) && interface.ifindex == chain.ifindex;
        is_it.then(|| netns.interface(interface)).transpose()
    }

    /// Takes off a default program that nobody uses. The chain may have another dispatcher since an earlier line.
    fn drop_default(&self, chain: &ChainAt, program: u32) -> Result<Done> {
        let gone = || Done::Outdated { why: format!("program {program} is not there any more") };
        let mut netns = self.evidence.scan.namespaces.iter();
        let Some(netns) = netns.find(|netns| netns.id.agrees_with(&chain.netns)) else {
            return Ok(gone());
        };
        let interface = match Interface::by_index(&netns.netns, chain.ifindex) {
            Err(error) if matches!(error.kind(), ErrorKind::NoInterface) => return Ok(gone()),
            other => other?,
        };
        match self.xdp.drop_default(&interface, program) {
            Ok(Dropped::Done) => Ok(Done::Changed),
            Ok(Dropped::Gone) => Ok(gone()),
            Ok(Dropped::InUse(who)) => Ok(Done::Outdated { why: format!("it is in use: {who}") }),
            Err(error) if matches!(error.kind(), ErrorKind::NoInterface) => Ok(gone()),
            Err(error) => Err(error),
        }
    }

    /// Lets go of what has died of a chain.
    fn mend(&self, chain: &ChainAt) -> Result<Done> {
        let Some(interface) = self.find(chain)? else { return Ok(no_longer_there(chain)) };
        match self.xdp.mend(&interface, chain.dispatcher) {
            Ok(Outcome { replaced: None, .. }) => Ok(Done::Nothing),
            Ok(_) => Ok(Done::Changed),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotAttached | ErrorKind::NoInterface) =>
            {
                Ok(no_longer_there(chain))
            }
            Err(error) => Err(error),
        }
    }

    /// Pins again what runs and is not pinned.
    fn adopt(&self, store: &Store, chain: &ChainAt, into: &Path, slots: &[usize]) -> Result<Done> {
        let Some(interface) = self.find(chain)? else { return Ok(no_longer_there(chain)) };
        let key = key(chain);
        let pins = PinnedDispatcher::at(into.to_owned());
        // A scope of its namespace's, which may be to make; or wherever its other pins are.
        let scope = if into == store.home(&key) {
            Some(store.lock_scope(&chain.netns)?)
        } else {
            store.lock_around(&pins)?
        };
        let Some(scope) = scope.filter(|scope| into.parent() == Some(scope.path())) else {
            return Ok(outdated("the pins would go to another place now"));
        };
        if self.xdp.attached_to(&interface)? != Some(chain.dispatcher) {
            return Ok(no_longer_there(chain));
        }
        if store.find(&key)?.is_some_and(|found| *found.place() != pins) {
            return Ok(outdated("it has pins in another place now"));
        }
        let staging = store.reopen(&scope, &pins)?;
        let changed = self.pin_all((store, &scope), (&staging, &pins), chain.dispatcher, slots);
        if !matches!(changed, Ok(Done::Changed)) {
            store.remove_bare(&scope, &pins);
        }
        changed
    }

    fn pin_all(
        &self,
        (store, lock): (&Store, &Lock),
        (staging, pins): (&Staging<'_>, &PinnedDispatcher),
        dispatcher: u32,
        slots: &[usize],
    ) -> Result<Done> {
        let links = slots::links(self.xdp.kernel())?.slots;
        let mut changed = false;
        for slot in slots {
            let is_it =
                |link: &&SlotLink| link.slot == Some(*slot) && link.target == Some(dispatcher);
            let by_pin = store.pinned_link(pins, *slot)?;
            match links.iter().find(is_it).map(|link| link.id).or(by_pin) {
                Some(link) => changed |= self.pin(lock, staging, *slot, link)?,
                None => return Ok(outdated("the program of a slot has died")),
            }
        }
        Ok(if changed { Done::Changed } else { Done::Nothing })
    }

    /// Pins a slot's link and program, whichever is not.
    fn pin(&self, lock: &Lock, staging: &Staging<'_>, slot: usize, link: u32) -> Result<bool> {
        let kernel = self.xdp.kernel();
        let link = kernel.link_by_id(link).during("open", format!("link {link}"))?;
        let id = kernel.link_info(link.as_fd()).during("query", "the link")?.program;
        let program = kernel.prog_by_id(id).during("open", format!("program {id}"))?;
        let pinned = [
            staging.pin_link(lock, slot, link.as_fd()),
            staging.pin_program(lock, slot, program.as_fd()),
        ];
        let mut changed = false;
        for result in pinned {
            match result {
                Ok(()) => changed = true,
                Err(error) if error.errno() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    /// Moves the pins of a chain to where they belong.
    fn rehome(&self, store: &Store, chain: &ChainAt, from: &Path, to: &Path) -> Result<Done> {
        let Some(interface) = self.find(chain)? else { return Ok(no_longer_there(chain)) };
        let moved = || Ok(outdated("its pins are in another place now"));
        let pins = PinnedDispatcher::at(from.to_owned());
        let rename = |from: &Lock, home: &Lock| {
            if self.xdp.attached_to(&interface)? != Some(chain.dispatcher) {
                return Ok(no_longer_there(chain));
            }
            match store.rename((from, home), &pins, &PinnedDispatcher::at(to.to_owned())) {
                Err(error) if error.errno() == Some(libc::ENOENT) => moved(),
                other => other.map(|()| Done::Changed),
            }
        };
        if from.parent() == to.parent() {
            let Some(scope) = store.lock_around(&pins)? else { return moved() };
            return rename(&scope, &scope);
        }
        for _ in 0..ATTEMPTS {
            let home = store.lock_scope(&chain.netns)?;
            if to.parent() != Some(home.path()) {
                return Ok(outdated("its place is another one now"));
            }
            if let Some(elsewhere) = store.try_lock_around(&pins)? {
                return rename(&elsewhere, &home);
            }
            // One lock at a time is waited for.
            drop(home);
            if store.lock_around(&pins)?.is_none() {
                return moved();
            }
        }
        Err(Error::new("move", from.display(), ErrorKind::Contended { attempts: ATTEMPTS }))
    }

    /// Removes the pins of a dispatcher that no interface has.
    fn remove(&self, store: &Store, path: &Path, dispatcher: u32) -> Result<Done> {
        let pins = PinnedDispatcher::at(path.to_owned());
        if !path.starts_with(store.root()) || pins.id() != Some(dispatcher) {
            let kind = ErrorKind::BadLayout(path.to_owned());
            return Err(Error::new("remove", format!("the pins of dispatcher {dispatcher}"), kind));
        }
        let Some(scope) = store.lock_around(&pins)? else { return Ok(gone()) };
        if !store.is_there(&pins)? {
            return Ok(gone());
        }
        let kernel = self.xdp.kernel();
        if let Some(why) = self.evidence.may_be_used(kernel, scope.path(), dispatcher)? {
            return Ok(Done::Outdated { why });
        }
        for link in store.links_in(&pins)? {
            if let Some(why) = holds_another(kernel, link, dispatcher)? {
                return Ok(Done::Outdated { why });
            }
        }
        store.remove(&scope, &pins).map(|()| Done::Changed)
    }
}

/// Why a link that is pinned among those of a dispatcher is not that one's: then its pin is what keeps a program running
/// in another.
fn holds_another(kernel: &Kernel, link: u32, dispatcher: u32) -> Result<Option<String>> {
    let of = || format!("link {link}");
    let fd = match kernel.link_by_id(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.during("open", of())?,
    };
    let target = match kernel.link_info(fd.as_fd()).during("query", of())?.kind {
        LinkKind::Tracing { target, .. } if target != 0 => target,
        _ => dispatcher,
    };
    let why = || format!("link {link}, which is pinned there, is in dispatcher {target}");
    Ok((target != dispatcher).then(why))
}

fn remove_scope(store: &Store, path: &Path, has_note: bool) -> Result<Done> {
    if !has_note {
        let is_done = store.remove_bare_scope(path)?;
        return Ok(if is_done { Done::Changed } else { outdated("it is another one now") });
    }
    if store.is_draft(path) {
        return Ok(if store.remove_draft()? { Done::Changed } else { Done::Nothing });
    }
    // It goes when it is let go of, if nothing is in it.
    drop(store.lock_existing(path)?);
    let pins = PinnedDispatcher::at(path.to_owned());
    Ok(if store.is_there(&pins)? { outdated("something is in it now") } else { Done::Changed })
}

fn key(chain: &ChainAt) -> PinKey<'_> {
    PinKey { netns: &chain.netns, ifindex: chain.ifindex, dispatcher: chain.dispatcher }
}

fn outdated(why: &str) -> Done {
    Done::Outdated { why: why.to_owned() }
}

fn gone() -> Done {
    outdated("it has gone")
}

fn no_longer_there(chain: &ChainAt) -> Done {
    Done::Outdated { why: format!("{} is not there any more", chain.place()) }
}
