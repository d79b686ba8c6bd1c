//! The table: C's columns, and behind them what only we tell.

use super::state::State;
use super::{Entry, Section, hex, mode_name};
use anyhow::{Context, Result};
use oxdp::{Chain, ForeignProgram, Member, Occupant};
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

/// One line of the table.
#[derive(Default)]
struct Row {
    interface: String,
    priority: String,
    name: String,
    mode: String,
    id: String,
    tag: String,
    actions: String,
    details: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!(
            "{:<16} {:<5} {:<17} {:<8} {:<4} {:<17} {:<18} {}",
            self.interface,
            self.priority,
            self.name,
            self.mode,
            self.id,
            self.tag,
            self.actions,
            self.details,
        );
        f.write_str(line.trim_end())
    }
}

pub(super) fn one(section: &Section) -> Result<String> {
    let mut text = head();
    write_rows(&mut text, section)?;
    text.push('\n');
    Ok(text)
}

/// Each namespace with its name above it.
pub(super) fn all(sections: &[Section], gaps: &[String]) -> Result<String> {
    let mut text = head();
    for section in sections {
        writeln!(text, "{}:", section.netns)?;
        write_rows(&mut text, section)?;
        text.push('\n');
    }
    for gap in gaps {
        writeln!(text, "not all is seen: {gap}")?;
    }
    Ok(text)
}

fn head() -> String {
    let head = Row {
        interface: "Interface".into(),
        priority: "Prio".into(),
        name: "Program name".into(),
        mode: "Mode".into(),
        id: "ID".into(),
        tag: "Tag".into(),
        actions: "Chain actions".into(),
        details: "Details".into(),
    };
    format!("CURRENT XDP PROGRAM STATUS:\n\n{head}\n{}\n", "-".repeat(110))
}

fn write_rows(text: &mut String, section: &Section) -> Result<()> {
    let up = uptime()?;
    for entry in &section.entries {
        for row in rows(entry, up) {
            writeln!(text, "{row}")?;
        }
        let plan = entry.plan.iter().flatten().filter(|line| line.action.is_change());
        for line in plan {
            writeln!(text, "    recover: {line}")?;
        }
    }
    Ok(())
}

fn rows(entry: &Entry, up: Duration) -> Vec<Row> {
    let interface = entry.interface.name().to_owned();
    match &entry.found {
        Ok(Occupant::Chain(chain)) => {
            let members = chain.members.iter().map(|member| of_member(member, up));
            std::iter::once(of_dispatcher(entry, chain)).chain(members).collect()
        }
        Ok(Occupant::Foreign(program)) => vec![of_foreign(interface, program, up)],
        Ok(_) => vec![Row { interface, name: "<No XDP program loaded!>".into(), ..Row::default() }],
        Err(_) => vec![Row { interface, name: "<not known>".into(), ..Row::default() }],
    }
}

fn of_dispatcher(entry: &Entry, chain: &Chain) -> Row {
    let state = match State::of(entry, chain) {
        State::Whole => None,
        State::Moved => Some("MOVED: its pins belong to another place"),
        State::Damaged => Some("DAMAGED: pins are lost"),
        State::Orphaned => Some("ORPHANED: all pins are lost"),
    };
    let marks = [
        chain.has_frags.then_some("frags"),
        chain.is_device_bound.then_some("device-bound"),
        state,
    ];
    let details = [format!("protocol {}", chain.version), format!("by {}", chain.attached_by)];
    let marks = marks.into_iter().flatten().map(str::to_owned);
    Row {
        interface: entry.interface.name().to_owned(),
        name: "xdp_dispatcher".into(),
        mode: mode_name(chain.mode),
        id: chain.dispatcher.to_string(),
        tag: hex(chain.tag),
        details: details.into_iter().chain(marks).collect::<Vec<_>>().join(", "),
        ..Row::default()
    }
}

fn of_member(member: &Member, up: Duration) -> Row {
    let component = member.component.as_ref();
    let loaded = component.map(|component| ago(up, component.load_time));
    let marks = [
        member.has_frags.then(|| "frags".to_owned()),
        member.is_device_bound.then(|| "device-bound".to_owned()),
        component.is_none().then(|| format!("slot {}: PROGRAM NOT PINNED", member.slot)),
        (!member.is_linked).then(|| format!("slot {}: LINK NOT PINNED", member.slot)),
    ];
    let details: Vec<_> = loaded.into_iter().chain(marks.into_iter().flatten()).collect();
    Row {
        interface: " =>".into(),
        priority: member.priority.to_string(),
        name: component.map_or_else(|| "<missing>".into(), |component| component.name.clone()),
        id: component.map(|component| component.id.to_string()).unwrap_or_default(),
        tag: component.map(|component| hex(component.tag)).unwrap_or_default(),
        actions: member.actions.to_string(),
        details: details.join(", "),
        ..Row::default()
    }
}

fn of_foreign(interface: String, program: &ForeignProgram, up: Duration) -> Row {
    let by = program.attached_by.map(|by| format!(", by {by}")).unwrap_or_default();
    Row {
        interface,
        name: program.name.clone(),
        mode: mode_name(program.mode),
        id: program.id.to_string(),
        tag: hex(program.tag),
        details: format!("FOREIGN: in no chain{by}, {}", ago(up, program.load_time)),
        ..Row::default()
    }
}

/// Times of the kernel count from here.
fn uptime() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    seconds.map(Duration::from_secs_f64).context("/proc/uptime is no number")
}

fn ago(up: Duration, then: Duration) -> String {
    let seconds = up.saturating_sub(then).as_secs();
    let (minutes, hours) = (seconds / 60 % 60, seconds / 3600);
    format!("loaded {hours}:{minutes:02}:{:02} ago", seconds % 60)
}
