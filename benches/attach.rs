//! How long a change to a chain takes, on a veth interface of a namespace of our own.
//!
//! `make bench` runs it in a VM and counts the bpf(2) calls with strace. Options: `--only empty` or `--only live`
//! does that one change once, for counting; `--rounds N` sets how many are timed (20).

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use oxdp::{Interface, Mode, Program, Xdp};
use std::time::{Duration, Instant};
use support::counter;
use support::lab::Pair;

#[derive(Parser)]
struct Options {
    /// Do this change once, untimed.
    #[arg(long)]
    only: Option<Only>,
    /// How many changes of each kind are timed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    Empty,
    Live,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (xdp, pair) = (Xdp::builder().mount_bpffs(true).build()?, Pair::new("bench", 10)?);
    let interface = pair.interface()?;
    if let Some(only) = options.only {
        return once(&xdp, &interface, only);
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
fn once(xdp: &Xdp, interface: &Interface, only: Only) -> Result<()> {
    if matches!(only, Only::Live) {
        xdp.attach(interface, &mut counter()?, Mode::Native)?;
    }
    let mut program = counter()?;
    println!("begin");
    xdp.attach(interface, &mut program, Mode::Native)?;
    println!("end");
    xdp.detach_all(interface)?;
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
