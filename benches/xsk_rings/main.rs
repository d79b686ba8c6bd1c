//! What the rings of AF_XDP cost for each packet, beside the inline functions of libxdp's `<xdp/xsk.h>`.
//!
//! Packets are received and their frames given back at once, over a kernel that only moves its indices. Counted are
//! instructions (valgrind's callgrind, at two lengths, of which the difference is taken: all that is not the loop cancels),
//! and nanoseconds (the least of several rounds, in turns): the first are the same every time, the second are not.

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

mod theirs;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oxdp::xsk::bench::{RawRings, Simulation, rings};
use oxdp::xsk::{FillRing, RxRing, Umem};
use std::fmt;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Instant;
use theirs::Theirs;

#[derive(Parser)]
struct Options {
    /// Fail if a bar is missed.
    #[arg(long)]
    check: bool,
    /// Packets in a batch.
    #[arg(long, value_delimiter = ',', default_value = "64,8,1")]
    batch: Vec<u32>,
    /// Run only this, so many times, and say nothing: what callgrind counts.
    #[arg(long)]
    only: Option<Way>,
    /// How many batches that are.
    #[arg(long, default_value_t = 1000)]
    batches: u32,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How packets are received and given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// C's inline functions.
    C,
    /// Our rings without frames and packets: what both have, at once.
    Raw,
    /// The same, one by one.
    RawSteps,
    /// `RxBatch::recycle`.
    Recycle,
    /// Packets that are owned, pushed one by one.
    Owned,
    /// C's, and the first byte of each packet is read.
    CLook,
    /// The same.
    RecycleLook,
    /// The same.
    OwnedLook,
}

impl Way {
    /// What it is compared with.
    fn yardstick(self) -> Self {
        match self {
            Self::CLook | Self::RecycleLook | Self::OwnedLook => Self::CLook,
            _ => Self::C,
        }
    }

    /// How many times C's instructions it may take, in batches of 64.
    fn bar(self) -> Option<f64> {
        match self {
            Self::Raw | Self::Recycle => Some(1.02),
            Self::RawSteps | Self::Owned => Some(1.5),
            _ => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::C => "C, inline",
            Self::Raw => "raw rings",
            Self::RawSteps => "raw rings, one by one",
            Self::Recycle => "recycle",
            Self::Owned => "owned, one by one",
            Self::CLook => "C, reads a byte",
            Self::RecycleLook => "recycle, reads a byte",
            Self::OwnedLook => "owned, reads a byte",
        })
    }
}

/// Slots of each ring.
const SIZE: u32 = 2048;
/// Where the rings begin: their indices wrap early on.
const START: u32 = u32::MAX - 1000;
/// Batches that callgrind counts, and twice as many.
const COUNTED: u32 = 2000;
/// Packets of a round that is timed, and how many rounds.
const TIMED: u32 = 4_000_000;
const ROUNDS: usize = 7;

/// A way, ready to go.
struct Bench {
    simulation: Simulation,
    step: Box<dyn FnMut(u32) -> u64>,
}

impl Bench {
    fn new(way: Way) -> Result<Self> {
        let umem = Umem::builder().frames(SIZE).chunk_size(2048).build()?;
        let file = memfd_create(c"rings", MFdFlags::MFD_CLOEXEC)?;
        let simulation = Simulation::new(&file, &umem, SIZE, START)?;
        Ok(Self { simulation, step: step(way, &file, &umem)? })
    }

    fn run(&mut self, batch: u32, batches: u32) -> Result<()> {
        let mut bytes = 0;
        for _ in 0..batches {
            self.simulation.advance(batch);
            bytes += (self.step)(batch);
        }
        // All packets have 64 bytes, and their first is zero.
        ensure!(bytes == 64 * u64::from(batch) * u64::from(batches), "{bytes} bytes");
        Ok(())
    }
}

fn step(way: Way, file: &OwnedFd, umem: &Umem) -> Result<Box<dyn FnMut(u32) -> u64>> {
    let mut zeroes = vec![0; 2048 * SIZE as usize];
    let mut theirs = |name| Theirs::new(file, SIZE, name, zeroes.as_mut_ptr());
    let ours = || rings(file, umem, SIZE);
    Ok(match way {
        Way::C => of_c(theirs("rings_step")?),
        Way::CLook => {
            let theirs = theirs("rings_look")?;
            // For as long as the process.
            zeroes.leak();
            of_c(theirs)
        }
        Way::Raw => {
            let mut rings = RawRings::new(file, SIZE)?;
            Box::new(move |batch| rings.transfer(batch))
        }
        Way::RawSteps => {
            let mut rings = RawRings::new(file, SIZE)?;
            Box::new(move |batch| rings.step(batch))
        }
        Way::Recycle => of_ours(recycle, ours()?),
        Way::Owned => of_ours(owned, ours()?),
        Way::RecycleLook => of_ours(recycle_look, ours()?),
        Way::OwnedLook => of_ours(owned_look, ours()?),
    })
}

fn of_c(mut theirs: Theirs) -> Box<dyn FnMut(u32) -> u64> {
    Box::new(move |batch| theirs.step(batch))
}

fn of_ours(
    step: impl Fn(&mut RxRing, &mut FillRing, u32) -> oxdp::Result<u64> + 'static,
    (mut rx, mut fill): (RxRing, FillRing),
) -> Box<dyn FnMut(u32) -> u64> {
    Box::new(move |batch| step(&mut rx, &mut fill, batch).unwrap_or(0))
}

#[inline(never)]
fn recycle(rx: &mut RxRing, fill: &mut FillRing, batch: u32) -> oxdp::Result<u64> {
    let mut bytes = 0;
    let mut frames = fill.reserve(batch)?;
    rx.peek(batch)?.recycle(&mut frames, |packet| bytes += u64::from(packet.len()));
    frames.commit();
    Ok(bytes)
}

#[inline(never)]
fn recycle_look(rx: &mut RxRing, fill: &mut FillRing, batch: u32) -> oxdp::Result<u64> {
    let mut bytes = 0;
    let mut frames = fill.reserve(batch)?;
    rx.peek(batch)?.recycle(&mut frames, |packet| {
        bytes += u64::from(packet.len()) + first(packet.data().unwrap_or_default());
    });
    frames.commit();
    Ok(bytes)
}

#[inline(never)]
fn owned(rx: &mut RxRing, fill: &mut FillRing, batch: u32) -> oxdp::Result<u64> {
    let mut bytes = 0;
    let mut frames = fill.reserve(batch)?;
    for packet in rx.peek(batch)? {
        bytes += u64::from(packet.len());
        if frames.push(packet).is_err() {
            return Ok(0);
        }
    }
    frames.commit();
    Ok(bytes)
}

#[inline(never)]
fn owned_look(rx: &mut RxRing, fill: &mut FillRing, batch: u32) -> oxdp::Result<u64> {
    let mut bytes = 0;
    let mut frames = fill.reserve(batch)?;
    for packet in rx.peek(batch)? {
        bytes += u64::from(packet.len()) + first(packet.data().unwrap_or_default());
        if frames.push(packet).is_err() {
            return Ok(0);
        }
    }
    frames.commit();
    Ok(bytes)
}

fn first(bytes: &[u8]) -> u64 {
    bytes.first().copied().unwrap_or_default().into()
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(way) = options.only {
        let batch = options.batch.first().context("a batch")?;
        return Bench::new(way)?.run(*batch, options.batches);
    }
    for batch in &options.batch {
        compare(*batch, options.check && *batch == 64)?;
    }
    Ok(())
}

fn compare(batch: u32, check: bool) -> Result<()> {
    println!("batches of {batch}: for each packet");
    println!("{:>24} {:>12} {:>8} {:>8} {:>8}", "", "instructions", "to C", "ns", "to C");
    let times = times(batch)?;
    let mut counts: Vec<(Way, f64)> = Vec::new();
    for (way, time) in times.iter().copied() {
        let count = instructions(way, batch)?;
        counts.push((way, count));
        let of = |list: &[(Way, f64)]| {
            let found = list.iter().find(|(other, _)| *other == way.yardstick());
            found.map(|(_, value)| *value).context("C's")
        };
        let (ratio, slowness) = (count / of(&counts)?, time / of(&times)?);
        println!("{way:>24} {count:>12.2} {ratio:>8.3} {time:>8.2} {slowness:>8.2}");
        let missed = way.bar().filter(|bar| check && ratio > *bar);
        ensure!(missed.is_none(), "{way}: {ratio:.3} times C's instructions");
    }
    Ok(())
}

/// Nanoseconds for each packet.
fn times(batch: u32) -> Result<Vec<(Way, f64)>> {
    let ways = Way::value_variants().iter().map(|way| Ok((*way, Bench::new(*way)?)));
    let mut ways = ways.collect::<Result<Vec<_>>>()?;
    let mut best: Vec<_> = ways.iter().map(|(way, _)| (*way, f64::INFINITY)).collect();
    for _ in 0..ROUNDS {
        for ((_, bench), (_, best)) in ways.iter_mut().zip(&mut best) {
            let start = Instant::now();
            bench.run(batch, TIMED / batch)?;
            *best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMED));
        }
    }
    Ok(best)
}

/// Instructions for each packet.
fn instructions(way: Way, batch: u32) -> Result<f64> {
    let (once, twice) = (counted(way, batch, COUNTED)?, counted(way, batch, 2 * COUNTED)?);
    Ok((twice - once) / f64::from(COUNTED * batch))
}

/// Instructions of a whole process.
fn counted(way: Way, batch: u32, batches: u32) -> Result<f64> {
    let way = way.to_possible_value().context("a name")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--only", way.get_name(), "--batch", &batch.to_string()])
        .args(["--batches", &batches.to_string()])
        .output()
        .context("running valgrind (package valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    Ok(line.with_context(|| said.to_string())?.1.trim().parse()?)
}
