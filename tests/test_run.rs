//! Test runs: of a program, of a component, of what is attached, and of packets that are real. What needs no chain
//! runs on every kernel.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Result, ensure};
use oxdp::{
    Action, ErrorKind, Interface, Mode, Netns, Policy, Program, Select, TestRun, TestRunOutcome,
    Xdp,
};
use std::time::Duration;
use support::lab::{Pair, UPLINK, WIRE, ip, soon};
use support::{Baseline, counter, filter, kernel, object, seen, udp, xdp};

fn program(function: &str) -> Result<Program> {
    Ok(Program::from_file(object("test_run.o"), Select::Function(function))?)
}

/// A program that says `verdict`.
fn says(verdict: u32) -> Result<Program> {
    let mut says = program("says")?;
    says.set_global("verdict", &verdict.to_ne_bytes())?;
    Ok(says)
}

/// 64 bytes, each another.
fn packet() -> Vec<u8> {
    (0..64).collect()
}

/// Without pins, as `Xdp::test_run` needs none.
fn alone() -> Result<Xdp> {
    Ok(Xdp::builder().policy(Policy::Single).build()?)
}

fn is_os(error: &oxdp::Error, errno: i32, words: &str) -> Result<()> {
    ensure!(matches!(error.kind(), ErrorKind::Os { .. }), "{error}");
    ensure!(error.errno() == Some(errno) && error.to_string().contains(words), "{error}");
    Ok(())
}

#[test]
fn every_verdict_is_told() -> Result<()> {
    let baseline = Baseline::take()?;
    let wanted = [
        Action::Aborted,
        Action::Drop,
        Action::Pass,
        Action::Tx,
        Action::Redirect,
        Action::Other(7),
    ];
    for (verdict, wanted) in [0, 1, 2, 3, 4, 7].into_iter().zip(wanted) {
        let outcome = alone()?.test_run(&mut says(verdict)?, &TestRun::new(&packet()))?;
        ensure!(outcome.action == wanted, "{verdict}: {outcome:?}");
        ensure!(outcome.packet == packet() && outcome.repeat == 1);
    }
    baseline.assert_restored()
}

#[test]
fn the_packet_is_told_as_the_program_left_it() -> Result<()> {
    let (xdp, packet) = (alone()?, packet());
    // By how much the head moves (less than 0: the packet grows), and the tail.
    for (head, tail) in [(0, 0), (-14, 0), (14, 0), (0, -20), (0, 200), (-4, 100), (20, -30)] {
        let mut resizes = program("resizes")?;
        resizes.set_global("head", &i32::to_ne_bytes(head))?;
        resizes.set_global("tail", &i32::to_ne_bytes(tail))?;
        let outcome = xdp.test_run(&mut resizes, &TestRun::new(&packet))?;
        ensure!(outcome.action == Action::Tx, "{head} {tail}: {outcome:?}");
        let size = 64 - head + tail;
        ensure!(outcome.packet.len() == usize::try_from(size)?, "{head} {tail}: {outcome:?}");
        ensure!(outcome.packet.first() == Some(&0xaa));
        // One byte that was in the middle all along.
        let middle = outcome.packet.get(usize::try_from(25 - head)?);
        ensure!(middle == Some(&25), "{head} {tail}: {outcome:?}");
    }
    Ok(())
}

/// Each repetition finds the packet as the one before left it.
#[test]
fn repetitions_are_counted_and_timed() -> Result<()> {
    let xdp = alone()?;
    let mut counter = counter()?;
    for repeat in [1, 2, 1000] {
        let before = if counter.id().is_some() { seen(&counter)? } else { 0 };
        let outcome = xdp.test_run(&mut counter, &TestRun::new(&packet()).repeat(repeat))?;
        ensure!(seen(&counter)? - before == u64::from(repeat) && outcome.repeat == repeat);
    }
    let mut shrinks = program("resizes")?;
    shrinks.set_global("tail", &i32::to_ne_bytes(-2))?;
    let outcome = xdp.test_run(&mut shrinks, &TestRun::new(&packet()).repeat(10))?;
    ensure!(outcome.packet.len() == 44, "{outcome:?}");
    let outcome = xdp.test_run(&mut counter, &TestRun::new(&packet()).repeat(100_000))?;
    ensure!(outcome.duration > Duration::ZERO && outcome.duration < Duration::from_millis(1));
    ensure!(xdp.test_run(&mut counter, &TestRun::new(&packet()).repeat(0))?.repeat == 1);
    Ok(())
}

/// The ifindex and queue that a program finds.
fn ingress(outcome: &TestRunOutcome) -> Option<(u32, u32)> {
    let (ifindex, rest) = outcome.packet.split_first_chunk()?;
    Some((u32::from_ne_bytes(*ifindex), u32::from_ne_bytes(*rest.first_chunk()?)))
}

#[test]
fn the_ingress_is_what_was_said() -> Result<()> {
    let (xdp, pair) = (alone()?, Pair::new("ingress", 10)?);
    let mut tells = program("tells_ingress")?;
    let packet = packet();
    let mut run = |run: TestRun<'_>| pair.near.netns.run(|| xdp.test_run(&mut tells, &run));
    ensure!(ingress(&run(TestRun::new(&packet))??) == Some((1, 0)), "loopback");
    if kernel()? < (5, 15) {
        let error = run(TestRun::new(&packet).ingress(10, 0))?.unwrap_err();
        return is_os(&error, libc::EINVAL, "older than 5.15");
    }
    ensure!(ingress(&run(TestRun::new(&packet).ingress(10, 0))??) == Some((10, 0)));
    for (ifindex, queue) in [(10, 1), (0, 1)] {
        let error = run(TestRun::new(&packet).ingress(ifindex, queue))?.unwrap_err();
        is_os(&error, libc::EINVAL, "no such ingress queue")?;
    }
    let error = run(TestRun::new(&packet).ingress(999, 0))?.unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    Ok(())
}

#[test]
fn packets_that_cannot_be_are_refused() -> Result<()> {
    let xdp = alone()?;
    let mut says = says(2)?;
    let mut run = |size| xdp.test_run(&mut says, &TestRun::new(&vec![0; size]));
    for size in [14, 15, 1500, 3520] {
        ensure!(run(size)?.packet.len() == size);
    }
    if kernel()? < (5, 18) {
        return is_os(&run(3521).unwrap_err(), libc::EMSGSIZE, "too long for this kernel");
    }
    // Of several fragments.
    ensure!(run(65_000)?.packet.len() == 65_000);
    for size in [0, 13] {
        is_os(&run(size).unwrap_err(), libc::EINVAL, "at least 14 bytes")?;
    }
    let error = run(1 << 20).unwrap_err();
    ensure!(error.to_string().contains("too long"), "{error}");
    Ok(())
}

#[test]
fn what_is_attached_is_run() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (alone()?, Pair::new("attached", 10)?);
        let (interface, packet) = (pair.interface()?, packet());
        let run = TestRun::new(&packet);
        let error = xdp.test_run_attached(&interface, &run).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
        ensure!(error.to_string().contains(UPLINK), "{error}");

        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let outcome = xdp.test_run_attached(&interface, &run.clone().repeat(5))?;
        ensure!(outcome.action == Action::Pass && seen(&counter)? == 5, "{outcome:?}");
        if kernel()? >= (5, 15) {
            let run = run.clone().ingress(interface.index(), 0);
            ensure!(xdp.test_run_attached(&interface, &run)?.action == Action::Pass);
        }
        xdp.detach(&interface, support::id(&counter))?;

        // A program of somebody else.
        let (netns, object) = (&pair.near.name, object("xdp_pass.o"));
        let object = object.display();
        ip(&format!("-n {netns} link set {UPLINK} xdpdrv obj {object} sec xdp"))?;
        let outcome = xdp.test_run_attached(&interface, &run)?;
        ensure!(outcome.action == Action::Pass && outcome.packet == packet);
    }
    baseline.assert_restored()
}

/// Packets sent by the far end reach a program at the near end, every one.
#[test]
fn live_frames_are_real_packets() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (alone()?, Pair::new("live", 10)?);
        let interface = pair.interface()?;
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let mut sends = program("sends")?;
        let out = Interface::by_name(&pair.far.netns, WIRE)?.index();
        sends.set_global("out", &out.to_ne_bytes())?;
        let packet = udp(9);
        let mut send = |run: TestRun<'_>| pair.far.netns.run(|| xdp.test_run(&mut sends, &run));
        let run = TestRun::new(&packet).repeat(100);
        if kernel()? >= (5, 18) {
            for (batch, total) in [(0, 100), (1, 200), (7, 300), (256, 400)] {
                let outcome = send(run.clone().live_frames(batch))??;
                ensure!(outcome.repeat == 100 && outcome.packet.is_empty(), "{outcome:?}");
                let arrived = soon(|| Ok(seen(&counter)? == total))?;
                ensure!(arrived, "batch {batch}: {} of {total}", seen(&counter)?);
            }
            let error = send(run.clone().live_frames(257))?.unwrap_err();
            is_os(&error, libc::E2BIG, "at most 256")?;
            let longest = if kernel()? >= (6, 12) { 3408 } else { 3368 };
            let (fits, is_too_long) = (vec![0; longest], vec![0; longest + 1]);
            send(TestRun::new(&fits).live_frames(0))??;
            let error = send(TestRun::new(&is_too_long).live_frames(0))?.unwrap_err();
            is_os(&error, libc::EINVAL, "too long")?;
        } else {
            for batch in [0, 1, 64] {
                let error = send(run.clone().live_frames(batch))?.unwrap_err();
                is_os(&error, libc::EINVAL, "older than 5.18")?;
            }
            ensure!(seen(&counter)? == 0);
        }
    }
    baseline.assert_restored()
}

/// A component runs in a dispatcher of its own, with the same maps as in its chain.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_component_is_run() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("component", 10)?);
        let interface = pair.interface()?;
        let mut filter = filter(7777)?;
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        for (port, wanted) in [(7777, Action::Drop), (8888, Action::Pass)] {
            let outcome = xdp.test_run(&mut filter, &TestRun::new(&udp(port)))?;
            ensure!(outcome.action == wanted && outcome.packet == udp(port), "{outcome:?}");
        }
        ensure!(seen(&filter)? == 2);
        let mut resizes = program("resizes")?;
        resizes.set_global("head", &i32::to_ne_bytes(-14))?;
        xdp.attach(&interface, &mut resizes, Mode::Native)?;
        let outcome = xdp.test_run(&mut resizes, &TestRun::new(&packet()))?;
        ensure!(outcome.action == Action::Tx && outcome.packet.len() == 78, "{outcome:?}");
        xdp.detach_all(&interface)?;
        // Out of its chain it is a component still.
        let outcome = xdp.test_run(&mut filter, &TestRun::new(&udp(7777)))?;
        ensure!(outcome.action == Action::Drop && seen(&filter)? == 3, "{outcome:?}");
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_whole_chain_is_run() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("whole", 10)?);
        let interface = pair.interface()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        xdp.attach_all(&interface, &mut [&mut filter, &mut counter], Mode::Native)?;
        let run = |port| xdp.test_run_attached(&interface, &TestRun::new(&udp(port)).repeat(3));
        ensure!(run(7777)?.action == Action::Drop);
        ensure!((seen(&filter)?, seen(&counter)?) == (3, 0), "the first one dropped it");
        ensure!(run(8888)?.action == Action::Pass);
        ensure!((seen(&filter)?, seen(&counter)?) == (6, 3), "both passed it");
        xdp.detach_all(&interface)?;
        let error = run(8888).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
    }
    baseline.assert_restored()
}

/// Whoever runs an unloaded program has loaded it to run alone.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_that_was_run_alone_is_no_component() -> Result<()> {
    let (xdp, packet) = (xdp()?, packet());
    let lo = Interface::by_name(&Netns::current()?, "lo")?;
    let mut counter = counter()?;
    let mut clone = counter.clone();
    xdp.test_run(&mut counter, &TestRun::new(&packet))?;
    let error = xdp.attach(&lo, &mut counter, Mode::Skb).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::LoadedOtherwise { is_component: false }), "{error}");
    xdp.attach(&lo, &mut clone, Mode::Skb)?;
    xdp.detach_all(&lo)?;
    Ok(())
}
