//! The same deaths of C libxdp, for comparison. It may leave anything behind; our recovery harms no chain that lives.

use super::call::{Call, points};
use super::operation::{self, COUNTER, FILTER, recover};
use super::support::lab::{Pair, UPLINK};
use super::support::peer::Peer;
use super::support::traffic::{Counts, Traffic};
use super::support::{Baseline, kernel, names, object, pins, pins_of};
use super::table::{Row, Table};
use super::victim::Original;
use anyhow::{Context, Result, ensure};
use oxdp::{Chain, EmptyDispatcher, Interface, Legacy, Mode, Occupant, ProtocolVersion, Xdp};
use std::path::PathBuf;

/// What C libxdp is made to do.
pub(super) struct Deed {
    name: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

pub(super) const DEEDS: [Deed; 3] = [
    Deed { name: "attach to an empty interface", before: &[], after: &[FILTER] },
    Deed { name: "add to a chain of one", before: &[FILTER], after: &[FILTER, COUNTER] },
    Deed { name: "take one of two out", before: &[FILTER, COUNTER], after: &[FILTER] },
];

/// The kernels take turns with the libraries: both are tried on old ones and new ones.
pub(super) fn library() -> Result<(&'static str, ProtocolVersion)> {
    let is_old = matches!(kernel()?, (5, _) | (6, 12));
    Ok(if is_old { ("1.3", ProtocolVersion::V2) } else { ("1.6", ProtocolVersion::V3) })
}

/// What came of all the deaths.
#[derive(Debug, Default)]
pub(super) struct Tally {
    operation: String,
    calls: usize,
    killed: usize,
    /// What ran after it: one of the two chains, whole, or something else.
    old: usize,
    new: usize,
    other: usize,
    /// How often it left pins that are of no use, and how often all was clean after a recovery.
    left_pins: usize,
    recovered: usize,
    /// Packets to each port, and those that came past a filter that is in both chains.
    sent: usize,
    leaked: usize,
}

impl Row for Tally {
    fn operation(&self) -> String {
        self.operation.clone()
    }

    fn cells(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("calls", self.calls),
            ("killed", self.killed),
            ("old", self.old),
            ("new", self.new),
            ("neither", self.other),
            ("left pins", self.left_pins),
            ("recovered", self.recovered),
            ("sent", self.sent),
            ("leaked", self.leaked),
        ]
    }
}

pub(super) struct Bench<'a> {
    deed: &'a Deed,
    original: Original,
    /// Makes what is there before the deed.
    peer: Peer,
    interface: Interface,
    /// As they see it.
    xdp: Xdp,
    traffic: &'a Traffic,
    mark: Counts,
    baseline: Baseline,
    tally: Tally,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        deed: &'a Deed,
        (library, version): (&'static str, ProtocolVersion),
        pair: &Pair,
        traffic: &'a Traffic,
    ) -> Result<Self> {
        let interface = pair.interface()?;
        let builder = Xdp::builder().mount_bpffs(true).layout(Legacy);
        let xdp = builder.protocol_version(version).build()?;
        // What an Xdp keeps open is there from here on.
        xdp.attach(&interface, &mut operation::load(COUNTER)?, Mode::Native)?;
        xdp.detach_all(&interface)?;
        let peer = Peer::start(library, &pair.near.name)?;
        let operation = format!("{library}: {}", deed.name);
        Ok(Self {
            deed,
            original: original(library, &pair.near.name)?,
            peer,
            interface,
            xdp,
            traffic,
            mark: Counts::default(),
            baseline: Baseline::take()?,
            tally: Tally { operation, ..Tally::default() },
        })
    }

    pub(super) fn kill_everywhere(mut self, table: &mut Table<Tally>) -> Result<()> {
        let result = self.kill_at_each_call().with_context(|| self.tally.operation.clone());
        table.push(self.tally);
        result
    }

    fn kill_at_each_call(&mut self) -> Result<()> {
        self.set_up()?;
        let calls = self.original.calls(&self.command()?)?;
        ensure!(is(&self.xdp.inspect(&self.interface)?, self.deed.after), "it did nothing");
        self.take_down()?;
        self.tally.calls = calls.len();
        let mut is_set_up = false;
        for index in points(&calls)? {
            if !is_set_up {
                self.set_up()?;
            }
            let place =
                || format!("killed in place of call {index} of {}, {}", calls.len(), calls[index]);
            let left_a_trace = self.kill(&calls, index).with_context(place)?;
            if left_a_trace {
                self.take_down()?;
            }
            is_set_up = !left_a_trace;
        }
        if is_set_up { self.take_down() } else { Ok(()) }
    }

    /// Whether anything is different afterwards.
    fn kill(&mut self, calls: &[Call], index: usize) -> Result<bool> {
        let nth = calls[..index].iter().filter(|earlier| earlier.is_like(calls[index])).count();
        let before = (self.xdp.inspect(&self.interface)?, pins()?);
        self.original.die(&self.command()?, calls[index], nth)?;
        let after = (self.xdp.inspect(&self.interface)?, pins()?);
        self.count(&after.0)?;
        self.recovers(&after.0)?;
        Ok(after != before)
    }

    fn count(&mut self, occupant: &Occupant) -> Result<()> {
        self.tally.killed += 1;
        let tally = match occupant {
            occupant if is(occupant, self.deed.before) => &mut self.tally.old,
            occupant if is(occupant, self.deed.after) => &mut self.tally.new,
            _ => &mut self.tally.other,
        };
        *tally += 1;
        self.tally.left_pins += usize::from(pins()? != self.expected(occupant.chain())?);
        let now = self.traffic.counts()?;
        let counts = now.since(self.mark);
        self.mark = now;
        self.tally.sent += counts.sent;
        if !self.deed.before.is_empty() {
            self.tally.leaked += counts.blocked;
        }
        Ok(())
    }

    /// What is whole is left as it is, and nothing else remains.
    fn recovers(&mut self, before: &Occupant) -> Result<()> {
        recover(&self.xdp)?;
        let after = self.xdp.inspect(&self.interface)?;
        if before.chain().is_none_or(Chain::is_whole) {
            ensure!(after == *before, "recovery made {after:?} of {before:?}");
        }
        let plan = self.xdp.inventory()?.plan(EmptyDispatcher::Remove);
        ensure!(!plan.is_change(), "still to be recovered:\n{plan}");
        self.tally.recovered += usize::from(pins()? == self.expected(after.chain())?);
        Ok(())
    }

    /// What should be pinned, with this chain.
    fn expected(&self, chain: Option<&Chain>) -> Result<Vec<PathBuf>> {
        let mut expected = self.baseline.pins().to_vec();
        if let Some(chain) = chain.filter(|chain| chain.is_whole()) {
            expected.extend(pins_of(chain)?);
        }
        expected.sort();
        Ok(expected)
    }

    /// Made by C libxdp too.
    fn set_up(&mut self) -> Result<()> {
        for program in self.deed.before {
            self.peer.tell(&attach(program))?;
        }
        self.mark = self.traffic.counts()?;
        Ok(())
    }

    fn take_down(&self) -> Result<()> {
        if self.xdp.inspect(&self.interface)? != Occupant::Empty {
            self.xdp.detach_all(&self.interface)?;
        }
        self.sweep()?;
        self.baseline.assert_restored()
    }

    /// Removes what recovery does not know: a link that C libxdp pins to try out a dispatcher, outside of any directory.
    fn sweep(&self) -> Result<()> {
        for pin in pins()?.iter().filter(|pin| !self.baseline.pins().contains(pin)) {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            ensure!(name.starts_with("prog-test-link-"), "left: {}", pin.display());
            std::fs::remove_file(pin)?;
        }
        Ok(())
    }

    fn command(&self) -> Result<String> {
        let coming = self.deed.after.iter().find(|name| !self.deed.before.contains(name));
        if let Some(coming) = coming {
            return Ok(attach(coming));
        }
        let occupant = self.xdp.inspect(&self.interface)?;
        let last = occupant.chain().and_then(|chain| chain.members.last()?.component.as_ref());
        Ok(format!("detach {UPLINK} {}", last.context("a chain of two")?.id))
    }
}

fn original(library: &str, netns: &str) -> Result<Original> {
    Original::start(&mut Peer::command(library, netns), Some("version"), None)
}

fn attach(program: &str) -> String {
    format!("attach {UPLINK} native {}", object(&format!("{program}.o")).display())
}

/// Whether just these programs run, in a chain that is whole.
fn is(occupant: &Occupant, programs: &[&str]) -> bool {
    match occupant {
        Occupant::Empty => programs.is_empty(),
        Occupant::Chain(chain) => chain.is_whole() && names(chain) == programs,
        _ => false,
    }
}
