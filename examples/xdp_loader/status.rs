//! `status`: what is on the interfaces, as a table like C's or as JSON.

mod json;
mod table;

use crate::interface;
use anyhow::{Context, Result, bail};
use nix::net::if_::if_nameindex;
use oxdp::{ErrorKind, Interface, Mode, Netns, Occupant, Xdp};

/// An interface, and what is on it or why that is not known.
struct Entry {
    interface: Interface,
    found: oxdp::Result<Occupant>,
}

pub(crate) fn run(only: Option<&str>, as_json: bool) -> Result<()> {
    let interfaces = match only {
        Some(name) => vec![interface(name)?],
        None => interfaces()?,
    };
    let xdp = Xdp::new()?;
    let mut entries = Vec::new();
    for interface in interfaces {
        match xdp.inspect(&interface) {
            // It has gone since the interfaces were listed.
            Err(error) if only.is_none() && matches!(error.kind(), ErrorKind::NoInterface) => {}
            found => entries.push(Entry { interface, found }),
        }
    }
    let text = if as_json { json::render(&entries)? } else { table::render(&entries)? };
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).context("write")?;
    let failed: Vec<_> = entries.iter().filter_map(|entry| entry.found.as_ref().err()).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, ..] => bail!("{first}"),
    }
}

/// Those of the namespace of this process. Not of `/sys/class/net`: that is the namespace it was mounted in.
fn interfaces() -> Result<Vec<Interface>> {
    let netns = Netns::current()?;
    let mut interfaces = Vec::new();
    for entry in &if_nameindex().context("list the interfaces")? {
        match Interface::by_index(&netns, entry.index()) {
            Err(error) if matches!(error.kind(), ErrorKind::NoInterface) => {}
            found => interfaces.push(found?),
        }
    }
    Ok(interfaces)
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
