//! Which links hold programs in the slots of dispatchers, as the kernel tells: the truth where pins are lost.

use super::config::MAX_PROGRAMS;
use super::load::NEEDS;
use crate::error::{Context, ErrorKind, Result};
use crate::program::{Btf, kernel_btf};
use crate::sys::Kernel;
use crate::sys::bpf::LinkKind;
use libbpf_sys::BPF_LINK_GET_NEXT_ID;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

/// A link that holds an extension program in another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SlotLink {
    /// The link's id.
    pub id: u32,
    /// Id of the extension program.
    pub program: u32,
    /// Id of the program that it is in; `None` before kernel 5.13, which does not tell.
    pub target: Option<u32>,
    /// The slot, if that program is a dispatcher.
    pub slot: Option<usize>,
}

/// The links in the kernel that matter to chains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    /// Those that hold extension programs.
    pub(crate) slots: Vec<SlotLink>,
    /// Those that hold programs on interfaces: link id and program id.
    pub(crate) interfaces: Vec<(u32, u32)>,
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// This link holds its program there.
    Held(&'a SlotLink),
    /// Nothing holds a program there: it runs none.
    Dead,
    /// This link may do so.
    Unknown(&'a SlotLink),
}

/// Looks at all links. Needs `CAP_SYS_ADMIN`.
pub(crate) fn links(kernel: &Kernel) -> Result<Links> {
    const LIST: &str = "list";
    const WHAT: &str = "the links in the kernel";
    let denied = |error| ErrorKind::privileged(error, NEEDS);
    let mut found = Links::default();
    let mut functions = Functions { kernel, types: BTreeMap::new(), targets: BTreeMap::new() };
    for id in kernel.ids(BPF_LINK_GET_NEXT_ID).map_err(denied).during(LIST, WHAT)? {
        let fd = match kernel.link_by_id(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(denied).during(LIST, WHAT)?,
        };
        let info = kernel.link_info(fd.as_fd()).during(LIST, WHAT)?;
        let (target, slot) = match info.kind {
            LinkKind::Xdp { ifindex } if ifindex != 0 => {
                found.interfaces.push((id, info.program));
                continue;
            }
            LinkKind::Tracing { attach_type, target, function } => {
                if attach_type != 0 && !is_extension(kernel, info.program).during(LIST, WHAT)? {
                    continue;
                }
                match target {
                    0 => (None, None),
                    _ => (Some(target), functions.slot(target, function)),
                }
            }
            _ => continue,
        };
        found.slots.push(SlotLink { id, program: info.program, target, slot });
    }
    Ok(found)
}

fn is_extension(kernel: &Kernel, program: u32) -> io::Result<bool> {
    match kernel.prog_by_id(program) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => Ok(kernel.component_info(other?.as_fd())?.is_some()),
    }
}

/// What is known of a slot of which no link is pinned. `elsewhere` are the links that are in other places for sure: pinned
/// as those of other dispatchers that are in the kernel, or as those of this one's other slots.
///
/// Before kernel 5.13 the target of a link is not told. There a slot is dead for sure only if no link is about that is
/// not accounted for.
pub(crate) fn fate<'a>(
    links: &'a [SlotLink],
    elsewhere: &BTreeSet<u32>,
    dispatcher: u32,
    slot: usize,
) -> Fate<'a> {
    let here = || links.iter().filter(|link| link.target == Some(dispatcher));
    if let Some(link) = here().find(|link| link.slot == Some(slot)) {
        return Fate::Held(link);
    }
    let may_be = |link: &&SlotLink| link.target.is_none() && !elsewhere.contains(&link.id);
    let unknown = here().find(|link| link.slot.is_none()).or_else(|| links.iter().find(may_be));
    unknown.map_or(Fate::Dead, Fate::Unknown)
}

/// Finds the slot of a function of a dispatcher; what was read once is kept.
struct Functions<'a> {
    kernel: &'a Kernel,
    /// By the id of the BTF, which many dispatchers share.
    types: BTreeMap<u32, Option<Rc<Btf>>>,
    targets: BTreeMap<u32, Option<Rc<Btf>>>,
}

impl Functions<'_> {
    fn slot(&mut self, target: u32, function: u32) -> Option<usize> {
        let known = self.targets.get(&target).cloned();
        let types = known.unwrap_or_else(|| {
            let types = self.types_of(target).ok().flatten();
            self.targets.insert(target, types.clone());
            types
        });
        slot_of(types?.function_name(function)?)
    }

    fn types_of(&mut self, program: u32) -> io::Result<Option<Rc<Btf>>> {
        let fd = self.kernel.prog_by_id(program)?;
        let info = self.kernel.prog_info(fd.as_fd())?;
        if info.name != "xdp_dispatcher" {
            return Ok(None);
        }
        if let Some(types) = self.types.get(&info.btf_id) {
            return Ok(types.clone());
        }
        let types = kernel_btf(self.kernel, &info)?.map(Rc::new);
        self.types.insert(info.btf_id, types.clone());
        Ok(types)
    }
}

/// The slot that a function stands for: a lone program replaces the dispatcher itself.
fn slot_of(function: &str) -> Option<usize> {
    let slot = match function {
        "xdp_dispatcher" => 0,
        other => other.strip_prefix("prog")?.parse().ok()?,
    };
    (slot < MAX_PROGRAMS).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u32, target: Option<u32>, slot: Option<usize>) -> SlotLink {
        SlotLink { id, program: 100 + id, target, slot }
    }

    #[test]
    fn a_function_is_a_slot() {
        assert_eq!(slot_of("xdp_dispatcher"), Some(0));
        assert_eq!(slot_of("prog9"), Some(9));
        for name in ["prog10", "prog", "xdp_pass", "compat_test", "prog-1"] {
            assert_eq!(slot_of(name), None, "{name}");
        }
    }

    #[test]
    fn what_the_kernel_tells_is_known() {
        let links = [link(1, Some(7), Some(0)), link(2, Some(8), Some(1))];
        let none = BTreeSet::new();
        assert_eq!(fate(&links, &none, 7, 0), Fate::Held(&links[0]));
        assert_eq!(fate(&links, &none, 7, 1), Fate::Dead);
        assert_eq!(fate(&links, &none, 9, 0), Fate::Dead);
    }

    #[test]
    fn what_it_does_not_tell_is_known_only_if_all_links_are_accounted_for() {
        let links = [link(1, None, None), link(2, None, None)];
        let all = BTreeSet::from([1, 2]);
        assert_eq!(fate(&links, &all, 7, 0), Fate::Dead);
        assert_eq!(fate(&links, &BTreeSet::from([1]), 7, 0), Fate::Unknown(&links[1]));
        // In the dispatcher, and in none of its slots that are known.
        let odd = [link(3, Some(7), None)];
        assert_eq!(fate(&odd, &all, 7, 0), Fate::Unknown(&odd[0]));
        assert_eq!(fate(&odd, &all, 8, 0), Fate::Dead);
    }
}
