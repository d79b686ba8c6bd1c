//! Eight processes, half of them C libxdp's, change one chain at random while packets flow. Needs freplace, so
//! `make test` runs this in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{
    Builder, ErrorKind, Interface, Legacy, Mode, Netns, NetnsInode, Occupant, Program,
    ProtocolVersion, Xdp,
};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::lab::{Pair, UPLINK, received, soon};
use support::peer::Peer;
use support::{Baseline, chain, counter, filter, id, kernel, names, object, seen};

const BLOCKED: u16 = 7777;
/// Processes of each kind, and changes of each process.
const PROCESSES: usize = 4;
const CHANGES: usize = 200;

/// What tells a child where and what to do.
const NETNS: &str = "OXDP_TEST_NETNS";
const SEED: &str = "OXDP_TEST_SEED";

/// What C libxdp may answer while others change the chain under it: EBUSY where it lost a race or met a chain half-way
/// through, ENOENT where the chain, or its program's place in it, was gone when it looked again, EAGAIN for a race that it
/// lost for good.
const THEIR_ERRORS: [i32; 3] = [16, 2, 11];

fn builder() -> Builder {
    Xdp::builder().mount_bpffs(true).layout(Legacy)
}

/// The kernels take turns with the libraries: both are tried on old ones and new ones.
fn library() -> Result<(&'static str, ProtocolVersion)> {
    let is_old = matches!(kernel()?, (5, _) | (6, 12));
    let chosen = std::env::var("OXDP_FIRE_LIBRARY").ok();
    let is_old = chosen.map_or(is_old, |library| library == "1.3");
    Ok(if is_old { ("1.3", ProtocolVersion::V2) } else { ("1.6", ProtocolVersion::V3) })
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn eight_processes_change_one_chain_under_fire() -> Result<()> {
    let (library, version) = library()?;
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("fire", 10)?;
        let interface = pair.interface()?;
        let xdp = builder().protocol_version(version).build()?;
        let mut guard = filter(BLOCKED)?;
        xdp.attach(&interface, &mut guard, Mode::Native)?;
        let socket = pair.listen(BLOCKED)?;
        let done = AtomicBool::new(false);
        let start = Instant::now();
        let (sent, given_up) = std::thread::scope(|scope| -> Result<(u64, Vec<u32>)> {
            let sender = scope.spawn(|| send_until(&pair, &done));
            let pair = &pair;
            let theirs = |n| scope.spawn(move || their_changes(library, pair, n));
            let peers: Vec<_> = (0..PROCESSES).map(theirs).collect();
            let one_of_ours = |n| scope.spawn(move || our_process(pair, n));
            let ours: Vec<_> = (0..PROCESSES).map(one_of_ours).collect();
            let mut failures = BTreeMap::new();
            let mut changes = 0;
            let mut given_up = Vec::new();
            let all = || -> Result<()> {
                for peer in peers {
                    let theirs = peer.join().unwrap()?;
                    changes += theirs.changes;
                    given_up.extend(theirs.given_up);
                    for (what, count) in theirs.failures {
                        *failures.entry(what).or_insert(0_usize) += count;
                    }
                }
                ours.into_iter().try_for_each(|process| process.join().unwrap())
            };
            let result = all();
            done.store(true, Ordering::Relaxed);
            let sent = sender.join().unwrap()?;
            result?;
            println!(
                "libxdp {library}: {PROCESSES} processes made {changes} changes, refused: {failures:?}, \
                 given up: {given_up:?}; {PROCESSES} of ours {} changes; {sent} packets in {:.0?}",
                PROCESSES * CHANGES,
                start.elapsed()
            );
            Ok((sent, given_up))
        })?;
        ensure!(sent > 1000, "hardly any traffic: {sent}");
        for program in given_up {
            let last = chain(&xdp, &interface)?;
            if last
                .members
                .iter()
                .filter_map(|member| member.component.as_ref())
                .any(|own| own.id == program)
            {
                println!("{program} was there all the same");
                xdp.detach(&interface, program)?;
            }
        }
        let last = chain(&xdp, &interface)?;
        ensure!(last.is_whole() && names(&last) == ["udp_filter"], "{last:?}");
        ensure!(soon(|| Ok(seen(&guard)? >= sent))?, "{} of {sent} packets seen", seen(&guard)?);
        ensure!(received(&socket)? == 0, "a packet got past the filter");
        xdp.detach(&interface, id(&guard))?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// A few packets at a time, for as long as the changes go on.
fn send_until(pair: &Pair, done: &AtomicBool) -> Result<u64> {
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        pair.send(BLOCKED, 5)?;
        sent += 5;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(sent)
}

/// What a process of C libxdp's did.
#[derive(Default)]
struct Theirs {
    changes: usize,
    /// What was refused, and how often.
    failures: Vec<(String, usize)>,
    /// Programs that could not be detached, and that libxdp saw nowhere for half a second. It may have been wrong, while
    /// others changed the chain under its eyes.
    given_up: Vec<u32>,
}

/// One process of C libxdp's.
fn their_changes(library: &str, pair: &Pair, seed: usize) -> Result<Theirs> {
    let mut peer = Peer::start(library, &pair.near.name)?;
    let object = object("packet_counter.o");
    let command = format!("churn {UPLINK} native {CHANGES} {} {}", seed + 1, object.display());
    let mut theirs = Theirs::default();
    for line in peer.tell(&command)? {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["done", count] => theirs.changes = count.parse()?,
            ["gone", program] => theirs.given_up.push(program.parse()?),
            ["failed", operation, errno, count] => {
                ensure!(THEIR_ERRORS.contains(&errno.parse()?), "libxdp {library}: {line}");
                theirs.failures.push((format!("{operation} {errno}"), count.parse()?));
            }
            _ => bail!("libxdp {library}: {line}"),
        }
    }
    ensure!(theirs.changes >= CHANGES, "libxdp {library} made {} changes only", theirs.changes);
    Ok(theirs)
}

/// One process of ours.
fn our_process(pair: &Pair, seed: usize) -> Result<()> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_that_changes_a_chain", "--ignored", "--nocapture"])
        .env(NETNS, &pair.near.name)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&child.stdout);
    ensure!(child.status.success() && said.contains("1 passed"), "one of ours: {said}");
    Ok(())
}

/// Adds, replaces, reorders and removes programs of its own, every other one with pins, and so locks, elsewhere. By
/// itself, on a chain of its own, a few times.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn child_that_changes_a_chain() -> Result<()> {
    let Ok(netns) = std::env::var(NETNS) else {
        let pair = Pair::new("calm", 10)?;
        return change_at_random(&pair.interface()?, &builder().build()?, 1, 20);
    };
    let seed: u64 = std::env::var(SEED)?.parse()?;
    let interface = Interface::by_name(&Netns::by_name(&netns)?, UPLINK)?;
    let xdp = match seed % 2 {
        0 => builder().build()?,
        _ => Xdp::builder().layout(NetnsInode).build()?,
    };
    change_at_random(&interface, &xdp, seed + 1, CHANGES)
}

fn change_at_random(interface: &Interface, xdp: &Xdp, seed: u64, changes: usize) -> Result<()> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        u32::try_from(random >> 33).unwrap() % below
    };
    let template = counter()?;
    let mut own: Option<Program> = None;
    let mut done = 0;
    while done < changes {
        let mut fresh = template.clone();
        let priority = 20 + next(70);
        fresh.set_priority(priority);
        let change = xdp.edit(interface).mode(Mode::Unspecified);
        let (result, after) = match &own {
            None => (change.insert(&mut fresh).commit(), Some(fresh)),
            Some(old) => match next(3) {
                0 => (change.replace(id(old), &mut fresh).commit(), Some(fresh)),
                1 => (change.set_priority(id(old), priority).commit(), Some(old.clone())),
                _ => (change.remove(id(old)).commit(), None),
            },
        };
        // So that C libxdp, which gives up where it meets another's change, has its chance too.
        std::thread::sleep(Duration::from_millis(next(200).into()));
        match result {
            Ok(_) => (own, done) = (after, done + 1),
            // Ten races lost in a row is a documented answer, and nothing has changed: the next try will do.
            Err(error) if matches!(error.kind(), ErrorKind::Contended { .. }) => {}
            Err(error) => return Err(error).context(format!("change {done}")),
        }
    }
    while let Some(old) = &own {
        match xdp.detach(interface, id(old)) {
            Ok(_) => own = None,
            Err(error) if matches!(error.kind(), ErrorKind::Contended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
