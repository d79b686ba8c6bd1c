//! From an inventory to a plan. Pure.

use super::inventory::{
    Inventory, ScopeOwner, SeenChain, SeenDefault, SeenInterface, SeenNetns, SeenPins, SeenProgram,
};
use super::plan::{Action, ChainAt, EmptyDispatcher, PlanLine, RecoveryPlan};
use crate::dispatcher::SlotLink;
use crate::dispatcher::slots::{self, Fate};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

impl Inventory {
    /// What is to be done about it. Pure: the same inventory gives the same plan.
    pub fn plan(&self, empty: EmptyDispatcher) -> RecoveryPlan {
        let planner = Planner::new(self, empty);
        let mut lines = Vec::new();
        for netns in &self.namespaces {
            for interface in &netns.interfaces {
                planner.interface(netns, interface, &mut lines);
            }
        }
        lines.extend(self.pins.iter().filter_map(|pins| planner.pins(pins)));
        lines.extend(planner.scopes(&lines));
        RecoveryPlan { lines }
    }
}

/// Looks things up in an inventory.
struct Planner<'a> {
    inventory: &'a Inventory,
    empty: EmptyDispatcher,
    /// How many interfaces have each program.
    attached: BTreeMap<u32, usize>,
    /// The directories of each dispatcher.
    pins: BTreeMap<u32, Vec<&'a SeenPins>>,
    /// By their ids.
    links: BTreeMap<u32, &'a SlotLink>,
    /// By the program that they are in, or that they are in whichever.
    links_in: BTreeMap<Option<u32>, Vec<SlotLink>>,
    owners: BTreeMap<&'a Path, &'a ScopeOwner>,
}

/// The links that matter to the slots of one dispatcher.
struct Around {
    links: Vec<SlotLink>,
    elsewhere: BTreeSet<u32>,
}

/// What is known of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// It runs its program, and both pins are there.
    Whole,
    /// It runs its program, and a pin is lost.
    Unpinned,
    /// It runs nothing.
    Dead,
    /// That cannot be told, and why.
    Unknown(String),
}

impl<'a> Planner<'a> {
    fn new(inventory: &'a Inventory, empty: EmptyDispatcher) -> Self {
        let mut attached = BTreeMap::new();
        for interface in inventory.namespaces.iter().flat_map(|netns| &netns.interfaces) {
            *attached.entry(interface.program).or_default() += 1;
        }
        let mut pins: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for found in &inventory.pins {
            pins.entry(found.dispatcher).or_default().push(found);
        }
        let mut links_in: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for link in &inventory.links {
            links_in.entry(link.target).or_default().push(*link);
        }
        let links = inventory.links.iter().map(|link| (link.id, link)).collect();
        let owner = |scope: &'a super::Scope| (scope.path.as_path(), &scope.owner);
        let owners = inventory.scopes.iter().map(owner).collect();
        Self { inventory, empty, attached, pins, links, links_in, owners }
    }

    fn interface(&self, netns: &SeenNetns, interface: &SeenInterface, lines: &mut Vec<PlanLine>) {
        let at = ChainAt {
            dispatcher: interface.program,
            netns: netns.id.clone(),
            netns_label: netns.label.clone(),
            ifindex: interface.ifindex,
            interface: interface.name.clone(),
        };
        let reason = match &interface.what {
            SeenProgram::Chain(chain) => {
                let before = lines.len();
                self.chain(at.clone(), chain, lines);
                return drop_defaults(&at, &interface.defaults, before, lines);
            }
            SeenProgram::Foreign { .. } if !interface.defaults.is_empty() => {
                return lines.extend(interface.defaults.iter().map(|seen| alone(&at, seen)));
            }
            SeenProgram::Foreign { name } => {
                format!("program {name} (id {}) is part of no chain", interface.program)
            }
            SeenProgram::Unknown { why } => {
                format!("program {} cannot be looked at: {why}", interface.program)
            }
        };
        lines.push(leave(at.place(), reason));
    }

    /// What is to be done about a chain: at most its lost pins, then its dead slots or its place.
    fn chain(&self, at: ChainAt, chain: &SeenChain, lines: &mut Vec<PlanLine>) {
        let pins = self.pins_of(at.dispatcher);
        if self.attached.get(&at.dispatcher).is_some_and(|count| *count > 1) {
            return lines.push(leave(at.to_string(), "several interfaces have it".into()));
        }
        let around = self.around(at.dispatcher, pins);
        let states: Vec<_> =
            (0..chain.slots).map(|slot| self.slot(&around, at.dispatcher, slot, pins)).collect();
        let unpinned = slots_that(&states, |state| *state == Slot::Unpinned);
        let dead = slots_that(&states, |state| *state == Slot::Dead);
        let unknown = states.iter().find_map(|state| match state {
            Slot::Unknown(why) => Some(why.as_str()),
            _ => None,
        });
        let is_damaged = !unpinned.is_empty()
            || dead.len() == chain.slots
            || !dead.is_empty()
            || unknown.is_some();
        if is_damaged && let Some(why) = self.whose_it_is(&at, pins).or(unknown.map(str::to_owned))
        {
            return lines.push(leave(at.to_string(), why));
        }
        if dead.len() == chain.slots {
            return lines.push(self.empty_dispatcher(at, chain));
        }
        let before = lines.len();
        if !unpinned.is_empty() {
            let into = pins.map_or(&chain.home, |pins| &pins.path).clone();
            let reason = "its programs run, and their pins are lost".to_owned();
            lines.push(line(Action::Adopt { chain: at.clone(), into, slots: unpinned }, reason));
        }
        if !dead.is_empty() {
            lines.push(drop_slots(at, chain, dead));
        } else if let Some((pins, reason)) =
            pins.and_then(|pins| Some((pins, self.misplaced(pins, &at, chain)?)))
        {
            let (from, to) = (pins.path.clone(), chain.home.clone());
            lines.push(line(Action::Rehome { chain: at, from, to }, reason));
        } else if lines.len() == before {
            let reason = match pins {
                Some(pins) => format!("whole, pinned in {}", pins.path.display()),
                None => "whole".into(),
            };
            lines.push(line(Action::Nothing { chain: at }, reason));
        }
    }

    /// Why a damaged chain is not ours to mend.
    fn whose_it_is(&self, at: &ChainAt, pins: Option<&SeenPins>) -> Option<String> {
        let elsewhere = self.inventory.elsewhere.iter().find(|e| e.dispatcher == at.dispatcher);
        if let (Some(elsewhere), None) = (elsewhere, pins) {
            return Some(format!(
                "it is pinned in another bpf file system: {}",
                elsewhere.path.display()
            ));
        }
        let (link, _) = self.inventory.held.iter().find(|(_, held)| *held == at.dispatcher)?;
        let is_pinned = pins.is_some_and(|pins| pins.attachment == Some(*link));
        (!is_pinned).then(|| format!("link {link} of a process holds it; it goes when that ends"))
    }

    fn empty_dispatcher(&self, at: ChainAt, chain: &SeenChain) -> PlanLine {
        let reason = match chain.slots {
            0 => "it has no programs: it passes every packet",
            _ => "its programs have died: it passes every packet",
        };
        match self.empty {
            EmptyDispatcher::Remove => line(Action::Detach { chain: at }, reason.into()),
            EmptyDispatcher::Keep => {
                leave(at.to_string(), format!("{reason}; the next attach replaces it"))
            }
        }
    }

    /// The directory of a dispatcher's pins: of several, the one in which most is pinned.
    fn pins_of(&self, dispatcher: u32) -> Option<&'a SeenPins> {
        self.pins.get(&dispatcher)?.iter().copied().max_by_key(|pins| pins.count())
    }

    fn slot(&self, around: &Around, dispatcher: u32, slot: usize, pins: Option<&SeenPins>) -> Slot {
        let pinned = pins.and_then(|pins| pins.slots.iter().find(|pinned| pinned.slot == slot));
        let (program, by_pin) = pinned.map_or((None, None), |pinned| (pinned.program, pinned.link));
        // Before kernel 5.13 a pin is all that tells where a link is.
        let untold = by_pin.and_then(|id| self.links.get(&id).copied());
        let untold = untold.filter(|link| link.target.is_none());
        let is_odd = |path: &&PathBuf| {
            let names = [format!("prog{slot}-link"), format!("prog{slot}-prog")];
            path.file_name().is_some_and(|name| names.iter().any(|own| name == own.as_str()))
        };
        if let Some(odd) = pins.and_then(|pins| pins.unexpected.iter().find(is_odd)) {
            return Slot::Unknown(format!("the protocol did not put {} there", odd.display()));
        }
        let fate = slots::fate(&around.links, &around.elsewhere, dispatcher, slot);
        let link = match (untold, fate) {
            (Some(link), _) | (None, Fate::Held(link)) => link,
            (None, Fate::Dead) => return Slot::Dead,
            (None, Fate::Unknown(link)) => return Slot::Unknown(may_be_in(link, slot)),
        };
        let is_other = |id: Option<u32>, running| id.is_some_and(|id| id != running);
        if is_other(by_pin, link.id) || is_other(program, link.program) {
            return Slot::Unknown(format!("what is pinned of slot {slot} is not what runs there"));
        }
        if by_pin.is_some() && program.is_some() { Slot::Whole } else { Slot::Unpinned }
    }

    /// Why the pins of a chain belong where the layout wants them, if they do: its interface has another number since they
    /// were made, or has left the namespace in whose scope they are. Else they stay, wherever that is: C libxdp, or a user of
    /// another layout, looks for them there.
    fn misplaced(&self, pins: &SeenPins, at: &ChainAt, chain: &SeenChain) -> Option<String> {
        if pins.path == chain.home {
            return None;
        }
        let left = match self.owner(&pins.path) {
            Some(ScopeOwner::Dead { netns }) => {
                format!("a namespace that is dead (inode {})", netns.inode)
            }
            Some(ScopeOwner::Alive { netns } | ScopeOwner::Unseen { netns })
                if !netns.agrees_with(&at.netns) =>
            {
                format!("the namespace with inode {}", netns.inode)
            }
            _ if pins.ifindex != at.ifindex => {
                let (old, new) = (pins.ifindex, at.ifindex);
                return Some(format!("its interface had ifindex {old} and now has {new}"));
            }
            _ => return None,
        };
        Some(format!("its interface has left {left}"))
    }

    fn owner(&self, pins: &Path) -> Option<&'a ScopeOwner> {
        self.owners.get(pins.parent()?).copied()
    }

    /// What is to be done about pins whose dispatcher no interface has.
    fn pins(&self, pins: &SeenPins) -> Option<PlanLine> {
        let what = || pins.path.display().to_string();
        let id = pins.dispatcher;
        if self.attached.contains_key(&id) {
            let is_the_one = self.pins_of(id).is_some_and(|chosen| chosen.path == pins.path);
            let reason = || format!("a second directory of dispatcher {id}, which is attached");
            return (!is_the_one).then(|| leave(what(), reason()));
        }
        if let Some(unexpected) = pins.unexpected.first() {
            return Some(leave(
                what(),
                format!("the protocol did not put {} there", unexpected.display()),
            ));
        }
        if let Some(why) = self.holds_another(pins) {
            return Some(leave(what(), why));
        }
        let remove = |reason: String| {
            Some(line(Action::RemovePins { path: pins.path.clone(), dispatcher: id }, reason))
        };
        if !pins.is_loaded {
            return remove(format!("dispatcher {id} is not in the kernel any more"));
        }
        if let Some((link, _)) = self.inventory.held.iter().find(|(_, held)| *held == id) {
            return Some(leave(
                what(),
                format!("link {link} holds dispatcher {id} on an interface that is not seen"),
            ));
        }
        if let Some(gap) = self.inventory.gaps.first() {
            let reason = format!("no interface that can be seen has dispatcher {id}, but {gap}");
            return Some(leave(what(), reason));
        }
        remove(match self.owner(&pins.path) {
            Some(ScopeOwner::Dead { .. }) => {
                format!("its namespace is dead, and no interface has dispatcher {id}")
            }
            _ => format!("no interface has dispatcher {id}"),
        })
    }

    /// Why pins that go by a dispatcher's name are not that one's: a link keeps the dispatcher that it is in loaded.
    fn holds_another(&self, pins: &SeenPins) -> Option<String> {
        let pinned = pins.slots.iter().filter_map(|slot| slot.link);
        let mut links = pinned.filter_map(|id| self.links.get(&id));
        let is_other = |link: &&&SlotLink| match link.target {
            Some(target) => target != pins.dispatcher,
            None => !pins.is_loaded,
        };
        let link = links.find(is_other)?;
        Some(format!("link {}, which is pinned there, is in another dispatcher", link.id))
    }

    /// The links that may be in a slot of this dispatcher; and, where some do not tell where they are, which of those are
    /// pinned in other places, or for other slots of its own.
    fn around(&self, dispatcher: u32, own: Option<&SeenPins>) -> Around {
        let of = |target| self.links_in.get(&target).into_iter().flatten().copied();
        let links = of(Some(dispatcher)).chain(of(None)).collect();
        if !self.links_in.contains_key(&None) {
            return Around { links, elsewhere: BTreeSet::new() };
        }
        let of_others = |pins: &&SeenPins| pins.dispatcher != dispatcher && pins.is_loaded;
        let pinned = self.inventory.pins.iter().filter(of_others).chain(own);
        let elsewhere = pinned.flat_map(|pins| &pins.slots).filter_map(|slot| slot.link).collect();
        Around { links, elsewhere }
    }

    /// Directories in which nothing is, and into which nothing goes by the lines so far.
    fn scopes(&self, lines: &[PlanLine]) -> Vec<PlanLine> {
        let into: BTreeSet<_> =
            lines.iter().filter_map(|line| line.action.target()?.parent()).collect();
        let empty = |scope: &&super::Scope| scope.is_empty && !into.contains(scope.path.as_path());
        let remove = |scope: &super::Scope| {
            let reason = match scope.owner {
                ScopeOwner::Draft => "left by a process that ended while it made it",
                ScopeOwner::Nobody => "left by a process that ended while it removed it",
                ScopeOwner::Unnoted => return None,
                _ => "no dispatcher is in it",
            };
            Some(line(
                Action::RemoveScope { path: scope.path.clone(), has_note: scope.has_note() },
                reason.into(),
            ))
        };
        self.inventory.scopes.iter().filter(empty).filter_map(remove).collect()
    }
}

/// Takes default programs that nobody uses out of a chain that is not left alone.
fn drop_defaults(at: &ChainAt, defaults: &[SeenDefault], from: usize, lines: &mut Vec<PlanLine>) {
    let is_final =
        |line: &PlanLine| matches!(line.action, Action::LeaveAlone { .. } | Action::Detach { .. });
    let mut unused = defaults.iter().filter(|seen| seen.in_use.is_none()).peekable();
    if unused.peek().is_none() || lines.iter().skip(from).any(is_final) {
        return;
    }
    if matches!(lines.last(), Some(PlanLine { action: Action::Nothing { .. }, .. })) {
        lines.pop();
    }
    lines.extend(unused.map(|seen| drop_default(at, seen)));
}

fn drop_default(at: &ChainAt, seen: &SeenDefault) -> PlanLine {
    let reason = match seen.count {
        Some(1..) => "those who counted as its users have died, and no socket is in its map",
        Some(_) => "its last user has left, and died before it took it off",
        None => "it has no users, and no socket is in its map",
    };
    line(Action::DropDefault { chain: at.clone(), program: seen.program }, reason.into())
}

/// What becomes of one that runs alone.
fn alone(at: &ChainAt, seen: &SeenDefault) -> PlanLine {
    match &seen.in_use {
        None => drop_default(at, seen),
        Some(who) => {
            leave(at.place(), format!("default AF_XDP program {} is in use: {who}", seen.program))
        }
    }
}

fn may_be_in(link: &SlotLink, slot: usize) -> String {
    let id = link.id;
    let why = match link.target {
        None => format!("whether link {id} is in it this kernel does not tell (since 5.13)"),
        Some(_) => format!("link {id} is in none of the dispatcher's slots that are known"),
    };
    format!("slot {slot} has no pinned link, and {why}")
}

fn slots_that(states: &[Slot], wanted: impl Fn(&Slot) -> bool) -> Vec<usize> {
    let slots = states.iter().enumerate().filter(|(_, state)| wanted(state));
    slots.map(|(slot, _)| slot).collect()
}

fn drop_slots(at: ChainAt, chain: &SeenChain, slots: Vec<usize>) -> PlanLine {
    if chain.version < 2 {
        let reason = "some of its programs have died, and chains of version 1 are not changed";
        return leave(at.to_string(), reason.into());
    }
    line(
        Action::DropSlots { chain: at, slots },
        "their programs have died: they run nothing".into(),
    )
}

fn line(action: Action, reason: String) -> PlanLine {
    PlanLine { action, reason }
}

fn leave(what: String, reason: String) -> PlanLine {
    line(Action::LeaveAlone { what }, reason)
}
