//! How long a change to a chain takes, on a veth interface of a namespace of our own.
//!
//! `make bench` runs it in a VM and counts the bpf(2) calls with strace, for which `--only` does one change once.

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use oxdp::{Interface, Mode, Netns, Program, Xdp};
use std::process::Command;
use std::time::{Duration, Instant};
use support::counter;
use support::lab::{Pair, UPLINK};

#[derive(Parser)]
struct Options {
    /// Do this change once, untimed.
    #[arg(long)]
    only: Option<Only>,
    /// In this namespace, attach to its interface and end: what `--only` starts a process for.
    #[arg(long, hide = true)]
    attach_in: Option<String>,
    /// How many changes of each kind are timed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    /// Attach to an empty interface, in a process of its own.
    Empty,
    /// Add to a chain of one, in a process of its own.
    Live,
    /// Add to a chain of one, in the process that has just made it.
    Again,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let xdp = Xdp::builder().mount_bpffs(true).build()?;
    if let Some(netns) = &options.attach_in {
        return attach(&xdp, &Interface::by_name(&Netns::by_name(netns)?, UPLINK)?);
    }
    let pair = Pair::new("bench", 10)?;
    let interface = pair.interface()?;
    if let Some(only) = options.only {
        return once(&xdp, &pair, only);
    }
    let (mut empty, mut live) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let (mut first, mut second) = (counter()?, counter()?);
        empty.push(time(&xdp, &interface, &mut first)?);
        live.push(time(&xdp, &interface, &mut second)?);
        xdp.detach_all(&interface)?;
    }
    println!("attach to an empty interface: {}", summary(empty)?);
    println!("attach to a chain of one:     {}", summary(live)?);
    Ok(())
}

/// The markers are for who reads the trace: what lies between them is the change.
fn attach(xdp: &Xdp, interface: &Interface) -> Result<()> {
    let mut program = counter()?;
    println!("begin");
    xdp.attach(interface, &mut program, Mode::Native)?;
    println!("end");
    Ok(())
}

fn once(xdp: &Xdp, pair: &Pair, only: Only) -> Result<()> {
    let interface = pair.interface()?;
    if !matches!(only, Only::Empty) {
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
    }
    if matches!(only, Only::Again) {
        attach(xdp, &interface)?;
    } else {
        let status = Command::new(std::env::current_exe()?)
            .args(["--attach-in", &pair.near.name])
            .status()?;
        ensure!(status.success(), "the process that attaches: {status}");
    }
    xdp.detach_all(&interface)?;
    Ok(())
}

fn time(xdp: &Xdp, interface: &Interface, program: &mut Program) -> Result<Duration> {
    let start = Instant::now();
    xdp.attach(interface, program, Mode::Native)?;
    Ok(start.elapsed())
}

/// Median, least and most.
fn summary(mut times: Vec<Duration>) -> Result<String> {
    times.sort();
    let median = times.get(times.len() / 2);
    let (Some(median), Some(least), Some(most)) = (median, times.first(), times.last()) else {
        bail!("nothing was timed")
    };
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1000.0;
    Ok(format!(
        "median {:.1} ms of {}, {:.1} to {:.1} ms",
        milliseconds(median),
        times.len(),
        milliseconds(least),
        milliseconds(most)
    ))
}
