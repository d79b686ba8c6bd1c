//! `examples/xsk_drop`, `xsk_tx` and `xsk_l2fwd`: what they say that they did is what others saw.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Interface, Mode, Occupant, Policy, Program, Xdp};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use support::lab::{Pair, UPLINK, WIRE, ip, soon};
use support::{Baseline, counter, id, seen};

/// An example, which lies beside the tests. Cargo builds it only when asked: under it we do so, and in a VM it was
/// built before.
fn example(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("the target directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", name]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success());
    }
    Ok(profile.join("examples").join(name))
}

/// A wire, with a program that counts and passes at the far end.
struct Lab {
    xdp: Xdp,
    pair: Pair,
    counter: Program,
    far: Interface,
}

impl Lab {
    fn new(role: &str) -> Result<Self> {
        let (xdp, pair) = (Xdp::builder().policy(Policy::Single).build()?, Pair::new(role, 10)?);
        let far = Interface::by_name(&pair.far.netns, WIRE)?;
        let mut counter = counter()?;
        xdp.attach(&far, &mut counter, Mode::Native)?;
        Ok(Self { xdp, pair, counter, far })
    }

    fn command(&self, name: &str, arguments: &str) -> Result<Command> {
        let mut command = Command::new(example(name)?);
        command.args(["--netns", &self.pair.near.name, UPLINK]).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Starts it, and waits until it has a socket.
    fn start(&self, name: &str, arguments: &str) -> Result<Child> {
        let mut child = self.command(name, arguments)?.spawn()?;
        let attached = soon(|| {
            let ended = child.try_wait()?.is_some();
            Ok(ended || !self.is_empty()?)
        })?;
        ensure!(attached, "{name} attaches no program");
        Ok(child)
    }

    /// Whether the near end has no program.
    fn is_empty(&self) -> Result<bool> {
        Ok(matches!(self.xdp.inspect(&self.pair.interface()?)?, Occupant::Empty))
    }

    /// Sends packets to the near end until the program has had enough, and reads what it says.
    fn feed(&self, mut child: Child) -> Result<Summary> {
        let ended = soon(|| {
            self.pair.send(7777, 20)?;
            Ok(child.try_wait()?.is_some())
        })?;
        if !ended {
            child.kill()?;
        }
        Summary::read(&child.wait_with_output()?)
    }

    fn fails(&self, name: &str, arguments: &str, words: &str) -> Result<()> {
        let output = self.command(name, arguments)?.output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{said}");
        ensure!(said.trim().lines().count() == 1 && said.contains(words), "{said}");
        Ok(())
    }

    fn end(self) -> Result<()> {
        Ok(self.xdp.detach(&self.far, id(&self.counter)).map(drop)?)
    }
}

/// What an example said at its end.
#[derive(Clone, Copy, Debug)]
struct Summary {
    packets: u64,
    bytes: u64,
}

impl Summary {
    fn read(output: &Output) -> Result<Self> {
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.contains("with copies"), "{said}{errors}");
        for start in ["rate ", "cpu ", "first packet ", "lost: "] {
            ensure!(said.lines().any(|line| line.starts_with(start)), "no {start:?} in {said}");
        }
        let words = ["received ", "sent ", "forwarded "];
        let line = said.lines().find(|line| words.iter().any(|word| line.starts_with(word)));
        let line = line.with_context(|| said.to_string())?;
        let number = |place| line.split(' ').nth(place).with_context(|| line.to_owned());
        Ok(Self { packets: number(1)?.parse()?, bytes: number(3)?.parse()? })
    }
}

const EXAMPLES: [&str; 3] = ["xsk_drop", "xsk_tx", "xsk_l2fwd"];
/// What the lab sends: four bytes and their headers.
const PACKET: u64 = 46;

#[test]
fn each_tells_what_it_can_do() -> Result<()> {
    for name in EXAMPLES {
        let output = Command::new(example(name)?).arg("--help").output()?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && said.contains("AF_XDP"), "{said}");
        for option in ["--netns", "--queue", "--mode", "--skb", "--batch", "--seconds", "--spin"] {
            ensure!(said.contains(option), "{name} has no {option}: {said}");
        }
    }
    Ok(())
}

#[test]
fn what_comes_is_received_and_counted() -> Result<()> {
    let baseline = Baseline::take()?;
    let lab = Lab::new("xsk-drop")?;
    for options in ["", "--spin", "--skb", "--frame-size 2048", "--frame-size 3000 --unaligned"] {
        let arguments = format!("--mode copy --count 100 --batch 16 {options}");
        let summary = lab.feed(lab.start("xsk_drop", &arguments)?)?;
        ensure!((100..116).contains(&summary.packets), "{options}: {summary:?}");
        ensure!(summary.bytes == PACKET * summary.packets, "{options}: {summary:?}");
    }
    lab.end()?;
    baseline.assert_restored()
}

#[test]
fn what_is_sent_arrives() -> Result<()> {
    let baseline = Baseline::take()?;
    let lab = Lab::new("xsk-tx")?;
    let mut total = seen(&lab.counter)?;
    for (options, size) in
        [("", 64), ("--spin", 64), ("--no-need-wakeup", 64), ("--size 1400", 1400)]
    {
        let arguments = format!("--count 1000 {options}");
        let summary = Summary::read(&lab.command("xsk_tx", &arguments)?.output()?)?;
        ensure!(summary.packets >= 1000 && summary.bytes == size * summary.packets, "{summary:?}");
        // Some were under way when it had counted enough; a full queue at the other end loses some.
        let arrived = soon(|| Ok(seen(&lab.counter)? >= total + summary.packets * 9 / 10))?;
        ensure!(arrived, "{} of {summary:?}", seen(&lab.counter)? - total);
        total = seen(&lab.counter)?;
    }
    lab.end()?;
    baseline.assert_restored()
}

#[test]
fn what_comes_goes_back() -> Result<()> {
    let baseline = Baseline::take()?;
    let lab = Lab::new("xsk-back")?;
    for options in ["", "--spin", "--no-need-wakeup"] {
        let before = seen(&lab.counter)?;
        let arguments = format!("--mode copy --count 100 {options}");
        let summary = lab.feed(lab.start("xsk_l2fwd", &arguments)?)?;
        ensure!(summary.packets >= 100, "{options}: {summary:?}");
        // What was sent last may not have left.
        let least = summary.packets.saturating_sub(64);
        let back = soon(|| Ok(seen(&lab.counter)? - before >= least))?;
        ensure!(back, "{options}: {} of {summary:?}", seen(&lab.counter)? - before);
    }
    lab.end()?;
    baseline.assert_restored()
}

#[test]
fn what_comes_goes_on_to_the_other_interface() -> Result<()> {
    let baseline = Baseline::take()?;
    let lab = Lab::new("xsk-on")?;
    let (near, far) = (&lab.pair.near.name, &lab.pair.far.name);
    ip(&format!(
        "-n {near} link add second numrxqueues 1 numtxqueues 1 type veth \
         peer name beyond numrxqueues 1 numtxqueues 1 netns {far}"
    ))?;
    ip(&format!("-n {near} link set second up"))?;
    ip(&format!("-n {far} link set beyond up"))?;
    let beyond = Interface::by_name(&lab.pair.far.netns, "beyond")?;
    let mut there = counter()?;
    lab.xdp.attach(&beyond, &mut there, Mode::Native)?;
    let summary = lab.feed(lab.start("xsk_l2fwd", "--to second --mode copy --count 100")?)?;
    ensure!(summary.packets >= 100, "{summary:?}");
    let least = summary.packets.saturating_sub(64);
    ensure!(soon(|| Ok(seen(&there)? >= least))?, "{} of {summary:?}", seen(&there)?);
    lab.xdp.detach(&beyond, id(&there))?;
    lab.end()?;
    drop((there, beyond));
    baseline.assert_restored()
}

#[test]
fn a_signal_ends_each_with_its_summary() -> Result<()> {
    let lab = Lab::new("xsk-signal")?;
    for signal in ["-INT", "-TERM"] {
        let child = lab.start("xsk_drop", "--mode copy")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        lab.pair.send(7777, 20)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        ensure!(Command::new("kill").args([signal, &child.id().to_string()]).status()?.success());
        let summary = Summary::read(&child.wait_with_output()?)?;
        ensure!(summary.packets == 20, "{summary:?}");
        ensure!(lab.is_empty()?, "still attached");
    }
    lab.end()
}

#[test]
fn what_cannot_be_done_is_told_in_one_line() -> Result<()> {
    let lab = Lab::new("xsk-refused")?;
    for name in ["xsk_drop", "xsk_l2fwd"] {
        lab.fails(name, "--mode zero-copy", "zero-copy")?;
        lab.fails(name, "--queue 7", "no such queue")?;
        lab.fails(name, "--ring-size 1000", "power of two")?;
        lab.fails(name, "--frame-size 3000", "power of two")?;
    }
    lab.fails("xsk_tx", "--size 10", "42 bytes")?;
    lab.fails("xsk_tx", "--size 4097", "longer than its frame")?;
    lab.fails("xsk_l2fwd", "--to nowhere", "nowhere")?;
    lab.end()
}
