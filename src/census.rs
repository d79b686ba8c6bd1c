#![forbid(unsafe_code)]

//! What BPF objects are in the kernel, so that a program can see that it has left none behind.

use crate::error::{Context, ErrorKind, Result};
use crate::sys::Kernel;
use libbpf_sys::{BPF_LINK_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_NEXT_ID, bpf_cmd};
use std::fmt;

/// Ids of all BPF objects in the kernel, whoever made them, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Programs.
    pub programs: Vec<u32>,
    /// Maps.
    pub maps: Vec<u32>,
    /// Links.
    pub links: Vec<u32>,
}

impl Census {
    /// Counts. Needs `CAP_SYS_ADMIN` (or `CAP_BPF`, for all but the links on old kernels); kernel 5.8.
    ///
    /// The kernel frees objects some time after their last user has gone (RCU), so one that has just been
    /// let go may still be here.
    pub fn take() -> Result<Self> {
        let ids = |what, command: bpf_cmd| {
            let ids = Kernel::default().ids(command);
            ids.map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN")).during("count", what)
        };
        Ok(Self {
            programs: ids("programs", BPF_PROG_GET_NEXT_ID)?,
            maps: ids("maps", BPF_MAP_GET_NEXT_ID)?,
            links: ids("links", BPF_LINK_GET_NEXT_ID)?,
        })
    }

    /// What is in this census and not in an `earlier` one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = |now: &[u32], before: &[u32]| {
            now.iter().copied().filter(|id| before.binary_search(id).is_err()).collect()
        };
        Self {
            programs: new(&self.programs, &earlier.programs),
            maps: new(&self.maps, &earlier.maps),
            links: new(&self.links, &earlier.links),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}

/// As `3 programs, 2 maps, 1 link`.
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("program", &self.programs), ("map", &self.maps), ("link", &self.links)];
        let counted = kinds.map(|(kind, ids)| {
            format!("{} {kind}{}", ids.len(), if ids.len() == 1 { "" } else { "s" })
        });
        f.write_str(&counted.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let census = Census { programs: vec![1, 2], maps: vec![3], links: vec![] };
        assert_eq!(census.to_string(), "2 programs, 1 map, 0 links");
    }

    #[test]
    fn since_is_what_came() {
        let census = |programs: &[u32]| Census { programs: programs.to_vec(), ..Census::default() };
        assert_eq!(census(&[1, 3, 4]).since(&census(&[1, 2, 3])), census(&[4]));
        assert!(census(&[1]).since(&census(&[1, 2])).is_empty());
    }
}
