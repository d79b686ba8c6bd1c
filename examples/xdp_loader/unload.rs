//! `unload`: programs go off an interface, by id, by name, or all of them.

use crate::args::Unload;
use crate::interface;
use anyhow::{Result, bail};
use oxdp::{ErrorKind, Interface, Occupant, Xdp};

pub(crate) fn run(unload: &Unload, asked: Option<&str>) -> Result<()> {
    let interface = interface(&unload.interface, asked)?;
    let xdp = Xdp::new()?;
    match (unload.id, &unload.name) {
        (Some(id), _) => one(&xdp, &interface, id),
        (None, Some(name)) => one(&xdp, &interface, find(&xdp, &interface, name)?),
        (None, None) => all(&xdp, &interface),
    }
}

fn one(xdp: &Xdp, interface: &Interface, id: u32) -> Result<()> {
    xdp.detach(interface, id)?;
    log::info!("{}: unloaded program {id}", interface.name());
    Ok(())
}

/// The operator said all: so a program that is part of no chain goes too, and is named.
fn all(xdp: &Xdp, interface: &Interface) -> Result<()> {
    let name = interface.name();
    let Err(error) = xdp.detach_all(interface) else {
        log::info!("{name}: unloaded the whole chain");
        return Ok(());
    };
    let ErrorKind::ForeignProgram(program) = error.kind() else { return Err(error.into()) };
    xdp.detach(interface, program.id)?;
    log::warn!("{name}: {program} was part of no chain, and is unloaded");
    Ok(())
}

/// The id of the program with a name.
fn find(xdp: &Xdp, interface: &Interface, name: &str) -> Result<u32> {
    let programs: Vec<(u32, String)> = match xdp.inspect(interface)? {
        Occupant::Chain(chain) => {
            let components = chain.members.into_iter().filter_map(|member| member.component);
            components.map(|component| (component.id, component.name)).collect()
        }
        Occupant::Foreign(program) => vec![(program.id, program.name)],
        _ => Vec::new(),
    };
    let of = |programs: &[&(u32, String)]| {
        let ids = programs.iter().map(|(id, name)| format!("{name} (id {id})"));
        if programs.is_empty() { "none".into() } else { ids.collect::<Vec<_>>().join(", ") }
    };
    let found: Vec<_> = programs.iter().filter(|(_, own)| own == name).collect();
    match found.as_slice() {
        [(id, _)] => Ok(*id),
        [] => bail!(
            "unload from {interface}: no program {name}; it has {}",
            of(&programs.iter().collect::<Vec<_>>())
        ),
        several => bail!(
            "unload from {interface}: {name} names several programs, choose one by --id: {}",
            of(several)
        ),
    }
}
