//! Processes killed in place of every single system call of every kind of change, and of a recovery, while packets flow.
//! Needs freplace, so `make test` runs these in VMs; `OXDP_KILL_STRIDE=N` thins them out.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../support/mod.rs"]
mod support;

mod call;
mod mess;
mod operation;
mod puppet;
mod sieve;
mod stage;
mod table;
mod theirs;
mod tracer;
mod victim;

use anyhow::{Context, Result, ensure};
use operation::{OPERATIONS, Operation};
use oxdp::{Interface, Netns};
use stage::Stage;
use std::io::Write;
use support::Baseline;
use support::lab::{Pair, UPLINK};
use support::traffic::Traffic;
use table::Table;
use theirs::{Bench, DEEDS, library};
use victim::Original;

/// What tells a victim where and what to do.
const NETNS: &str = "OXDP_TEST_NETNS";
const OPERATION: &str = "OXDP_TEST_OPERATION";

/// Kills those of [`OPERATIONS`] that are wanted at every call. What came of it is told in any case.
fn survive(wanted: impl Fn(&Operation) -> bool, table: &mut Table<stage::Tally>) -> Result<()> {
    for operation in OPERATIONS.iter().filter(|operation| wanted(operation)) {
        let pair = Pair::new("kill", 10)?;
        let traffic = Traffic::start(&pair)?;
        Stage::new(operation, &pair, &traffic)?.kill_everywhere(table)?;
        traffic.stop()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_change_that_dies_at_any_system_call_leaves_the_old_chain_or_the_new_one() -> Result<()> {
    let (baseline, mut table) = (Baseline::take()?, Table::new());
    let result = survive(|operation| !operation.mends, &mut table);
    println!("{table}");
    result?;
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_recovery_that_dies_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    let (baseline, mut table) = (Baseline::take()?, Table::new());
    let result = survive(|operation| operation.mends, &mut table);
    println!("{table}");
    result?;
    baseline.assert_restored()
}

/// The same deaths of C libxdp: what they leave behind, and that our recovery harms no chain that lives.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn c_libxdp_dies_as_often() -> Result<()> {
    let (baseline, mut table) = (Baseline::take()?, Table::new());
    let library = library()?;
    let result = DEEDS.iter().try_for_each(|deed| {
        let pair = Pair::new("theirs", 10)?;
        let traffic = Traffic::start(&pair)?;
        Bench::new(deed, library, &pair, &traffic)?.kill_everywhere(&mut table)?;
        traffic.stop()
    });
    println!("{table}");
    result?;
    baseline.assert_restored()
}

/// The process whose copies are killed; by itself, all operations without a death.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_process_of_its_own() -> Result<()> {
    let Ok(operation) = std::env::var(OPERATION) else {
        return OPERATIONS.iter().try_for_each(|operation| {
            let pair = Pair::new("unharmed", 10)?;
            let traffic = Traffic::start(&pair)?;
            Stage::new(operation, &pair, &traffic)?.unharmed().map(drop).context(operation.name)
        });
    };
    let operation = Operation::by_name(&operation)?;
    let mut new = operation.new_program()?;
    // On a line of its own: the test harness has begun one.
    say("\nok")?;
    // What goes on from here is a copy: whatever had been opened before, it would share with others.
    hear()?;
    let interface = Interface::by_name(&Netns::by_name(&std::env::var(NETNS)?)?, UPLINK)?;
    let xdp = operation.xdp()?;
    say("ok")?;
    let command = hear()?;
    // After `go`, the ids of the programs that are there.
    let ids = command.split_whitespace().skip(1).map(|id| Ok(id.parse()?));
    let ids = ids.collect::<Result<Vec<u32>>>()?;
    match operation.carry_out(&xdp, &interface, &ids, &mut new) {
        Ok(()) => say("ok"),
        Err(error) => say(&format!("error {error:#}")),
    }
}

/// A command.
fn hear() -> Result<String> {
    let mut line = String::new();
    ensure!(std::io::stdin().read_line(&mut line)? > 0, "nobody wants anything done");
    Ok(line)
}

/// In one call, as an answer must be.
fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{text}\n").as_bytes())?;
    Ok(stdout.flush()?)
}
