//! What must not break a chain: bad programs, lost and hostile pins, held locks, many writers, vanished
//! interfaces. Needs a kernel that permits freplace, so `make test` runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Result, bail, ensure};
use oxdp::{Error, ErrorKind, Interface, Legacy, Mode, NetnsInode, Occupant, Xdp};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::lab::{Pair, ip, received, soon};
use support::{BPFFS, Baseline, chain, counter, filter, id, pins, program, remove_pins, seen, xdp};

/// Every attach that is refused leaves the chain, the kernel and bpffs as they were.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn refused_programs_change_nothing() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("refused", 10)?);
        let interface = pair.interface()?;
        let refused = |error: &Error| {
            let ErrorKind::Rejected { log, .. } = error.kind() else { bail!("{error}") };
            ensure!(log.contains("invalid"), "{log}");
            ensure!(error.to_string().contains("rejected"), "names the program: {error}");
            Ok(())
        };
        let error = xdp.attach(&interface, &mut program("rejected.o")?, Mode::Native).unwrap_err();
        refused(&error)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        baseline_pins(&baseline)?;
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        let before = (chain(&xdp, &interface)?, pins()?);
        let mut program = program("rejected.o")?;
        for _ in 0..2 {
            // A program whose load has failed can be tried again, with the same answer.
            refused(&xdp.attach(&interface, &mut program, Mode::Native).unwrap_err())?;
        }
        ensure!((chain(&xdp, &interface)?, pins()?) == before);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

fn baseline_pins(baseline: &Baseline) -> Result<()> {
    ensure!(pins()? == baseline.pins(), "{:?}", pins()?);
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_with_lost_pins_is_told_and_left_alone() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("lost", 10)?);
        let interface = pair.interface()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        let aside = Path::new(BPFFS).join("aside");
        for name in ["prog0-link", "prog0-prog"] {
            // Out of sight, and so lost; but the link holds its program as before.
            std::fs::rename(pins.join(name), &aside)?;
            let damaged = chain(&xdp, &interface)?;
            ensure!(!damaged.is_whole() && damaged.members[1].component.is_some(), "{damaged:?}");
            let error = xdp.attach(&interface, &mut support::counter()?, Mode::Native).unwrap_err();
            ensure!(
                matches!(error.kind(), ErrorKind::DamagedChain { missing, .. } if *missing == [0]),
                "{error}"
            );
            std::fs::rename(&aside, pins.join(name))?;
            ensure!(chain(&xdp, &interface)?.is_whole());
        }
        // Without any pin it is still known for what it is, and can be taken off.
        std::fs::rename(&pins, &aside)?;
        let orphan = chain(&xdp, &interface)?;
        ensure!(orphan.pins.is_none() && orphan.members.len() == 2 && !orphan.is_whole());
        let error = xdp.attach(&interface, &mut support::counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::DamagedChain { .. }), "{error}");
        remove_pins(&aside)?;
        xdp.detach_all(&interface)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn hostile_pins_are_refused_by_name() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("hostile", 10)?);
        let interface = pair.interface()?;
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        let pin = pins.join("prog0-prog");
        std::fs::rename(&pin, pins.join("kept"))?;
        // A link where the program should be; then an entry that the protocol does not know.
        std::fs::rename(pins.join("prog0-link"), &pin)?;
        let error = xdp.inspect(&interface).unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::UnexpectedPin { path, .. } if *path == pin),
            "{error}"
        );
        let error = xdp.detach(&interface, id(&counter)).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::UnexpectedPin { .. }), "{error}");
        // The whole chain can be taken off all the same, and put there again.
        let outcome = xdp.detach_all(&interface)?;
        ensure!(outcome.leftover.as_ref() == Some(&pins), "{outcome:?}");
        std::fs::remove_file(pins.join("kept"))?;
        std::fs::remove_dir(&pins)?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        std::os::unix::fs::symlink("/etc/passwd", pins.join("foreign"))?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        let outcome = xdp.detach_all(&interface)?;
        ensure!(outcome.leftover == Some(pins.clone()), "{outcome:?}");
        ensure!(std::fs::read_dir(&pins)?.count() == 1, "only the foreign entry is left");
        std::fs::remove_file(pins.join("foreign"))?;
        std::fs::remove_dir(&pins)?;
        std::fs::remove_file(pins.with_file_name("identity"))?;
        std::fs::remove_dir(pins.parent().unwrap())?;
    }
    baseline.assert_restored()
}

/// Pins of slots that the chain does not have: of no account to who reads it, and gone with the others.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn pins_of_more_slots_than_there_are_do_no_harm() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("extra", 10)?);
        let interface = pair.interface()?;
        let mut first = filter(7777)?;
        xdp.attach(&interface, &mut first, Mode::Native)?;
        let before = chain(&xdp, &interface)?;
        let pins = before.pins.clone().unwrap();
        for name in ["prog1-prog", "prog9-prog", "prog9-link"] {
            first.pin(pins.join(name))?;
        }
        ensure!(chain(&xdp, &interface)? == before, "{:?}", chain(&xdp, &interface)?);
        let outcome = xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        ensure!(outcome.leftover.is_none() && !pins.exists(), "{outcome:?}");
        ensure!(chain(&xdp, &interface)?.is_whole() && pair.through(7777)? == 0);
        // In place of the link that holds the dispatcher: a program is none.
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        first.pin(pins.join("xdp-link"))?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        ensure!(!pins.exists());
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// The lock is the one that C libxdp takes: flock(2) on the directory.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_held_lock_is_waited_for_no_longer_than_allowed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("lock", 10)?;
        let interface = pair.interface()?;
        let limit = Duration::from_millis(200);
        let legacy = Xdp::builder().mount_bpffs(true).layout(Legacy).lock_timeout(limit).build()?;
        let root = Path::new(BPFFS).join("xdp");
        let mut holder = Command::new("flock")
            .arg(&root)
            .args(["sh", "-c", "echo held; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut held = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held)?;
        let start = Instant::now();
        let error = legacy.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(start.elapsed() >= limit);
        ensure!(
            matches!(error.kind(), ErrorKind::LockTimeout { path, .. } if *path == root),
            "{error}"
        );
        ensure!(error.to_string().contains(&format!("flock (pid {})", holder.id())), "{error}");
        ensure!(legacy.inspect(&interface)? == Occupant::Empty, "reading takes no lock");
        drop(holder.stdin.take());
        holder.wait()?;
        legacy.attach(&interface, &mut counter()?, Mode::Native)?;
        legacy.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// While others are added and removed, a filter never lets a packet through that it must drop.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_filter_holds_while_its_chain_changes() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("holds", 10)?);
        let interface = pair.interface()?;
        let mut filter = filter(7777)?;
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        let socket = pair.listen(7777)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    pair.send(7777, 10)?;
                    sent += 10;
                }
                Ok(sent)
            });
            let changes = (|| -> Result<()> {
                for _ in 0..20 {
                    let mut counter = counter()?;
                    xdp.attach(&interface, &mut counter, Mode::Native)?;
                    xdp.detach(&interface, id(&counter))?;
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            let sent = sender.join().unwrap()?;
            changes?;
            ensure!(sent > 100, "hardly any traffic: {sent}");
            ensure!(soon(|| Ok(seen(&filter)? >= sent))?, "{} of {sent}", seen(&filter)?);
            ensure!(received(&socket)? == 0, "a packet got past the filter");
            Ok(())
        })?;
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Threads that add and remove on one interface at once, half of them with pins, and so locks, elsewhere: what
/// the lock does not order, the compare-and-swap does.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn many_changes_at_once_lose_nothing() -> Result<()> {
    const THREADS: usize = 4;
    const ROUNDS: usize = 6;
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("many", 10)?;
        let interface = pair.interface()?;
        let work = |number: usize| -> Result<()> {
            let xdp = Xdp::builder().mount_bpffs(true);
            let xdp =
                if number.is_multiple_of(2) { xdp.layout(Legacy) } else { xdp.layout(NetnsInode) };
            let xdp = xdp.build()?;
            for _ in 0..ROUNDS {
                let mut program = counter()?;
                again(|| xdp.attach(&interface, &mut program, Mode::Native).map(drop))?;
                let id = id(&program);
                again(|| xdp.detach(&interface, id).map(drop))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })?;
        ensure!(xdp()?.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// `Contended` is the documented answer to a race that was lost ten times in a row; nothing else is.
fn again(mut change: impl FnMut() -> oxdp::Result<()>) -> Result<()> {
    for _ in 0..20 {
        match change() {
            Err(error) if matches!(error.kind(), ErrorKind::Contended { .. }) => {}
            other => return Ok(other?),
        }
    }
    bail!("contended for ever")
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn an_interface_that_goes_away_is_told() -> Result<()> {
    let (xdp, pair) = (xdp()?, Pair::new("gone", 10)?);
    let interface = pair.interface()?;
    ip(&format!("-n {} link del uplink", pair.near.name))?;
    let gone = |error: Error| {
        ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
        Ok(())
    };
    gone(xdp.inspect(&interface).unwrap_err())?;
    gone(xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err())?;
    gone(xdp.detach_all(&interface).unwrap_err())?;
    gone(Interface::by_name(interface.netns(), "uplink").unwrap_err())
}
