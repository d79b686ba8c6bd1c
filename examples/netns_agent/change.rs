//! The steps for an interface, as one change.

use crate::steps::Step;
use crate::stock::Stock;
use anyhow::{Context, Result};
use oxdp::{Interface, Mode, Outcome, Program, Xdp};

/// All steps or none.
pub(crate) fn commit(
    (xdp, stock): (&Xdp, &Stock),
    interface: &Interface,
    mode: Mode,
    steps: &[Step<'_>],
) -> Result<Outcome> {
    let coming = steps.iter().map(|step| coming(stock, step));
    let mut programs = coming.collect::<Result<Vec<_>>>()?;
    let mut edit = xdp.edit(interface).mode(mode);
    for (step, program) in steps.iter().zip(&mut programs) {
        edit = match (step, program) {
            (Step::Insert(_), Some(program)) => edit.insert(program),
            (Step::Replace(have, want), Some(program)) => {
                let id = program.id().unwrap_or_default();
                // It comes with the settings of what it replaces.
                edit.replace(have.program, program)
                    .set_priority(id, want.priority)
                    .set_chain_actions(id, want.actions)
            }
            (Step::Adjust(have, want), _) => edit
                .set_priority(have.program, want.priority)
                .set_chain_actions(have.program, want.actions),
            (Step::Remove(have), _) => edit.remove(have.program),
            (Step::Insert(_) | Step::Replace(..), None) => edit,
        };
    }
    Ok(edit.commit()?)
}

/// The program that comes by a step, if one does.
fn coming(stock: &Stock, step: &Step<'_>) -> Result<Option<Program>> {
    let (Step::Insert(want) | Step::Replace(_, want)) = step else { return Ok(None) };
    let program = stock.program(&want.version);
    let mut program = program.context("its program is not loaded")?.clone();
    program.set_priority(want.priority);
    program.set_chain_actions(want.actions);
    Ok(Some(program))
}

pub(crate) fn tell(name: &str, steps: &[Step<'_>], outcome: &Outcome) {
    for step in steps {
        log::info!("{name}: {step}");
    }
    for downgrade in &outcome.downgrades {
        log::warn!("{name}: {downgrade}");
    }
    if let Some(leftover) = &outcome.leftover {
        log::warn!("{name}: the old pins could not be removed: {}", leftover.display());
    }
}
