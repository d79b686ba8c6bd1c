//! `load`: programs of files go onto an interface, all of them in one change.

use crate::args::{AttachByName, Load, PolicyName};
use crate::{FAILED, Failure, interface};
use anyhow::{Result, bail};
use oxdp::{AttachBy, Edit, ErrorKind, Mode, Outcome, Policy, Program, Select, Xdp};
use std::path::Path;

pub(crate) fn run(load: &Load, asked: Option<&str>) -> Result<(), Failure> {
    let interface = interface(&load.interface, asked)?;
    let policy = policy(load)?;
    let failed = |error: oxdp::Error| Failure { status: status(&error), error: error.into() };
    let opened = load.files.iter().map(|file| open(load, file)).collect::<oxdp::Result<Vec<_>>>();
    let mut programs = opened.map_err(failed)?;
    let mut xdp = Xdp::builder()
        .attach_by(AttachBy::from(load.attach_by))
        .protocol_version(load.protocol_version);
    if let Some(policy) = policy {
        xdp = xdp.policy(policy);
    }
    let xdp = xdp.build().map_err(failed)?;
    let mut edit = xdp.edit(&interface).mode(Mode::from(load.mode));
    if let Some(id) = load.replace {
        edit = edit.replace_foreign(id);
    }
    let edit = programs.iter_mut().fold(edit, Edit::insert);
    let outcome = edit.commit().map_err(failed)?;
    tell(load, &outcome, &programs);
    Ok(())
}

/// `None` for what the library makes of the environment. Otherwise as C does: a chain where there can be one.
fn policy(load: &Load) -> Result<Option<Policy>> {
    let skips = std::env::var_os("LIBXDP_SKIP_DISPATCHER").is_some_and(|value| value == "1");
    let asked = load.policy.map(Policy::from);
    let is_alone = asked == Some(Policy::Single) || (asked.is_none() && skips);
    match load.attach_by {
        AttachByName::Link if is_alone => bail!(
            "load on {}: only a chain has a pin for its link; without one, the program would go with this process",
            load.interface
        ),
        // Falling back to a program alone would be just that.
        AttachByName::Link => Ok(Some(Policy::Chain)),
        AttachByName::Netlink if asked.is_none() && skips => Ok(None),
        AttachByName::Netlink => Ok(Some(asked.unwrap_or(Policy::Auto))),
    }
}

fn open(load: &Load, file: &Path) -> oxdp::Result<Program> {
    let mut program = match (&load.section, &load.prog_name) {
        (Some(section), _) => Program::from_file(file, Select::Section(section)),
        (_, Some(name)) => Program::from_file(file, Select::Function(name)),
        _ => first(file),
    }?;
    if let Some(priority) = load.prio {
        program.set_priority(priority);
    }
    if let Some(actions) = load.actions {
        program.set_chain_actions(actions);
    }
    program.set_map_pins(load.pin_path.as_deref())?;
    Ok(program)
}

/// The first program in the file; C's choice where none was named.
fn first(file: &Path) -> oxdp::Result<Program> {
    let only = Program::from_file(file, Select::Only);
    let Err(error) = &only else { return only };
    match error.kind() {
        ErrorKind::AmbiguousProgram { available } => match available.as_slice() {
            [first, ..] => Program::from_file(file, Select::Function(first)),
            [] => only,
        },
        _ => only,
    }
}

/// What C's libraries have in place of an errno for a file that is no BPF object (`LIBBPF_ERRNO__FORMAT`).
const FORMAT: i32 = 4001;

/// C's exit status: the low byte of the negative errno, which some causes have only in C.
fn status(error: &oxdp::Error) -> u8 {
    let errno = match error.kind() {
        ErrorKind::NoInterface => return FAILED,
        ErrorKind::NoSuchProgram { .. } => libc::ENOENT,
        ErrorKind::ForeignProgram(_)
        | ErrorKind::ChainAttached { .. }
        | ErrorKind::ModeConflict { .. }
        | ErrorKind::HeldByLink { .. }
        | ErrorKind::Contended { .. } => libc::EBUSY,
        ErrorKind::ChainFull { .. } => libc::E2BIG,
        ErrorKind::NoFreplace { .. } | ErrorKind::OnlyOne { .. } => libc::EOPNOTSUPP,
        ErrorKind::CorruptObject(_) => FORMAT,
        _ => error.errno().unwrap_or(libc::EINVAL),
    };
    let [low, ..] = errno.wrapping_neg().to_le_bytes();
    low
}

/// What was lost is a warning; what was done is told only if asked for.
fn tell(load: &Load, outcome: &Outcome, programs: &[Program]) {
    let interface = &load.interface;
    if let Some(single) = &outcome.single {
        let text = format!(
            "{interface}: program {} runs alone, and no other can join it: {}",
            single.program, single.why
        );
        if matches!(load.policy, Some(PolicyName::Single)) {
            log::info!("{text}");
        } else {
            log::warn!("{text}");
        }
    }
    for downgrade in &outcome.downgrades {
        log::warn!("{interface}: {downgrade}");
    }
    if let Some(leftover) = &outcome.leftover {
        log::warn!("{interface}: the old pins could not be removed: {}", leftover.display());
    }
    for program in programs {
        let id = program.id().unwrap_or_default();
        log::info!("{interface}: loaded {} as program {id}, {} mode", program.name(), outcome.mode);
    }
    if let Some(replaced) = outcome.replaced {
        log::info!("{interface}: program {replaced} was replaced");
    }
    if let (Some(dispatcher), Some(pins)) = (outcome.dispatcher, &outcome.pins) {
        log::info!("{interface}: dispatcher {dispatcher}, pinned in {}", pins.display());
    }
}
