//! What is attached, on every interface of every namespace that can be seen.

use crate::error::{Context, Result};
use crate::net::{Attached, Interface, Netns, NetnsId, Survey};
use crate::sys::Kernel;

/// Every interface with an XDP program.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) survey: Survey,
    pub(super) namespaces: Vec<ScannedNetns>,
    /// Why there may be others.
    pub(super) gaps: Vec<String>,
}

#[derive(Debug)]
pub(super) struct ScannedNetns {
    pub(super) netns: Netns,
    pub(super) id: NetnsId,
    pub(super) interfaces: Vec<Scanned>,
}

#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// What it runs: a program on the host, one on the device, or both.
    pub(super) attached: Vec<Attached>,
}

/// In which order the namespaces are looked into. A device that moves from one that comes later to one that came
/// earlier is not seen; of two looks in opposite orders it hides from both only if it moves in time for each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    First,
    Second,
}

impl Scan {
    pub(super) fn take(kernel: &Kernel, order: Order) -> Result<Self> {
        let survey = Netns::survey()?;
        let mut all: Vec<_> = survey.namespaces.clone();
        all.sort_by_key(Netns::inode);
        if matches!(order, Order::Second) {
            all.reverse();
        }
        let mut gaps = survey.gaps.clone();
        let mut namespaces = Vec::with_capacity(all.len());
        for netns in all {
            match look_into(kernel, &netns) {
                Ok(scanned) => namespaces.push(scanned),
                Err(error) => gaps.push(format!("{netns} cannot be looked into: {error}")),
            }
        }
        namespaces.sort_by_key(|scanned| scanned.netns.inode());
        Ok(Self { survey, namespaces, gaps })
    }

    /// Where a program is.
    pub(super) fn find(&self, program: u32) -> Option<(&ScannedNetns, &Scanned)> {
        let has_it = |attached: &Attached| attached.program == program;
        self.namespaces.iter().find_map(|netns| {
            let interface = netns.interfaces.iter().find(|own| own.attached.iter().any(has_it))?;
            Some((netns, interface))
        })
    }
}

impl ScannedNetns {
    /// The interface to work on.
    pub(super) fn interface(&self, scanned: &Scanned) -> Result<Interface> {
        Interface::by_index(&self.netns, scanned.ifindex)
    }
}

fn look_into(kernel: &Kernel, netns: &Netns) -> Result<ScannedNetns> {
    let id = netns.id()?.clone();
    let links = netns.enter(kernel, || {
        let mut socket = kernel.route_socket()?;
        kernel.links(&mut socket).map_err(|error| error.source)
    })?;
    let links = links.during("list the interfaces of", netns)?;
    let interfaces = links.into_iter().map(|link| Scanned {
        attached: Attached::of(link.xdp).collect(),
        ifindex: link.index,
        name: link.name,
    });
    let interfaces = interfaces.filter(|scanned| !scanned.attached.is_empty()).collect();
    Ok(ScannedNetns { netns: netns.clone(), id, interfaces })
}
