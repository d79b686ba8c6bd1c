//! `status`: what is on the interfaces, as a table like C's or as JSON.

mod json;
mod state;
mod table;

use crate::args::Status;
use crate::netns;
use anyhow::{Context, Result, bail};
use oxdp::{
    EmptyDispatcher, ErrorKind, Interface, Inventory, Mode, Netns, Occupant, PlanLine, Xdp,
};
use std::io::Write as _;

/// A namespace and its interfaces.
struct Section {
    netns: Netns,
    entries: Vec<Entry>,
}

/// An interface, and what is on it or why that is not known.
struct Entry {
    interface: Interface,
    found: oxdp::Result<Occupant>,
    /// What a recovery would do; `None` if that was not looked for.
    plan: Option<Vec<PlanLine>>,
}

pub(crate) fn run(status: &Status, asked: Option<&str>) -> Result<()> {
    let xdp = Xdp::new()?;
    let (text, sections) = if status.all_netns {
        let inventory = xdp.inventory()?;
        let sections = all(&xdp, &inventory)?;
        let gaps = &inventory.gaps;
        let render = if status.json { json::all } else { table::all };
        (render(&sections, gaps)?, sections)
    } else {
        let section = one(&xdp, netns::find(asked)?, status.interface.as_deref())?;
        let render = if status.json { json::one } else { table::one };
        (render(&section)?, vec![section])
    };
    std::io::stdout().write_all(text.as_bytes()).context("write")?;
    let mut entries = sections.iter().flat_map(|section| &section.entries);
    match entries.find_map(|entry| entry.found.as_ref().err()) {
        None => Ok(()),
        Some(error) => bail!("{error}"),
    }
}

fn one(xdp: &Xdp, netns: Netns, only: Option<&str>) -> Result<Section> {
    let interfaces = match only {
        Some(name) => vec![Interface::by_name(&netns, name)?],
        None => netns::interfaces(&netns)?,
    };
    let mut entries = Vec::new();
    for interface in interfaces {
        match xdp.inspect(&interface) {
            // It has gone since the interfaces were listed.
            Err(error) if only.is_none() && matches!(error.kind(), ErrorKind::NoInterface) => {}
            found => entries.push(Entry { interface, found, plan: None }),
        }
    }
    Ok(Section { netns, entries })
}

/// With what a recovery would do about each chain.
fn all(xdp: &Xdp, inventory: &Inventory) -> Result<Vec<Section>> {
    let plan = inventory.plan(EmptyDispatcher::Remove);
    let mut sections = Vec::new();
    let mut all = Netns::all()?;
    all.sort_by(|one, other| one.label().cmp(other.label()));
    for netns in all {
        let mut section = one(xdp, netns, None)?;
        for entry in &mut section.entries {
            let Ok(Occupant::Chain(chain)) = &entry.found else { continue };
            let is_its = |line: &&PlanLine| {
                line.action.chain().is_some_and(|at| at.dispatcher == chain.dispatcher)
            };
            entry.plan = Some(plan.lines.iter().filter(is_its).cloned().collect());
        }
        sections.push(section);
    }
    Ok(sections)
}

fn hex(tag: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(tag))
}

/// C's word for a mode.
fn mode_name(mode: Mode) -> String {
    match mode {
        Mode::Hardware => "hw".into(),
        other => other.to_string(),
    }
}
