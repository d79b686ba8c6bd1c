//! What is left behind by others, or by an agent that was killed, is put right: inventory, plan, apply.

use crate::report::one_line;
use crate::say;
use anyhow::{Result, ensure};
use oxdp::{Done, EmptyDispatcher, Xdp};

/// A dispatcher without programs goes: what is wanted there is attached again.
pub(crate) fn run(xdp: &Xdp, is_dry: bool) -> Result<()> {
    let inventory = xdp.inventory()?;
    inventory.gaps.iter().for_each(|gap| log::debug!("recovery does not see all: {gap}"));
    let plan = inventory.plan(EmptyDispatcher::Remove);
    if is_dry {
        let mut changes = plan.lines.iter().filter(|line| line.action.is_change());
        return changes.try_for_each(|line| say(&format!("recovery: {line}")));
    }
    let mut failed = 0;
    for applied in xdp.apply(&plan)? {
        let line = applied.line;
        match applied.done {
            Done::Changed => log::info!("recovery: {line}"),
            Done::Failed(error) => {
                failed += 1;
                log::error!("recovery: {line}: {}", one_line(&error.into()));
            }
            Done::Outdated { why } => log::debug!("recovery: {line}: not done, since {why}"),
            _ => log::debug!("recovery: {line}"),
        }
    }
    ensure!(failed == 0, "{failed} of {} lines failed", plan.lines.len());
    Ok(())
}
