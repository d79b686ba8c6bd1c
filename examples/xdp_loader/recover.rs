//! `recover`: what killed processes, dead namespaces and lost bpf file systems have left behind is put right. A dry run
//! unless it is told to do it.
//!
//! `--json` gives, in the words of the library:
//!
//! ```json
//! {
//!   "format": 1,
//!   "gaps": ["…"],                                what may hide namespaces, in which nothing is removed then
//!   "lines": [{
//!     "action": "adopt",                          "nothing", "leave-alone", "adopt", "rehome", "drop-slots", "detach",
//!                                                 "remove-pins" or "remove-scope", and what that is done to
//!     "reason": "its programs run, and their pins are lost",
//!     "outcome": null                             in a dry run, or
//!     "outcome": "changed",                       "nothing", "outdated" or "failed"
//!     "why": null                                 or why it was not done
//!   }]
//! }
//! ```

use crate::args::Recover;
use crate::netns;
use crate::report::Outcomes;
use anyhow::{Context, Result};
use oxdp::{
    Applied, Done, EmptyDispatcher, Inventory, PlanLine, RecoveryAction, RecoveryPlan, Xdp,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};

const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    gaps: &'a [String],
    lines: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    planned: &'a PlanLine,
    outcome: Option<&'static str>,
    why: Option<String>,
}

pub(crate) fn run(recover: &Recover, asked: Option<&str>, is_verbose: bool) -> Result<()> {
    let xdp = Xdp::new()?;
    let empty = if recover.keep_empty { EmptyDispatcher::Keep } else { EmptyDispatcher::Remove };
    let inventory = xdp.inventory()?;
    let mut plan = inventory.plan(empty);
    if asked.is_some() {
        netns::only(&netns::find(asked)?, &inventory, &mut plan)?;
    }
    if !is_verbose {
        plan.lines.retain(|line| !matches!(line.action, RecoveryAction::Nothing { .. }));
    }
    let applied = if recover.apply { Some(xdp.apply(&plan)?) } else { None };
    match (applied, recover.json) {
        (None, true) => print(&json(&inventory, plan.lines.iter().map(Line::planned))?),
        (None, false) => tell_plan(&inventory, &plan),
        (Some(applied), is_json) => tell_applied(&inventory, &applied, is_json),
    }
}

fn tell_plan(inventory: &Inventory, plan: &RecoveryPlan) -> Result<()> {
    let changes = plan.lines.iter().filter(|line| line.action.is_change()).count();
    let mut text = plan.to_string();
    add_gaps(&mut text, inventory)?;
    let all = plan.lines.len();
    let end = match changes {
        0 => "nothing would change".to_owned(),
        _ => format!("{changes} of {all} would change; run again with --apply"),
    };
    writeln!(text, "{end}")?;
    print(&text)
}

fn tell_applied(inventory: &Inventory, all: &[Applied], is_json: bool) -> Result<()> {
    let mut outcomes = Outcomes::default();
    let mut text = String::new();
    for applied in all {
        outcomes.count(applied);
        writeln!(text, "{:<9} {}", outcome(&applied.done), applied.line)?;
    }
    add_gaps(&mut text, inventory)?;
    writeln!(text, "{} of {} changed{outcomes}", outcomes.changed, all.len())?;
    if is_json {
        text = json(inventory, all.iter().map(Line::applied))?;
    }
    print(&text)?;
    outcomes.end()
}

/// What may hide namespaces.
fn add_gaps(text: &mut String, inventory: &Inventory) -> Result<()> {
    Ok(inventory.gaps.iter().try_for_each(|gap| writeln!(text, "not all is seen: {gap}"))?)
}

fn outcome(done: &Done) -> &'static str {
    match done {
        Done::Changed => "changed",
        Done::Outdated { .. } => "outdated",
        Done::Failed(_) => "failed",
        _ => "nothing",
    }
}

impl<'a> Line<'a> {
    fn planned(line: &'a PlanLine) -> Self {
        Self { planned: line, outcome: None, why: None }
    }

    fn applied(applied: &'a Applied) -> Self {
        let why = match &applied.done {
            Done::Outdated { why } => Some(why.clone()),
            Done::Failed(error) => Some(error.to_string()),
            _ => None,
        };
        Self { planned: &applied.line, outcome: Some(outcome(&applied.done)), why }
    }
}

fn json<'a>(inventory: &'a Inventory, lines: impl Iterator<Item = Line<'a>>) -> Result<String> {
    let report = Report { format: FORMAT, gaps: &inventory.gaps, lines: lines.collect() };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("write")
}
