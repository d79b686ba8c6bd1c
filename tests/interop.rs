//! C libxdp 1.3.1 (protocol version 2) and 1.6 (version 3) and we, on the same chains. Needs freplace, so `make test`
//! runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{
    AttachBy, ChainActions, ErrorKind, Interface, Legacy, MAX_PROGRAMS, Mode, Occupant, Program,
    ProtocolVersion, Xdp,
};
use support::lab::Pair;
use support::peer::Peer;
use support::{Baseline, chain, counter, filter, id, object, program};

/// The third is ours, as C programs have it.
const VERSIONS: [(&str, ProtocolVersion); 3] =
    [("1.3", ProtocolVersion::V2), ("1.6", ProtocolVersion::V3), ("own", ProtocolVersion::V3)];

/// Where C libxdp looks for pins, and in its version.
fn xdp(version: ProtocolVersion) -> Result<Xdp> {
    let builder = Xdp::builder().mount_bpffs(true).layout(Legacy);
    Ok(builder.protocol_version(version).build()?)
}

/// One of the two that work on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    We,
    They,
}

struct Bench {
    xdp: Xdp,
    interface: Interface,
    peer: Peer,
    version: u8,
}

impl Bench {
    fn new(pair: &Pair, library: &str, version: ProtocolVersion) -> Result<Self> {
        let peer = Peer::start(library, &pair.near.name)?;
        Ok(Self {
            xdp: xdp(version)?,
            interface: pair.interface()?,
            peer,
            version: version.number(),
        })
    }

    /// Adds one of three programs, and tells its id.
    fn add(&mut self, who: Who, which: usize) -> Result<u32> {
        let (name, function, priority) = [
            ("udp_filter.o", "udp_filter", 10),
            ("packet_counter.o", "packet_counter", 20),
            ("frags_pass.o", "frags_pass_with_a_long_name", 15),
        ][which];
        if who == Who::We {
            let mut program = program(name)?;
            program.set_priority(priority);
            self.xdp.attach(&self.interface, &mut program, Mode::Native)?;
            return Ok(id(&program));
        }
        let path = object(name);
        let spec = format!("{},{function},{priority},", path.display());
        let lines = self.peer.tell(&format!("attach uplink native {spec}"))?;
        let line = lines.iter().find_map(|line| line.strip_prefix("program "));
        Ok(line.and_then(|line| line.split(' ').next()).context("an id")?.parse()?)
    }

    fn remove(&mut self, who: Who, program: u32) -> Result<()> {
        match who {
            Who::We => drop(self.xdp.detach(&self.interface, program)?),
            Who::They => drop(self.peer.tell(&format!("detach uplink {program}"))?),
        }
        Ok(())
    }

    /// What both say of the chain, which must be the same.
    fn both_see(&mut self, programs: usize) -> Result<()> {
        let theirs = self.peer.tell("list uplink")?;
        let ours = match self.xdp.inspect(&self.interface)? {
            Occupant::Empty => vec!["none".to_owned()],
            Occupant::Chain(chain) => {
                ensure!(chain.is_whole() && chain.version == self.version, "{chain:?}");
                let (frags, version) = (u8::from(chain.has_frags), chain.version);
                let head = format!("dispatcher {} native frags={frags}", chain.dispatcher);
                let member = |member: &oxdp::Member| {
                    let component = member.component.as_ref().unwrap();
                    let tag = component.tag.iter().map(|byte| format!("{byte:02x}"));
                    let actions = member.actions.bits();
                    let (slot, priority) = (member.slot, member.priority);
                    let (id, name) = (component.id, &component.name);
                    let tag = tag.collect::<String>();
                    format!("member {slot} {priority} {actions:#x} {id} {name} {tag}")
                };
                let head = format!("{head} version={version}");
                std::iter::once(head).chain(chain.members.iter().map(member)).collect()
            }
            other => bail!("{other:?}"),
        };
        ensure!(ours == theirs, "we see {ours:#?}, they see {theirs:#?}");
        ensure!(ours.len() == programs + usize::from(programs > 0 || ours[0] == "none"));
        Ok(())
    }
}

/// So that what follows is no talk of oxdp, or of one libxdp, with itself.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_libraries_are_really_there() -> Result<()> {
    let pair = Pair::new("versions", 10)?;
    let mut files = Vec::new();
    for (library, version) in VERSIONS {
        let told = Peer::start(library, &pair.near.name)?.tell("version")?.join("\n");
        let file = match library {
            "own" => "/own/libxdp.so.1".to_owned(),
            version => format!("libxdp.so.{version}."),
        };
        ensure!(told.contains(&file), "{told}");
        ensure!(told.contains(&format!("dispatcher {}", version.number())), "{told}");
        files.push(told);
    }
    let all = files.len();
    files.sort();
    files.dedup();
    ensure!(files.len() == all, "{files:?}");
    Ok(())
}

/// Three programs are added and taken out, each by them or by us: every way to share that out, and every order of taking
/// out. After each step both see the same chain, whole.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn each_adds_to_and_removes_from_the_other_s_chains() -> Result<()> {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (library, version) in VERSIONS {
        let baseline = Baseline::take()?;
        {
            let pair = Pair::new("orders", 10)?;
            let mut bench = Bench::new(&pair, library, version)?;
            for deal in 0..64_usize {
                let who = |turn: usize| if deal >> turn & 1 == 0 { Who::We } else { Who::They };
                let order = ORDERS[deal % ORDERS.len()];
                let mut ids = [0; 3];
                let step = |turn: usize| format!("libxdp {library}, deal {deal:06b}, turn {turn}");
                for (turn, which) in order.into_iter().rev().enumerate() {
                    ids[which] = bench.add(who(turn), which).with_context(|| step(turn))?;
                    bench.both_see(turn + 1).with_context(|| step(turn))?;
                }
                if deal % 16 == 5 {
                    ensure!(pair.through(7777)? == 0 && pair.through(8888)? == 10, "{}", step(3));
                }
                for (turn, which) in (3..).zip(order) {
                    bench.remove(who(turn), ids[which]).with_context(|| step(turn))?;
                    bench.both_see(5 - turn).with_context(|| step(turn))?;
                }
            }
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

/// A component that C libxdp loaded, attached again by us and the other way round.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn each_attaches_what_the_other_has_loaded() -> Result<()> {
    for (library, version) in VERSIONS {
        let baseline = Baseline::take()?;
        {
            let (pair, other) = (Pair::new("loaded", 10)?, Pair::new("second", 11)?);
            let mut here = Bench::new(&pair, library, version)?;
            let mut there = Bench::new(&other, library, version)?;
            let theirs = here.add(Who::They, 2)?;
            let mut again = Program::from_id(theirs)?;
            ensure!(again.name() == "frags_pass_with_a_long_name", "{again:?}");
            again.set_frags(true);
            there.xdp.attach(&there.interface, &mut again, Mode::Native)?;
            there.both_see(1)?;
            let ours = here.add(Who::We, 0)?;
            here.both_see(2)?;
            there.peer.tell(&format!("attach-id uplink native {ours}"))?;
            there.both_see(2)?;
            ensure!(other.through(7777)? == 0);
            here.peer.tell("detach-all uplink")?;
            there.xdp.detach_all(&there.interface)?;
            here.both_see(0)?;
            there.both_see(0)?;
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_eleventh_program_is_refused_by_both() -> Result<()> {
    for (library, version) in VERSIONS {
        let baseline = Baseline::take()?;
        {
            let pair = Pair::new("eleven", 10)?;
            let mut bench = Bench::new(&pair, library, version)?;
            for number in 0..MAX_PROGRAMS {
                bench.add(if number % 2 == 0 { Who::They } else { Who::We }, 1)?;
            }
            bench.both_see(MAX_PROGRAMS)?;
            let error = bench.xdp.attach(&bench.interface, &mut counter()?, Mode::Native);
            ensure!(matches!(error.unwrap_err().kind(), ErrorKind::ChainFull { max: 10 }));
            let path = object("packet_counter.o");
            let refused = bench.peer.ask(&format!("attach uplink native {}", path.display()))?;
            ensure!(refused.unwrap_err().errno == 7, "E2BIG");
            bench.both_see(MAX_PROGRAMS)?;
            bench.peer.tell("detach-all uplink")?;
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

/// Settings that C libxdp made count for us, and ours for it, also those that only a transaction of ours can change.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn settings_survive_each_other_s_changes() -> Result<()> {
    for (library, version) in VERSIONS {
        let baseline = Baseline::take()?;
        {
            let pair = Pair::new("settings", 10)?;
            let mut bench = Bench::new(&pair, library, version)?;
            let path = object("udp_filter.o");
            let spec = format!("{},,33,pass+drop", path.display());
            bench.peer.tell(&format!("attach uplink native {spec}"))?;
            let theirs = chain(&bench.xdp, &bench.interface)?;
            ensure!(theirs.members[0].priority == 33, "{theirs:?}");
            ensure!(theirs.members[0].actions == ChainActions::PASS | ChainActions::DROP);
            let their_id = theirs.members[0].component.as_ref().unwrap().id;
            let mut ours = filter(8888)?;
            let edit = bench.xdp.edit(&bench.interface).set_priority(their_id, 5);
            edit.set_chain_actions(their_id, ChainActions::PASS).insert(&mut ours).commit()?;
            bench.both_see(2)?;
            bench.add(Who::They, 1)?;
            bench.both_see(3)?;
            let mut other = filter(9999)?;
            bench.xdp.edit(&bench.interface).replace(their_id, &mut other).commit()?;
            bench.both_see(3)?;
            bench.remove(Who::They, id(&other))?;
            bench.both_see(2)?;
            ensure!(pair.through(8888)? == 0 && pair.through(9999)? == 10);
            bench.xdp.detach_all(&bench.interface)?;
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

/// What a C library of the other version makes of a chain, and what its `clean` does to one that is alive.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_other_version_and_a_clean_do_no_harm() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("harm", 10)?;
        let mut second = Bench::new(&pair, "1.3", ProtocolVersion::V2)?;
        let mut third = Bench::new(&pair, "1.6", ProtocolVersion::V3)?;
        let path = object("packet_counter.o");
        let attach = format!("attach uplink native {}", path.display());
        for by in [AttachBy::Netlink, AttachBy::Link] {
            for version in [2, 3] {
                let xdp = if version == 2 { &second.xdp } else { &third.xdp };
                let mut program = filter(7777)?;
                let edit = xdp.edit(&second.interface).insert(&mut program).attach_by(by);
                edit.mode(Mode::Native).commit()?;
                let alive = chain(xdp, &second.interface)?;
                ensure!(alive.version == version);
                let other = if version == 2 { &mut third.peer } else { &mut second.peer };
                ensure!(other.ask(&attach)?.is_err(), "it adds to a chain of another version");
                for peer in [&mut second.peer, &mut third.peer] {
                    peer.tell("clean")?;
                }
                ensure!(chain(&third.xdp, &third.interface)? == alive);
                ensure!(pair.through(7777)? == 0);
                third.xdp.detach_all(&third.interface)?;
            }
        }
    }
    baseline.assert_restored()
}
