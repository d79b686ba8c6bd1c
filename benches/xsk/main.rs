//! AF_XDP from end to end, beside C libxdp and the crate xsk-rs: what programs of the same kind receive, send and forward
//! on a veth pair, what a packet takes of a processor, and how soon the first packet comes.
//!
//! `benches/run xsk` builds all and runs it. What is compared runs in turns; told are medians. Our programs are the
//! examples `xsk_drop`, `xsk_tx` and `xsk_l2fwd`; the others (`twin.c`, `../xsk-rs`) do the same by their libraries. All have
//! a processor to themselves, and packets come from `xdp_flood` on another one, which also pays for what the kernel does
//! to receive them.
//!
//! "from C" is the twin again, with our `libxdp.so.1` in place of C's.
//!
//! A machine is not as fast in one minute as in the next: a ratio is of two runs within a round, told is the median of all
//! rounds, and between which values it is with 95 % confidence.

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

mod chart;
mod figures;
mod rivals;
#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use figures::{Case, Figures, Opened};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use oxdp::xsk::{BindMode, Prefill, Socket, Umem};
use oxdp::{Interface, Mode, Netns, Occupant, Policy, Xdp};
use rivals::{Flood, Measured, Processor, Rival, Rivals};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use support::lab::{Pair, UPLINK, ip};
use support::{id, program};

#[derive(Parser)]
struct Options {
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// How often each is measured.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// For how long each time, in seconds.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// How often each is opened.
    #[arg(long, default_value_t = 31)]
    openings: usize,
    /// Look at the rings all the time, where otherwise the programs sleep when nothing comes.
    #[arg(long)]
    spin: bool,
    /// Where the built programs of xsk-rs are.
    #[arg(long)]
    xsk_rs: Option<PathBuf>,
    /// The folder with our `libxdp.so.1`, for the programs in C.
    #[arg(long)]
    own: Option<PathBuf>,
    /// Where the chart goes.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// After each run: what it has left to the kernel to do is on nobody's account.
const SETTLE: Duration = Duration::from_millis(500);

/// Between two packets while something is opened. They come from a socket: `xdp_flood` changes the kernel's list of XDP
/// programs with each burst, and who attaches one waits for that (`bpf_dispatcher_change_prog`).
const TRICKLE: Duration = Duration::from_micros(200);
/// How often a run is tried on a machine that is too busy for it.
const TRIES: usize = 3;

fn main() -> Result<()> {
    let options = Options::parse();
    let mut figures = Figures::new(&options.only);
    println!("{}", figures::machine()?);
    let lab = Lab::new(&options)?;
    for round in 1..=options.rounds {
        for case in figures.cases() {
            lab.measure(case, round, &mut figures)
                .with_context(|| format!("{case}, round {round}"))?;
        }
        tell(&format!("round {round} of {}", options.rounds));
    }
    lab.open(options.openings, &mut figures)?;
    lab.open_again(options.openings, &mut figures)?;
    print!("{figures}");
    if let Some(path) = &options.chart {
        std::fs::write(path, chart::draw(&figures.panels(), &figures::machine()?))?;
        println!("{} written", path.display());
    }
    Ok(())
}

/// Beside the figures, while it runs, which takes minutes.
#[allow(clippy::print_stderr, reason = "not a part of the figures")]
fn tell(line: &str) {
    eprintln!("{line}");
}

/// A wire. At the near end are those that are compared; at the far one packets are made, and dropped.
struct Lab {
    pair: Pair,
    xdp: Xdp,
    rivals: Rivals,
    /// For how long each is measured.
    seconds: u32,
}

impl Lab {
    fn new(options: &Options) -> Result<Self> {
        let lab = Self {
            pair: Pair::new("xsk", 10)?,
            xdp: Xdp::builder().policy(Policy::Single).build()?,
            rivals: Rivals::new(options.xsk_rs.clone(), options.own.clone(), options.spin)?,
            seconds: options.seconds,
        };
        // What comes back, or is sent, has gone all the way and costs nobody more than that.
        let far = Interface::by_name(&lab.pair.far.netns, support::lab::WIRE)?;
        lab.xdp.attach(&far, &mut program("xdp_drop.o")?, Mode::Native)?;
        Ok(lab)
    }

    fn measure(&self, case: Case, round: usize, figures: &mut Figures) -> Result<()> {
        let (rivals, seconds) = (&self.rivals, self.seconds);
        if case == Case::Kernel {
            figures.add(case, Rival::Kernel, round, self.kernel()?);
            return Ok(());
        }
        for rival in rivals.from(round) {
            let measured = patiently(|| {
                let flood = match case {
                    Case::Send => None,
                    _ => Some(Flood::start(&self.pair, rivals, seconds + 2)?),
                };
                let measured = rivals.run(rival, case, &self.pair, seconds, 0);
                drop(flood);
                std::thread::sleep(SETTLE);
                self.clear(rival)?;
                measured
            })?;
            figures.add(case, rival, round, measured);
        }
        Ok(())
    }

    /// The rate at which the kernel itself takes packets in and drops them: nobody receives more.
    fn kernel(&self) -> Result<Measured> {
        let mut drop = program("xdp_drop.o")?;
        let near = self.pair.interface()?;
        self.xdp.attach(&near, &mut drop, Mode::Native)?;
        let measured = Flood::start(&self.pair, &self.rivals, self.seconds)?.finish();
        self.xdp.detach(&near, id(&drop))?;
        std::thread::sleep(SETTLE);
        measured
    }

    /// In the interface's own namespace and on the same processor, as twin is.
    fn openings_of_oxdp(&self, rounds: usize) -> Result<Vec<Duration>> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<Vec<Duration>> {
                let name = &self.pair.near.name;
                setns(File::open(format!("/run/netns/{name}"))?, CloneFlags::CLONE_NEWNET)?;
                let mut processors = CpuSet::new();
                processors.set(Processor::Last.number())?;
                sched_setaffinity(Pid::from_raw(0), &processors)?;
                openings_of_oxdp(&Interface::by_name(&Netns::current()?, UPLINK)?, rounds)
            });
            thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))?
        })
    }

    /// What nobody can do without: a program that is loaded is put on the interface, for which the kernel waits until no
    /// processor runs what was there before.
    fn attachments(&self, rounds: usize) -> Result<Vec<Duration>> {
        let near = self.pair.interface()?;
        let mut drop = program("xdp_drop.o")?;
        let mut all = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            self.xdp.attach(&near, &mut drop, Mode::Native)?;
            all.push(start.elapsed());
            self.xdp.detach(&near, id(&drop))?;
            std::thread::sleep(REST);
        }
        Ok(all)
    }

    /// Takes off what somebody has left on the interface.
    fn clear(&self, by: Rival) -> Result<()> {
        if self.xdp.inspect(&self.pair.interface()?)? != Occupant::Empty {
            tell(&format!("{} has left its program behind", by.name()));
            ip(&format!("-n {} link set {UPLINK} xdp off", self.pair.near.name))?;
        }
        Ok(())
    }

    /// While a packet comes every now and then.
    fn under_a_trickle<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                while !done.load(Relaxed) {
                    self.pair.send(7777, 1)?;
                    std::thread::sleep(TRICKLE);
                }
                Ok(())
            });
            let measured = run();
            done.store(true, Relaxed);
            sender.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
            measured
        })
    }

    /// From the beginning of a program to its first packet, while packets come all the time.
    fn open(&self, openings: usize, figures: &mut Figures) -> Result<()> {
        let rivals = &self.rivals;
        for round in 0..openings {
            for rival in rivals.from(round) {
                let measured = patiently(|| {
                    let measured = self
                        .under_a_trickle(|| rivals.run(rival, Case::Drop, &self.pair, OPENING, 1));
                    std::thread::sleep(SETTLE);
                    self.clear(rival)?;
                    measured
                })?;
                figures.add_opening(rival, Opened::Process, measured.first);
            }
        }
        Ok(())
    }

    /// The same of one more socket in a process that has opened some, over memory that is there.
    fn open_again(&self, openings: usize, figures: &mut Figures) -> Result<()> {
        if openings == 0 {
            return Ok(());
        }
        // The first is not counted.
        let rounds = openings + 1;
        let mut measured = Vec::new();
        for rival in self.rivals.from(0) {
            if matches!(rival, Rival::C | Rival::FromC) {
                let took =
                    self.under_a_trickle(|| self.rivals.openings_of_c(rival, &self.pair, rounds))?;
                self.clear(rival)?;
                measured.push((rival, took));
            }
        }
        let own = self.under_a_trickle(|| self.openings_of_oxdp(rounds))?;
        let bare = self.under_a_trickle(|| self.attachments(rounds))?;
        measured.extend([(Rival::Oxdp, own), (Rival::Kernel, bare)]);
        for (rival, all) in measured {
            for took in all.into_iter().skip(1) {
                figures.add_opening(rival, Opened::Socket, took);
            }
        }
        Ok(())
    }
}

/// As twin.c does, with rings and frames of the same number.
fn openings_of_oxdp(interface: &Interface, rounds: usize) -> Result<Vec<Duration>> {
    const RING: u32 = 2048;
    let umem = Umem::builder().frames(2 * RING).build()?;
    let xdp = Xdp::builder().policy(Policy::Auto).mount_bpffs(true).build()?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let builder = Socket::builder(&umem, interface, 0).rx(RING).fill(2 * RING);
        let builder = builder.completion(2 * RING).mode(BindMode::Copy).prefill(Prefill::Auto);
        let mut bound = builder.default_program(&xdp, Mode::Native).bind()?;
        ensure!(bound.rx.wait(Some(Duration::from_secs(OPENING.into())))?, "no packet");
        all.push(start.elapsed());
        drop(bound);
        ensure!(umem.reclaim() > 0, "frames are lost");
        std::thread::sleep(REST);
    }
    Ok(all)
}

/// Until the kernel has let go of a queue.
const REST: Duration = Duration::from_millis(200);
/// Seconds that an opening may take.
const OPENING: u32 = 5;

/// Again if it fails; the last error.
fn patiently(mut run: impl FnMut() -> Result<Measured>) -> Result<Measured> {
    let mut last = run();
    for _ in 1..TRIES {
        let Err(error) = &last else { break };
        tell(&format!("again, since: {error:#}"));
        last = run();
    }
    last
}
