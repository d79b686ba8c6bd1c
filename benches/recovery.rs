//! How long it takes to look at many namespaces and to plan their recovery; and whether an attach takes longer the more
//! is pinned.
//!
//! `make bench` runs it natively, where programs without a dispatcher stand in for chains, and in a VM with chains.

#![allow(clippy::print_stdout, reason = "a benchmark's job is to print")]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod support;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use oxdp::{EmptyDispatcher, Inventory, Legacy, Mode, NetnsInode, Policy, Xdp};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::lab::{Crowd, Pair};
use support::{counter, id, program};

#[derive(Parser)]
struct Options {
    /// With chains, and with the attaches beside many pins; else with programs that run alone.
    #[arg(long)]
    chains: bool,
    /// How often each thing is timed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Numbers of namespaces.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    namespaces: Vec<usize>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much else is pinned.
const PINS: usize = 5_000;
/// Pins of a chain of ten.
const PINS_OF_CHAIN: usize = 20;
/// Before each attach: what went in the round before is freed by the kernel later on.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let options = Options::parse();
    let xdp = Xdp::builder().mount_bpffs(true).layout(NetnsInode).build()?;
    let what = if options.chains { "a chain" } else { "a program" };
    println!(
        "inventory and plan of namespaces with {what} each, median of {}, in ms",
        options.rounds
    );
    println!("{:>10} {:>10} {:>8} {:>14}", "namespaces", "inventory", "plan", "per namespace");
    for count in options.namespaces {
        look(&xdp, count, options.rounds, options.chains)?;
    }
    if options.chains {
        attaches(options.rounds)?;
    }
    Ok(())
}

fn look(xdp: &Xdp, count: usize, rounds: usize, chains: bool) -> Result<()> {
    let crowd = Crowd::new(count)?;
    let policy = if chains { Policy::Chain } else { Policy::Single };
    let mut programs = Vec::new();
    for number in 0..count {
        let mut pass = program("xdp_pass.o")?;
        let interface = crowd.interface(number)?;
        xdp.edit(&interface).insert(&mut pass).policy(policy).commit()?;
        programs.push(id(&pass));
    }
    let (mut inventories, mut plans) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let inventory = xdp.inventory()?;
        inventories.push(start.elapsed());
        let start = Instant::now();
        let plan = inventory.plan(EmptyDispatcher::Remove);
        plans.push(start.elapsed());
        ensure!(attached(&inventory) == count && !plan.is_change(), "{plan}");
    }
    let (inventory, plan) = (median(&mut inventories)?, median(&mut plans)?);
    let each = (ms(inventory) + ms(plan)) / f64::from(u32::try_from(count)?);
    println!("{count:>10} {:>10.1} {:>8.2} {each:>14.3}", ms(inventory), ms(plan));
    for (number, program) in programs.into_iter().enumerate() {
        xdp.detach(&crowd.interface(number)?, program)?;
    }
    Ok(())
}

fn attached(inventory: &Inventory) -> usize {
    inventory.namespaces.iter().map(|netns| netns.interfaces.len()).sum()
}

/// Attaches beside many pins, in the place where all of them lie and in another.
fn attaches(rounds: usize) -> Result<()> {
    println!("adding a program to a chain of one, median of {rounds}, in ms");
    println!("{:>12} {:>8} {:>8} {:>8}", "layout", "0 pins", format!("{PINS}"), "ratio");
    let pair = Pair::new("pins", 10)?;
    let xdp = Xdp::builder().mount_bpffs(true);
    let legacy = xdp.layout(Legacy).build()?;
    let own = Xdp::builder().layout(NetnsInode).build()?;
    for (name, xdp) in [("Legacy", legacy), ("NetnsInode", own)] {
        let interface = pair.interface()?;
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds.div_ceil(5) {
            let five = |times: &mut Vec<Duration>| -> Result<()> {
                for _ in 0..5 {
                    let mut program = counter()?;
                    std::thread::sleep(PAUSE);
                    let start = Instant::now();
                    xdp.attach(&interface, &mut program, Mode::Native)?;
                    times.push(start.elapsed());
                    xdp.detach(&interface, id(&program))?;
                }
                Ok(())
            };
            five(&mut without)?;
            let others = Others::pin()?;
            five(&mut with)?;
            drop(others);
        }
        xdp.detach_all(&interface)?;
        let (without, with) = (median(&mut without)?, median(&mut with)?);
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!("{name:>12} {:>8.1} {:>8.1} {ratio:>8.2}", ms(without), ms(with));
    }
    Ok(())
}

/// Directories with pins as if other interfaces had chains, where C libxdp has them.
struct Others(Vec<PathBuf>);

impl Others {
    fn pin() -> Result<Self> {
        let mut program = program("xdp_pass.o")?;
        let pair = Pair::new("others", 10)?;
        // Only to have it loaded.
        let xdp = Xdp::builder().build()?;
        xdp.edit(&pair.interface()?).insert(&mut program).policy(Policy::Single).commit()?;
        let mut others = Self(Vec::new());
        for number in 0..PINS / PINS_OF_CHAIN {
            let path = Path::new(support::BPFFS).join(format!(
                "xdp/dispatch-{}-{}",
                5000 + number,
                4_000_000_000 + number
            ));
            std::fs::create_dir_all(&path)?;
            others.0.push(path.clone());
            for slot in 0..PINS_OF_CHAIN / 2 {
                program.pin(path.join(format!("prog{slot}-prog")))?;
                program.pin(path.join(format!("prog{slot}-link")))?;
            }
        }
        xdp.detach(&pair.interface()?, id(&program))?;
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for path in &self.0 {
            // What is left is seen by the next run.
            let _ = support::remove_pins(path);
        }
    }
}

fn median(times: &mut [Duration]) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("nothing was timed")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
