//! A join that fails at any of its calls has attached nothing, and counted nobody; and a leave is tried again.

use super::{DefaultProgram, ProgramOptions};
use crate::support::lab::Pair;
use crate::support::{Baseline, pins};
use crate::sys::Kernel;
use crate::sys::fault::Plan;
use crate::{Interface, Legacy, Occupant, Policy, Xdp};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;

/// An errno that no call of ours gives a meaning.
const ERRNO: i32 = libc::EIO;

fn xdp(policy: Policy, kernel: Kernel) -> Result<Xdp> {
    let builder = Xdp::builder().mount_bpffs(true).layout(Legacy).policy(policy);
    Ok(builder.kernel(kernel).build()?)
}

fn join(policy: Policy, interface: &Interface, plan: Arc<Plan>) -> Result<DefaultProgram> {
    let xdp = xdp(policy, Kernel::with_fault(plan))?;
    Ok(DefaultProgram::join(&xdp, interface, &ProgramOptions::default())?)
}

/// The count of the program that is there.
fn count(program: &DefaultProgram) -> Result<i32> {
    program.shared.count(&Kernel::default())?.context("a program that counts")
}

/// Makes each call of a join fail, with nothing there and with another user.
fn fails_everywhere(policy: Policy) -> Result<()> {
    let baseline = Baseline::take()?;
    for others in [0, 1] {
        let pair = Pair::new("fault", 10)?;
        let interface = pair.interface()?;
        let healthy = xdp(policy, Kernel::default())?;
        let options = ProgramOptions::default();
        let other = (others > 0)
            .then(|| DefaultProgram::join(&healthy, &interface, &options))
            .transpose()?;
        let record = Arc::new(Plan::record());
        join(policy, &interface, Arc::clone(&record))?.leave()?;
        let calls = record.seen();
        let (before, pinned) = (healthy.inspect(&interface)?, pins()?);
        let mut failed = 0;
        for (call, name) in calls.iter().enumerate() {
            let plan = Arc::new(Plan::fail(call..call + 1, ERRNO));
            match join(policy, &interface, plan) {
                // Leaving is tried twice.
                Ok(program) => drop(program),
                Err(_) => failed += 1,
            }
            let after = healthy.inspect(&interface)?;
            ensure!(after == before && pins()? == pinned, "call {call}, {name}: {after:?}");
            if let Some(other) = &other {
                ensure!(count(other)? == 1, "call {call}, {name}: {} users", count(other)?);
            }
        }
        ensure!(failed > calls.len() / 3, "{failed} of {}", calls.len());
        drop(other);
        ensure!(healthy.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

#[test]
fn a_join_that_fails_leaves_nothing_alone() -> Result<()> {
    fails_everywhere(Policy::Single)
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_join_that_fails_leaves_nothing_in_a_chain() -> Result<()> {
    fails_everywhere(Policy::Chain)
}
