//! One operation, killed at every call, and what must be true after each death.

use super::call::{Call, points};
use super::mess::Mess;
use super::operation::{self, COUNTER, LOST, Operation, recover};
use super::support::lab::{Pair, soon};
use super::support::traffic::{Counts, Traffic};
use super::support::{Baseline, counter, names, pins, pins_of};
use super::table::{Row, Table};
use super::victim::Original;
use anyhow::{Context, Result, bail, ensure};
use oxdp::{Census, Chain, EmptyDispatcher, Interface, Mode, Occupant, Program, Xdp};
use std::path::PathBuf;

/// After how many equal looks at the kernel it counts as at rest.
const STILL: usize = 50;

pub(super) struct Stage<'a> {
    operation: &'a Operation,
    original: Original,
    interface: Interface,
    xdp: Xdp,
    traffic: &'a Traffic,
    /// The traffic when it was last looked at.
    mark: Counts,
    mess: Option<Mess>,
    baseline: Baseline,
    census: Census,
    /// The chain as it was made for the next victim, if it was.
    before: Option<State>,
    /// How many programs, maps and links there are with the old chain, and with the new one.
    sizes: [Sizes; 2],
    tally: Tally,
}

type Sizes = [usize; 3];

/// What came of all the deaths.
#[derive(Debug, Default)]
pub(super) struct Tally {
    operation: &'static str,
    /// System calls of the operation, and at how many of them it was killed.
    calls: usize,
    killed: usize,
    /// Which chain ran after it.
    old: usize,
    new: usize,
    passing: usize,
    /// How often nothing was left behind; and if something was, how often a recovery cleaned it, and how often the next
    /// attach worked on it.
    without_trace: usize,
    by_recovery: usize,
    by_attach: usize,
    /// Packets to each port.
    sent: usize,
    /// Those that came to the open port, and those that came past the filter.
    through: usize,
    leaked: usize,
}

impl Row for Tally {
    fn operation(&self) -> String {
        self.operation.to_owned()
    }

    fn cells(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("calls", self.calls),
            ("killed", self.killed),
            ("old", self.old),
            ("new", self.new),
            ("passing", self.passing),
            ("no trace", self.without_trace),
            ("recovered", self.by_recovery),
            ("next attach", self.by_attach),
            ("sent", self.sent),
            ("arrived", self.through),
            ("leaked", self.leaked),
        ]
    }
}

/// Everything that a dead process can have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    occupant: Occupant,
    /// What is on other interfaces.
    others: Vec<Occupant>,
    pins: Vec<PathBuf>,
}

impl State {
    /// To a process that is to do the operation: with the ids of the programs in the chain, 0 for a lost one.
    fn command(&self) -> String {
        let members = self.occupant.chain().map_or(&[][..], |chain| &chain.members);
        let ids = members.iter().map(|member| member.component.as_ref().map_or(0, |c| c.id));
        ids.fold("go".into(), |command, id| format!("{command} {id}"))
    }
}

/// Which chain runs after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Old,
    New,
    /// That of the midst of an operation, which a recovery takes back.
    Passing,
}

/// What comes first after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Recovery,
    Attach,
}

impl<'a> Stage<'a> {
    pub(super) fn new(operation: &'a Operation, pair: &Pair, traffic: &'a Traffic) -> Result<Self> {
        let (xdp, interface) = (operation.xdp()?, pair.interface()?);
        let mess = if operation.mends { Some(Mess::new(pair)?) } else { None };
        // What an Xdp keeps open is there from here on.
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        xdp.detach_all(&interface)?;
        Ok(Self {
            operation,
            original: operation.original(&pair.near.name)?,
            interface,
            xdp,
            traffic,
            mark: Counts::default(),
            mess,
            baseline: Baseline::take()?,
            census: Census::take()?,
            before: None,
            sizes: [[0; 3]; 2],
            tally: Tally { operation: operation.name, ..Tally::default() },
        })
    }

    pub(super) fn kill_everywhere(mut self, table: &mut Table<Tally>) -> Result<()> {
        let result = self.kill_at_each_call().context(self.operation.name);
        table.push(self.tally);
        result
    }

    fn kill_at_each_call(&mut self) -> Result<()> {
        let calls = self.unharmed()?;
        self.tally.calls = calls.len();
        for index in points(&calls)? {
            let (call, before) = (calls[index], &calls[..index]);
            let nth = before.iter().filter(|earlier| earlier.is_like(call)).count();
            let place = || format!("killed in place of call {index} of {}, {call}", calls.len());
            self.kill_at(call, nth).with_context(place)?;
        }
        let has_passed = self.operation.passing.is_empty() || self.tally.passing > 0;
        ensure!(has_passed, "never was there {:?}", self.operation.passing);
        if self.before.is_some() { self.take_down() } else { Ok(()) }
    }

    /// Does the operation without a death; its calls.
    pub(super) fn unharmed(&mut self) -> Result<Vec<Call>> {
        let before = self.set_up()?;
        self.sizes[0] = self.settled_size()?;
        let calls = self.original.calls(&before.command())?;
        let fate = self.fate(&self.occupant()?)?;
        ensure!(fate == Fate::New, "it did nothing");
        self.sizes[1] = self.settled_size()?;
        self.traffic_has_flowed()?;
        ensure!(!recover(&self.xdp)?, "there is something to recover without a death");
        self.is_clean(fate)?;
        self.take_down()?;
        Ok(calls)
    }

    fn kill_at(&mut self, call: Call, nth: usize) -> Result<()> {
        self.tally.killed += 1;
        let (fate, left_a_trace) = self.kill(call, nth, Next::Recovery)?;
        match fate {
            Fate::Old => self.tally.old += 1,
            Fate::New => self.tally.new += 1,
            Fate::Passing => self.tally.passing += 1,
        }
        if !left_a_trace {
            self.tally.without_trace += 1;
        } else if !self.operation.mends {
            self.kill(call, nth, Next::Attach)?;
        }
        Ok(())
    }

    /// Which chain runs after a death, and whether anything else is different from before.
    fn kill(&mut self, call: Call, nth: usize, next: Next) -> Result<(Fate, bool)> {
        let before = match self.before.take() {
            Some(before) => before,
            None => self.set_up()?,
        };
        self.original.die(&before.command(), call, nth)?;
        let state = self.state()?;
        let fate = self.fate(&state.occupant)?;
        self.traffic_has_flowed()?;
        if state == before {
            self.nothing_is_left()?;
            self.before = Some(before);
            return Ok((fate, false));
        }
        match next {
            Next::Recovery => {
                self.recovers(fate)?;
                self.attaches()?;
                self.tally.by_recovery += 1;
            }
            Next::Attach => {
                self.attaches()?;
                recover(&self.xdp)?;
                self.tally.by_attach += 1;
            }
        }
        self.traffic_has_flowed()?;
        self.take_down()?;
        Ok((fate, true))
    }

    /// Makes what is there before the operation.
    fn set_up(&mut self) -> Result<State> {
        let mut programs = Vec::new();
        for name in self.operation.before {
            programs.push(operation::load(name)?);
        }
        let mut coming: Vec<&mut Program> = programs.iter_mut().collect();
        if !coming.is_empty() {
            self.xdp.attach_all(&self.interface, &mut coming, Mode::Native)?;
        }
        self.lose_pins()?;
        if let Some(mess) = &self.mess {
            mess.make(&self.xdp)?;
        }
        self.mark = self.traffic.counts()?;
        self.state()
    }

    /// Of the programs that are to be lost.
    fn lose_pins(&self) -> Result<()> {
        let lost = |(slot, name): (usize, &&str)| (*name == LOST).then_some(slot);
        for slot in self.operation.before.iter().enumerate().filter_map(lost) {
            let occupant = self.occupant()?;
            let pins = occupant.chain().and_then(|chain| chain.pins.clone()).context("pins")?;
            for kind in ["prog", "link"] {
                std::fs::remove_file(pins.join(format!("prog{slot}-{kind}")))?;
            }
        }
        Ok(())
    }

    /// Takes everything off; nothing of it may be left.
    fn take_down(&mut self) -> Result<()> {
        self.before = None;
        if let Some(mess) = &self.mess {
            recover(&self.xdp)?;
            mess.take_down(&self.xdp)?;
        }
        if self.occupant()? != Occupant::Empty {
            self.xdp.detach_all(&self.interface)?;
        }
        self.baseline.assert_restored()
    }

    fn occupant(&self) -> Result<Occupant> {
        Ok(self.xdp.inspect(&self.interface)?)
    }

    fn state(&self) -> Result<State> {
        let others = self.mess.as_ref().map_or(Ok(Vec::new()), |mess| mess.occupants(&self.xdp));
        Ok(State { occupant: self.occupant()?, others: others?, pins: pins()? })
    }

    /// What came into the kernel since the interface was empty.
    fn size(&self) -> Result<Sizes> {
        let census = Census::take()?.since(&self.census);
        Ok([census.programs.len(), census.maps.len(), census.links.len()])
    }

    /// The same, once nothing goes any more: the kernel frees some time after the last user has gone.
    fn settled_size(&self) -> Result<Sizes> {
        let mut looks = vec![self.size()?];
        let is_settled = || {
            looks.push(self.size()?);
            Ok(looks.iter().rev().take_while(|size| looks.last() == Some(size)).count() > STILL)
        };
        ensure!(soon(is_settled)?, "the kernel never comes to rest: {looks:?}");
        self.size()
    }

    fn fate(&self, occupant: &Occupant) -> Result<Fate> {
        let programs = match occupant {
            Occupant::Empty => Vec::new(),
            Occupant::Chain(chain) => names(chain),
            other => bail!("no chain: {other:?}"),
        };
        let is_whole = occupant.chain().is_none_or(Chain::is_whole);
        ensure!(is_whole || self.operation.before.contains(&LOST), "not whole: {occupant:?}");
        if programs == self.operation.after {
            return Ok(Fate::New);
        }
        if !self.operation.passing.is_empty() && programs == self.operation.passing {
            return Ok(Fate::Passing);
        }
        ensure!(
            programs == self.operation.before,
            "neither the old nor the new chain: {occupant:?}"
        );
        Ok(Fate::Old)
    }

    /// Packets have got through to the open port; and to the blocked one none, where a filter is in both chains.
    fn traffic_has_flowed(&mut self) -> Result<()> {
        let now = self.traffic.counts()?;
        let counts = now.since(self.mark);
        self.mark = now;
        self.tally.sent += counts.sent;
        self.tally.through += counts.open;
        ensure!(counts.open > 0, "no packet gets through any more: {counts:?}");
        if self.operation.is_filtered() {
            self.tally.leaked += counts.blocked;
            ensure!(counts.blocked == 0, "the filter let packets through: {counts:?}");
        }
        Ok(())
    }

    /// A victim that changed neither the chain nor the pins has left nothing else, and nothing is to be done.
    fn nothing_is_left(&self) -> Result<()> {
        let is_gone = || Ok(self.size()? == self.sizes[0]);
        ensure!(soon(is_gone)?, "{:?} in the kernel, not {:?}", self.size()?, self.sizes[0]);
        if !self.operation.mends {
            let plan = self.xdp.inventory()?.plan(EmptyDispatcher::Remove);
            ensure!(!plan.is_change(), "nothing is left, but there is a plan:\n{plan}");
        }
        Ok(())
    }

    /// One recovery makes everything clean, and changes no chain that is whole.
    fn recovers(&self, fate: Fate) -> Result<()> {
        let before = self.occupant()?;
        recover(&self.xdp)?;
        let mends = self.operation.mends || fate == Fate::Passing;
        let (after, fate) = (self.occupant()?, if mends { Fate::New } else { fate });
        ensure!(mends || after == before, "recovery made {after:?} of {before:?}");
        ensure!(self.fate(&after)? == fate, "recovered: {after:?}");
        self.is_clean(fate)
    }

    /// There is nothing to recover, no pin too many, and nothing in the kernel but what belongs to the chain.
    fn is_clean(&self, fate: Fate) -> Result<()> {
        let plan = self.xdp.inventory()?.plan(EmptyDispatcher::Remove);
        ensure!(!plan.is_change(), "still to be recovered:\n{plan}");
        let mut expected = self.baseline.pins().to_vec();
        if let Some(chain) = self.occupant()?.chain() {
            expected.extend(pins_of(chain)?);
        }
        if let Some(mess) = &self.mess {
            expected.extend(mess.settled(&self.xdp)?);
        }
        expected.sort();
        expected.dedup();
        ensure!(pins()? == expected, "pinned: {:?}, not {expected:?}", pins()?);
        let size = self.sizes[usize::from(fate == Fate::New)];
        ensure!(
            soon(|| Ok(self.size()? == size))?,
            "{:?} in the kernel, not {size:?}",
            self.size()?
        );
        Ok(())
    }

    /// Whatever has happened, the next attach works.
    fn attaches(&self) -> Result<()> {
        let before = self.occupant()?;
        self.xdp
            .attach(&self.interface, &mut counter()?, Mode::Native)
            .context("the next attach")?;
        let after = self.occupant()?;
        let mut expected = before.chain().map(names).unwrap_or_default();
        expected.push(COUNTER);
        let chain = after.chain().context("no chain after an attach")?;
        let mut found = names(chain);
        expected.sort_unstable();
        found.sort_unstable();
        ensure!(chain.is_whole() && found == expected, "the next attach left {chain:?}");
        Ok(())
    }
}
