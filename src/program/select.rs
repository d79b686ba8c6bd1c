//! Which program of an object.

use crate::error::ErrorKind;
use crate::sys::object::ProgramEntry;
use libbpf_sys::{BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_UNSPEC, BPF_PROG_TYPE_XDP};

/// Which program of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select<'a> {
    /// The only one.
    Only,
    /// The one with this function name.
    Function(&'a str),
    /// The first in this ELF section, such as `xdp` or `xdp.frags`.
    Section(&'a str),
}

/// Chooses among the programs of an object.
pub(super) fn choose(
    programs: &[ProgramEntry],
    select: Select<'_>,
) -> Result<ProgramEntry, ErrorKind> {
    let names = || programs.iter().map(|program| program.name.clone()).collect();
    let found = match select {
        Select::Only if programs.len() > 1 => {
            return Err(ErrorKind::AmbiguousProgram { available: names() });
        }
        Select::Only => programs.first(),
        Select::Function(name) => programs.iter().find(|program| program.name == name),
        Select::Section(name) => programs.iter().find(|program| program.section == name),
    };
    let wanted = match select {
        Select::Only => "at all".to_owned(),
        Select::Function(name) => format!("with function {name}"),
        Select::Section(name) => format!("in section {name}"),
    };
    match found {
        None => Err(ErrorKind::NoSuchProgram { wanted, available: names() }),
        Some(program) if !is_xdp(program.kind) => Err(ErrorKind::CorruptObject(format!(
            "{} (section {}) is no XDP program",
            program.name, program.section
        ))),
        Some(program) => Ok(program.clone()),
    }
}

/// An extension program may have been written for a slot from the start; a section with a name of its own,
/// such as `prog`, tells no type.
fn is_xdp(kind: u32) -> bool {
    [BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_UNSPEC].contains(&kind)
}
