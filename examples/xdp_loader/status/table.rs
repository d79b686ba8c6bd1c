//! The table: C's columns, and behind them what only we tell.

use super::{Entry, hex, mode_name};
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

pub(super) fn render(entries: &[Entry]) -> Result<String> {
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
    let rule = "-".repeat(110);
    let mut text = format!("CURRENT XDP PROGRAM STATUS:\n\n{head}\n{rule}\n");
    let up = uptime()?;
    for entry in entries {
        for row in rows(entry, up) {
            writeln!(text, "{row}")?;
        }
    }
    text.push('\n');
    Ok(text)
}

fn rows(entry: &Entry, up: Duration) -> Vec<Row> {
    let interface = entry.interface.name().to_owned();
    match &entry.found {
        Ok(Occupant::Chain(chain)) => {
            let members = chain.members.iter().map(|member| of_member(member, up));
            std::iter::once(of_dispatcher(interface, chain)).chain(members).collect()
        }
        Ok(Occupant::Foreign(program)) => vec![of_foreign(interface, program, up)],
        Ok(_) => vec![Row { interface, name: "<No XDP program loaded!>".into(), ..Row::default() }],
        Err(_) => vec![Row { interface, name: "<not known>".into(), ..Row::default() }],
    }
}

fn of_dispatcher(interface: String, chain: &Chain) -> Row {
    let mut details =
        vec![format!("protocol {}", chain.version), format!("by {}", chain.attached_by)];
    let marks = [
        (chain.has_frags, "frags"),
        (chain.is_device_bound, "device-bound"),
        (chain.pins.is_none(), "PINS LOST"),
    ];
    details.extend(marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).to_owned()));
    Row {
        interface,
        name: "xdp_dispatcher".into(),
        mode: mode_name(chain.mode),
        id: chain.dispatcher.to_string(),
        tag: hex(chain.tag),
        details: details.join(", "),
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
        details: format!("in no chain{by}, {}", ago(up, program.load_time)),
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
