//! `clean`: pins that are of no use to anybody, in every namespace or in one.
//!
//! Unlike C's command, which looks at the interfaces of one namespace and removes the pins of all others, it removes what no
//! interface of any namespace uses, and where some cannot be seen only what is not in the kernel any more.

use crate::args::Clean;
use crate::netns;
use crate::report::Outcomes;
use anyhow::{Context, Result};
use oxdp::{EmptyDispatcher, Inventory, RecoveryAction, RecoveryPlan, SeenPins, Xdp};
use std::io::{self, Write as _};
use std::path::Path;

pub(crate) fn run(clean: &Clean, asked: Option<&str>) -> Result<()> {
    let xdp = Xdp::new()?;
    let inventory = xdp.inventory()?;
    let plan = inventory.plan(EmptyDispatcher::Keep);
    warn_of_left(&inventory, &plan);
    let mut plan = plan.cleanup();
    if asked.is_some() {
        netns::only(&netns::find(asked)?, &inventory, &mut plan)?;
    }
    if clean.dry_run {
        return plan
            .lines
            .iter()
            .try_for_each(|line| tell("would remove", &inventory, &line.action));
    }
    let mut outcomes = Outcomes::default();
    for applied in xdp.apply(&plan)? {
        if outcomes.count(&applied) {
            tell("removed", &inventory, &applied.line.action)?;
        }
    }
    outcomes.end()
}

/// Pins that nobody seems to use, and that stay.
fn warn_of_left(inventory: &Inventory, plan: &RecoveryPlan) {
    let is_pins = |what: &str| inventory.pins.iter().any(|pins| pins.path == Path::new(what));
    for line in &plan.lines {
        match &line.action {
            RecoveryAction::LeaveAlone { what } if is_pins(what) => {
                log::warn!("{what}: kept: {}", line.reason);
            }
            _ => log::info!("{line}"),
        }
    }
}

fn tell(verb: &str, inventory: &Inventory, action: &RecoveryAction) -> Result<()> {
    let line = match action {
        RecoveryAction::RemovePins { path, .. } => {
            let pins = inventory.pins.iter().find(|pins| pins.path == *path);
            format!("{verb} {} ({} pins)", path.display(), pins.map_or(0, count))
        }
        RecoveryAction::RemoveScope { path, .. } => format!("{verb} {}", path.display()),
        other => format!("{verb} {other}"),
    };
    writeln!(io::stdout(), "{line}").context("write")
}

fn count(pins: &SeenPins) -> usize {
    let of_slots = pins.slots.iter().flat_map(|slot| [slot.program, slot.link]);
    of_slots.flatten().count() + usize::from(pins.attachment.is_some())
}
