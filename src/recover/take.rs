//! Takes an inventory.

use super::defaults::Defaults;
use super::inventory::{
    Inventory, PinnedElsewhere, PinnedSlot, Scope, ScopeOwner, SeenChain, SeenInterface, SeenNetns,
    SeenPins, SeenProgram,
};
use super::scan::{Order, Scan, Scanned, ScannedNetns};
use crate::dispatcher::inspect::{self, Kind};
use crate::dispatcher::{Xdp, slots};
use crate::error::{Context, ErrorKind, Result};
use crate::net::{Attached, Liveness, Survey};
use crate::pins::{self, FoundPins, FoundScope, Mark, PinKey, Store, Tree};
use crate::sys::Kernel;
use crate::xsk::program::Watch;
use std::io;
use std::path::PathBuf;

impl Xdp {
    /// Looks at everything that a recovery deals with: namespaces, what is attached in them, pins, and the links in
    /// the kernel. Changes nothing and takes no lock, so what changes meanwhile may be seen half-way;
    /// [`apply`](Xdp::apply) looks again, under the lock.
    ///
    /// Needs `CAP_SYS_ADMIN`. What hides namespaces is no error but one of the [`gaps`](Inventory::gaps): while there is
    /// any, nothing is removed that may be in use there.
    ///
    /// # Errors
    /// [`ErrorKind::NoPrivilege`].
    pub fn inventory(&self) -> Result<Inventory> {
        let kernel = self.kernel();
        let store = self.existing_store()?;
        let tree = || store.as_ref().map(Store::tree).transpose().map(Option::unwrap_or_default);
        // Pins first: what is pinned, and then attached, is not taken for pins that nobody uses.
        let mut found = tree()?;
        let scan = Scan::take(kernel, Order::First)?;
        let taker = Taker { kernel, store: store.as_ref() };
        let mut namespaces: Vec<_> =
            scan.namespaces.iter().map(|netns| taker.netns(netns)).collect();
        let links = slots::links(kernel)?;
        if lacks_pins(&namespaces, &found) {
            // A chain that was changed in between has other pins now.
            found.add(tree()?);
        }
        let mounts: Vec<_> = scan.survey.bpffs.iter().map(|mount| mount.path.as_path()).collect();
        let watch = Watch::new(kernel, &mounts);
        Defaults { kernel, watch, links: &links.slots, pins: &found.pins }.add_to(&mut namespaces);
        let scopes = found.scopes.into_iter().map(|scope| taker.owned(scope, &scan.survey));
        Ok(Inventory {
            scopes: scopes.collect(),
            pins: found.pins.into_iter().map(|pins| taker.pins(pins)).collect::<Result<_>>()?,
            held: links.interfaces,
            links: links.slots,
            root: store.as_ref().map(|store| store.root().to_owned()),
            elsewhere: taker.elsewhere(&scan.survey),
            gaps: scan.gaps,
            namespaces,
        })
    }
}

struct Taker<'a> {
    kernel: &'a Kernel,
    store: Option<&'a Store>,
}

impl Taker<'_> {
    fn netns(&self, scanned: &ScannedNetns) -> SeenNetns {
        let of = |interface| self.interface(scanned, interface);
        SeenNetns {
            id: scanned.id.clone(),
            label: scanned.netns.label().to_owned(),
            interfaces: scanned.interfaces.iter().flat_map(of).collect(),
        }
    }

    fn interface(&self, netns: &ScannedNetns, interface: &Scanned) -> Vec<SeenInterface> {
        let seen = |attached: &Attached| {
            Some(SeenInterface {
                ifindex: interface.ifindex,
                name: interface.name.clone(),
                mode: attached.mode,
                program: attached.program,
                what: self.program(netns, interface, *attached)?,
                defaults: Vec::new(),
            })
        };
        interface.attached.iter().filter_map(seen).collect()
    }

    /// `None` for one that has gone meanwhile.
    fn program(
        &self,
        netns: &ScannedNetns,
        interface: &Scanned,
        attached: Attached,
    ) -> Option<SeenProgram> {
        let key =
            PinKey { netns: &netns.id, ifindex: interface.ifindex, dispatcher: attached.program };
        Some(match inspect::kind(self.kernel, attached) {
            Ok(Some(Kind::Dispatcher { version, slots })) => SeenProgram::Chain(SeenChain {
                version,
                slots,
                home: self.store.map_or_else(PathBuf::new, |store| store.home(&key)),
            }),
            Ok(Some(Kind::Foreign(name))) => SeenProgram::Foreign { name },
            Ok(None) => return None,
            Err(error) => SeenProgram::Unknown { why: error.to_string() },
        })
    }

    fn pins(&self, found: FoundPins) -> Result<SeenPins> {
        let slot = |(slot, (program, link))| PinnedSlot { slot, program, link };
        Ok(SeenPins {
            is_loaded: is_loaded(self.kernel, found.dispatcher)?,
            path: found.path,
            ifindex: found.ifindex,
            dispatcher: found.dispatcher,
            slots: found.slots.into_iter().map(slot).collect(),
            attachment: found.attachment,
            unexpected: found.unexpected,
        })
    }

    fn owned(&self, found: FoundScope, survey: &Survey) -> Scope {
        let owner = match found.mark {
            Mark::Draft => ScopeOwner::Draft,
            Mark::Emptied => ScopeOwner::Nobody,
            Mark::None => ScopeOwner::Unnoted,
            Mark::Noted(netns) => match survey.liveness(self.kernel, &netns) {
                Liveness::Alive(_) => ScopeOwner::Alive { netns },
                Liveness::Dead => ScopeOwner::Dead { netns },
                Liveness::Unknown => ScopeOwner::Unseen { netns },
            },
        };
        Scope { path: found.path, owner, is_empty: found.is_empty }
    }

    /// What is pinned in the bpf file systems of others. One that cannot be read has nothing for us.
    fn elsewhere(&self, survey: &Survey) -> Vec<PinnedElsewhere> {
        let own = self.store.and_then(|store| self.kernel.device_of(store.root()).ok());
        let others = survey.bpffs.iter().filter(|mount| Some(mount.device) != own);
        let pinned = others.flat_map(|mount| {
            pins::dispatchers_in(self.kernel, &mount.path).unwrap_or_else(|error| {
                // Most have nothing of the protocol's.
                if error.kind() != io::ErrorKind::NotFound {
                    log::debug!("{} cannot be looked at: {error}", mount.path.display());
                }
                Vec::new()
            })
        });
        pinned.map(|(dispatcher, path)| PinnedElsewhere { dispatcher, path }).collect()
    }
}

pub(super) fn is_loaded(kernel: &Kernel, program: u32) -> Result<bool> {
    match kernel.prog_by_id(program) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ErrorKind::privileged(error, "CAP_SYS_ADMIN"))
            .during("look for", format!("program {program}")),
    }
}

/// Whether some chain has no pins.
fn lacks_pins(namespaces: &[SeenNetns], tree: &Tree) -> bool {
    let interfaces = namespaces.iter().flat_map(|netns| &netns.interfaces);
    let mut chains = interfaces.filter(|seen| matches!(seen.what, SeenProgram::Chain(_)));
    chains.any(|seen| !tree.pins.iter().any(|pins| pins.dispatcher == seen.program))
}
