//! How fast chains are changed, read and run, beside C libxdp 1.3.1 and 1.6 on the same kernel in the same run.
//!
//! `make bench` runs all of it in a VM. What is compared is interleaved, and a median of at least 20; the ratio is ours
//! to theirs. It counts bpf(2) calls with strace, for which `--only` does one change once.

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use oxdp::{
    Census, Interface, Legacy, Mode, Netns, Policy, Program, ProtocolVersion, Select, TestRun, Xdp,
};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::lab::{Pair, UPLINK};
use support::peer::Peer;
use support::{counter, id, libbpf_object, object, program};

#[derive(Parser)]
struct Options {
    /// Measure only this.
    #[arg(value_enum)]
    what: Option<What>,
    /// Do this change once, untimed, between two lines that say so.
    #[arg(long)]
    only: Option<Only>,
    /// In this namespace, attach to its interface and end: what `--only` starts a process for.
    #[arg(long, hide = true)]
    attach_in: Option<String>,
    /// How often each thing is timed.
    #[arg(long, default_value_t = 24)]
    rounds: usize,
    /// How many attach and detach cycles must leave no trace.
    #[arg(long, default_value_t = 10_000)]
    cycles: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Adding one program to chains of several lengths.
    Attach,
    /// Reading a chain of ten.
    Read,
    /// A packet through chains of several lengths.
    Packet,
    /// Memory and descriptors after many attaches and detaches.
    Cycles,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    /// Attach to an empty interface, in a process of its own.
    Empty,
    /// Add to a chain of one, in a process of its own.
    Live,
    /// Add to a chain of one, in the process that has just made it.
    Again,
    /// Add to a chain of nine, in the process that has just made it.
    Nine,
    /// Add to a chain of one by C libxdp 1.3, in a process of its own.
    Their13,
    /// The same by C libxdp 1.6.
    Their16,
}

/// The libraries that we are compared to, and the version that each writes. The last is our own, as C programs have it.
const LIBRARIES: [(&str, ProtocolVersion); 3] =
    [("1.3", ProtocolVersion::V2), ("1.6", ProtocolVersion::V3), ("own", ProtocolVersion::V3)];
/// Before an attach: what went in the round before is freed by the kernel later on, and not on this one's account. The
/// peers pause as long.
const PAUSE: Duration = Duration::from_millis(50);
/// Before each turn, so that nobody pays for what another's turn has left to the kernel.
const SETTLE: Duration = Duration::from_secs(1);
/// Rounds that are timed in a row before it is somebody else's turn.
const TURN: usize = 8;

fn main() -> Result<()> {
    let options = Options::parse();
    let xdp = Xdp::builder().mount_bpffs(true).build()?;
    if let Some(netns) = &options.attach_in {
        return attach(&xdp, &Interface::by_name(&Netns::by_name(netns)?, UPLINK)?);
    }
    if let Some(only) = options.only {
        return once(&xdp, &Pair::new("bench", 10)?, only);
    }
    let wants = |what| options.what.is_none_or(|wanted| wanted == what);
    if wants(What::Attach) {
        attaches(&xdp, options.rounds)?;
    }
    if wants(What::Read) {
        reads(options.rounds)?;
    }
    if wants(What::Packet) {
        packets(options.rounds)?;
    }
    if wants(What::Cycles) {
        cycles(&xdp, options.cycles)?;
    }
    Ok(())
}

/// Takes down what the library says of its swaps: how long the kernel took for each.
struct Swaps(Mutex<Vec<Duration>>);

static SWAPS: Swaps = Swaps(Mutex::new(Vec::new()));

impl log::Log for Swaps {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "oxdp::net::attach"
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let took = text.strip_prefix("RTM_SETLINK took ").and_then(|rest| rest.strip_suffix(" us"));
        if let (Some(took), Ok(mut swaps)) = (took.and_then(|t| t.parse().ok()), self.0.lock()) {
            swaps.push(Duration::from_micros(took));
        }
    }

    fn flush(&self) {}
}

fn attaches(xdp: &Xdp, rounds: usize) -> Result<()> {
    log::set_logger(&SWAPS).map_err(|error| anyhow::anyhow!("{error}"))?;
    println!(
        "adding one program (packet_counter.o), median of {rounds}, in ms; in brackets without the swap"
    );
    println!(
        "{:>9} {:>16} {:>16} {:>16} {:>16} {:>16}  ratio to 1.3    to 1.6  from C, to libbpf",
        "chain of", "oxdp", "1.3", "1.6", "oxdp, libbpf", "from C"
    );
    for length in 0..10 {
        let pair = Pair::new("bench", 10)?;
        let interface = pair.interface()?;
        let mut peers = [peer(&pair, 0)?, peer(&pair, 1)?, peer(&pair, 2)?];
        let (mut ours, mut by_libbpf, mut swaps) = (Vec::new(), Vec::new(), Vec::new());
        let mut theirs = [Vec::new(), Vec::new(), Vec::new()];
        while ours.len() < rounds {
            std::thread::sleep(SETTLE);
            let (took, swapped) = our_attaches(xdp, &interface, length, counter)?;
            ours.extend(took);
            swaps.extend(swapped);
            std::thread::sleep(SETTLE);
            by_libbpf.extend(our_attaches(xdp, &interface, length, libbpf_counter)?.0);
            for (peer, times) in peers.iter_mut().zip(&mut theirs) {
                std::thread::sleep(SETTLE);
                times.extend(their_attaches(peer, length)?);
            }
        }
        let (own, swap) = (median(&mut ours)?, median(&mut swaps)?);
        let [old, new, from_c] = theirs.each_mut().map(|times| median(times));
        let (old, new, from_c, by_libbpf) = (old?, new?, from_c?, median(&mut by_libbpf)?);
        let cell =
            |time: Duration| format!("{:.1} ({:.1})", ms(time), ms(time.saturating_sub(swap)));
        let ratio = |theirs: Duration| {
            let without = (own.saturating_sub(swap)).as_secs_f64()
                / theirs.saturating_sub(swap).as_secs_f64();
            format!("{:.2} ({without:.2})", own.as_secs_f64() / theirs.as_secs_f64())
        };
        println!(
            "{length:>9} {:>16} {:>16} {:>16} {:>16} {:>16}  {:>12} {:>12} {:>16.2}   swap {:.1} ms",
            cell(own),
            cell(old),
            cell(new),
            cell(by_libbpf),
            cell(from_c),
            ratio(old),
            ratio(new),
            from_c.as_secs_f64() / by_libbpf.as_secs_f64(),
            ms(swap)
        );
    }
    Ok(())
}

fn peer(pair: &Pair, which: usize) -> Result<Peer> {
    let (library, _) = LIBRARIES.get(which).context("library")?;
    Peer::start(library, &pair.near.name)
}

/// As programs from C are: libbpf has opened it for the caller, and must load it.
fn libbpf_counter() -> Result<Program> {
    let object = libbpf_object("packet_counter.o")?;
    Ok(Program::from_object(object, Select::Function("packet_counter"))?)
}

/// Attaches to a chain made for it; each time a program that was just opened, as the peers do it. Also how long the
/// kernel took for each swap.
fn our_attaches(
    xdp: &Xdp,
    interface: &Interface,
    length: usize,
    opened: impl Fn() -> Result<Program>,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let mut chain = Vec::new();
    for _ in 0..length {
        chain.push(counter()?);
    }
    if length > 0 {
        xdp.attach_all(interface, &mut chain.iter_mut().collect::<Vec<_>>(), Mode::Native)?;
    }
    let mut times = Vec::new();
    log::set_max_level(log::LevelFilter::Debug);
    let swaps = || SWAPS.0.lock().map(|mut swaps| std::mem::take(&mut *swaps)).unwrap_or_default();
    let mut of_attaches = Vec::new();
    for _ in 0..TURN {
        let mut program = opened()?;
        drop(swaps());
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        xdp.attach(interface, &mut program, Mode::Native)?;
        times.push(start.elapsed());
        of_attaches.extend(swaps());
        xdp.detach(interface, id(&program))?;
    }
    log::set_max_level(log::LevelFilter::Off);
    if length > 0 {
        xdp.detach_all(interface)?;
    }
    Ok((times, of_attaches))
}

fn their_attaches(peer: &mut Peer, length: usize) -> Result<Vec<Duration>> {
    let object = object("packet_counter.o");
    let command = format!("bench-attach {UPLINK} native {} {length} {TURN}", object.display());
    let answer = peer.tell(&command)?;
    peer.ask(&format!("detach-all {UPLINK}"))?.ok();
    nanoseconds(&answer)
}

/// The first number of each line `ns NUMBER …`.
fn nanoseconds(lines: &[String]) -> Result<Vec<Duration>> {
    let number = |line: &String| {
        let number = line.strip_prefix("ns ")?.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(number))
    };
    lines.iter().map(|line| number(line).with_context(|| line.clone())).collect()
}

fn reads(rounds: usize) -> Result<()> {
    println!("reading a chain of ten, median of {rounds}, in ms");
    for (which, (library, version)) in LIBRARIES.into_iter().enumerate() {
        let pair = Pair::new("read", 10)?;
        let interface = pair.interface()?;
        let xdp = Xdp::builder().layout(Legacy).protocol_version(version).build()?;
        ten(&xdp, &interface)?;
        let mut peer = peer(&pair, which)?;
        let (mut ours, mut afresh, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        while ours.len() < rounds {
            std::thread::sleep(SETTLE);
            afresh.extend(pair.near.netns.run(|| reads_afresh(interface.index()))??);
            for _ in 0..TURN {
                let start = Instant::now();
                let occupant = xdp.inspect(&interface)?;
                ours.push(start.elapsed());
                let chain = occupant.chain().context("a chain")?;
                ensure!(chain.members.len() == 10 && chain.is_whole());
            }
            std::thread::sleep(SETTLE);
            theirs.extend(nanoseconds(&peer.tell(&format!("bench-read {UPLINK} {TURN}"))?)?);
        }
        let (own, afresh, other) = (median(&mut ours)?, median(&mut afresh)?, median(&mut theirs)?);
        let ratio = |time: Duration| time.as_secs_f64() / other.as_secs_f64();
        println!(
            "  oxdp {:.2} ({:.2} with the interface looked up by its number), {library} {:.2}: ratio {:.2} ({:.2})",
            ms(own),
            ms(afresh),
            ms(other),
            ratio(own),
            ratio(afresh)
        );
        xdp.detach_all(&interface)?;
    }
    Ok(())
}

/// As a call from C has to do it, in the interface's namespace.
fn reads_afresh(index: u32) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..TURN {
        let start = Instant::now();
        let interface = Interface::by_index(&Netns::current()?, index)?;
        let occupant = Xdp::builder().layout(Legacy).build()?.inspect(&interface)?;
        times.push(start.elapsed());
        ensure!(occupant.chain().is_some_and(oxdp::Chain::is_whole));
    }
    Ok(times)
}

fn ten(xdp: &Xdp, interface: &Interface) -> Result<()> {
    let mut programs = Vec::new();
    for _ in 0..10 {
        programs.push(counter()?);
    }
    xdp.attach_all(interface, &mut programs.iter_mut().collect::<Vec<_>>(), Mode::Native)?;
    Ok(())
}

/// Packets in a test run.
const REPEAT: u32 = 20_000;

/// How long one packet takes through what is attached, by a test run of the dispatcher.
fn packet(xdp: &Xdp, interface: &Interface) -> Result<Duration> {
    let run = TestRun::new(&[0; 64]).repeat(REPEAT);
    Ok(xdp.test_run_attached(interface, &run)?.duration)
}

/// On chains that are made anew every five rounds: where the kernel puts their code makes a difference.
fn packets(rounds: usize) -> Result<()> {
    println!(
        "a packet through programs that pass it (xdp_pass.o), median of {rounds} test runs of {REPEAT}, in ns"
    );
    let pairs = ["oxdp", "oxdp2", "old", "new", "alone"];
    let pairs = pairs.map(|role| Pair::new(role, 10));
    let [v3, v2, old, new, alone] = pairs;
    let (v3, v2, old, new, alone) = (v3?, v2?, old?, new?, alone?);
    let xdp = |version| Xdp::builder().layout(Legacy).protocol_version(version).build();
    let (second, third) = (xdp(ProtocolVersion::V2)?, xdp(ProtocolVersion::V3)?);
    let mut peers = [(peer(&old, 0)?, old.interface()?), (peer(&new, 1)?, new.interface()?)];
    println!(
        "{:>9} {:>8} {:>8} {:>8} {:>8} {:>8}  ratio to 1.3    to 1.6  to alone",
        "chain of", "oxdp v3", "oxdp v2", "1.3", "1.6", "alone"
    );
    for length in [1, 2, 5, 10] {
        let mut times: [Vec<Duration>; 5] = Default::default();
        let mut round = 0;
        while round < rounds {
            for (xdp, pair) in [(&third, &v3), (&second, &v2)] {
                let mut programs = Vec::new();
                for _ in 0..length {
                    programs.push(program("xdp_pass.o")?);
                }
                let mut programs: Vec<_> = programs.iter_mut().collect();
                xdp.attach_all(&pair.interface()?, &mut programs, Mode::Native)?;
            }
            for (peer, _) in &mut peers {
                let object = object("xdp_pass.o");
                let objects = vec![object.display().to_string(); length].join(" ");
                peer.tell(&format!("attach {UPLINK} native {objects}"))?;
            }
            let by_itself = alone.interface()?;
            let mut single = program("xdp_pass.o")?;
            let edit = third.edit(&by_itself).insert(&mut single).policy(Policy::Single);
            edit.mode(Mode::Native).commit()?;
            let on = [&v3.interface()?, &v2.interface()?, &peers[0].1, &peers[1].1, &by_itself];
            for _ in 0..on.len() {
                // Nobody is always the first.
                for turn in 0..on.len() {
                    let which = (round + turn) % on.len();
                    if let (Some(interface), Some(times)) = (on.get(which), times.get_mut(which)) {
                        times.push(packet(&third, interface)?);
                    }
                }
                round += 1;
            }
            third.detach(&by_itself, id(&single))?;
            third.detach_all(&v3.interface()?)?;
            second.detach_all(&v2.interface()?)?;
            for (peer, _) in &mut peers {
                peer.tell(&format!("detach-all {UPLINK}"))?;
            }
        }
        let medians = times.iter_mut().map(|times| median(times)).collect::<Result<Vec<_>>>()?;
        let [ours, ours2, their13, their16, alone] = medians[..] else { bail!("five medians") };
        let ratio = |to: Duration| ours.as_secs_f64() / to.as_secs_f64();
        println!(
            "{length:>9} {:>8} {:>8} {:>8} {:>8} {:>8}  {:>12.2} {:>9.2} {:>9.2}",
            ours.as_nanos(),
            ours2.as_nanos(),
            their13.as_nanos(),
            their16.as_nanos(),
            alone.as_nanos(),
            ratio(their13),
            ratio(their16),
            ratio(alone)
        );
    }
    Ok(())
}

/// Descriptors, resident pages, and the kernel's BPF objects.
fn footprint() -> Result<(usize, u64, Census)> {
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages = pages.split(' ').nth(1).context("statm")?.parse()?;
    Ok((descriptors, pages, Census::take()?))
}

fn cycles(xdp: &Xdp, cycles: usize) -> Result<()> {
    println!(
        "after N attaches and detaches: descriptors, resident memory, BPF objects in the kernel"
    );
    let pair = Pair::new("cycles", 10)?;
    let interface = pair.interface()?;
    let mut kept = counter()?;
    xdp.attach(&interface, &mut kept, Mode::Native)?;
    let path = object("packet_counter.o");
    for cycle in 1..=cycles {
        let mut program = Program::from_file(&path, Select::Only)?;
        xdp.attach(&interface, &mut program, Mode::Native)?;
        xdp.detach(&interface, id(&program))?;
        drop(program);
        if cycle == 10 || cycle == 100 || cycle % 1000 == 0 || cycle == cycles {
            // What is gone goes for good after a grace period.
            std::thread::sleep(Duration::from_secs(1));
            let (descriptors, pages, census) = footprint()?;
            println!("{cycle:>9}: {descriptors} descriptors, {} kB, {census}", pages * 4);
        }
    }
    xdp.detach_all(&interface)?;
    Ok(())
}

/// The markers are for who reads the trace: what lies between them is the change.
fn attach(xdp: &Xdp, interface: &Interface) -> Result<()> {
    let mut program = counter()?;
    println!("begin");
    let start = Instant::now();
    xdp.attach(interface, &mut program, Mode::Native)?;
    let took = start.elapsed();
    println!("end after {} us", took.as_micros());
    Ok(())
}

fn once(xdp: &Xdp, pair: &Pair, only: Only) -> Result<()> {
    let interface = pair.interface()?;
    let run = |command: &mut Command| -> Result<()> {
        let status = command.status()?;
        ensure!(status.success(), "the process that attaches: {status}");
        Ok(())
    };
    let peer = |library: &str, version| -> Result<()> {
        let legacy = Xdp::builder().layout(Legacy).protocol_version(version).build()?;
        legacy.attach(&interface, &mut counter()?, Mode::Native)?;
        println!("begin");
        let netns = format!("--net=/run/netns/{}", pair.near.name);
        let object = object("packet_counter.o");
        let mut command = Command::new("nsenter");
        command.arg(netns).args(["tests/peers/run", library, "once", "attach", UPLINK, "native"]);
        run(command.arg(object))?;
        println!("end");
        Ok(())
    };
    match only {
        Only::Their13 => peer("1.3", ProtocolVersion::V2)?,
        Only::Their16 => peer("1.6", ProtocolVersion::V3)?,
        Only::Again | Only::Nine => {
            let length = if matches!(only, Only::Nine) { 9 } else { 1 };
            let mut programs = (0..length).map(|_| counter()).collect::<Result<Vec<_>>>()?;
            xdp.attach_all(&interface, &mut programs.iter_mut().collect::<Vec<_>>(), Mode::Native)?;
            std::thread::sleep(SETTLE);
            attach(xdp, &interface)?;
        }
        Only::Empty | Only::Live => {
            if matches!(only, Only::Live) {
                xdp.attach(&interface, &mut counter()?, Mode::Native)?;
            }
            let mut itself = Command::new(std::env::current_exe()?);
            run(itself.args(["--attach-in", &pair.near.name]))?;
        }
    }
    xdp.detach_all(&interface)?;
    Ok(())
}

fn median(times: &mut [Duration]) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("nothing was timed")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
