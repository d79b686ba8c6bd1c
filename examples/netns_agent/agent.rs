//! One look at a namespace: what is on its interfaces becomes what the order wants there.

use crate::order::Order;
use crate::place::{Link, Place};
use crate::report::{Report, outcome};
use crate::steps::{Have, steps};
use crate::stock::Stock;
use crate::{change, recovery, say};
use anyhow::{Context, Result};
use oxdp::{Chain, ErrorKind, Interface, Occupant, Xdp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What can be wrong with a namespace as a whole, for the report.
pub(crate) const LIST: &str = "the list of interfaces";
pub(crate) const LINKS: &str = "the watch on links";

pub(crate) struct Agent {
    pub(crate) xdp: Xdp,
    pub(crate) order: Order,
    pub(crate) stock: Stock,
    pub(crate) report: Report,
    /// Tells what it would do, and does nothing.
    pub(crate) is_dry: bool,
    /// Damaged dispatchers for which a recovery was tried since the last look at everything.
    pub(crate) tried: BTreeSet<u32>,
    /// Interfaces with nothing of ours, where nothing is wanted: by the inode of their namespace.
    pub(crate) idle: BTreeMap<u64, BTreeSet<Link>>,
}

impl Agent {
    /// Takes an order, once all its programs are in the kernel; on an error the old one stays in force.
    pub(crate) fn take(&mut self, order: Order) -> Result<()> {
        if !self.is_dry {
            order.blueprints().try_for_each(|blueprint| {
                let (version, mut program) = (&blueprint.want.version, blueprint.program.clone());
                if self.stock.set_frags(version, program.has_frags()) {
                    return Ok(());
                }
                let name = || format!("program {}", version.rule());
                self.xdp.load(&mut program).with_context(name)?;
                self.stock.add(version.clone(), program).with_context(name)
            })?;
        }
        self.order = order;
        Ok(())
    }

    /// Says which order is in force.
    pub(crate) fn tell_order(&self, file: &Path) {
        let count = self.order.blueprints().count();
        log::info!("{}: in force, with {count} programs", file.display());
    }

    /// Looks at the interfaces of a namespace, and makes them right. One that was idle at the last look and has kept its
    /// name is passed over: a host has thousands, and each look costs a socket.
    pub(crate) fn look(&mut self, place: &Place) {
        let (name, inode) = (place.to_string(), place.netns.inode());
        let links = place.links();
        self.report.tell(&name, LIST, &outcome(&links));
        let Ok(links) = links else { return };
        let known = self.idle.remove(&inode).unwrap_or_default();
        let mut idle = BTreeSet::new();
        for link in &links {
            let looked = if known.contains(link) { Ok(true) } else { self.link(place, link) };
            if looked.as_ref().is_ok_and(|is_idle| *is_idle) {
                idle.insert(link.clone());
            }
            self.report.tell(&name, &link.1, &looked.map(drop));
        }
        self.idle.insert(inode, idle);
        let names = links.iter().map(|(_, name)| name.as_str());
        let names: BTreeSet<_> = names.chain([LIST, LINKS]).collect();
        self.report.keep_of(&name, |what| names.contains(what));
    }

    /// Whether the interface is idle, or has gone since it was listed.
    fn link(&mut self, place: &Place, (index, name): &Link) -> Result<bool> {
        let changed = Interface::by_index(&place.netns, *index)
            .map_err(anyhow::Error::from)
            .and_then(|interface| self.interface(place, name, &interface));
        match changed {
            Err(error) if is_gone(&error) => Ok(true),
            other => other,
        }
    }

    fn interface(&mut self, place: &Place, name: &str, interface: &Interface) -> Result<bool> {
        let (wants, mode) = self.order.wanted(&place.names, name)?;
        let chain = self.chain(interface)?;
        let have: Vec<_> = chain.iter().flat_map(|chain| self.have(chain)).collect();
        let steps = steps(&wants, &have);
        if steps.is_empty() {
            return Ok(wants.is_empty());
        }
        let name = format!("{name} in {place}");
        if self.is_dry {
            steps.iter().try_for_each(|step| say(&format!("{name}: {step}")))?;
        } else {
            let outcome = change::commit((&self.xdp, &self.stock), interface, mode, &steps)?;
            change::tell(&name, &steps, &outcome);
        }
        Ok(false)
    }

    /// The chain on an interface. A damaged one is looked at again after a recovery, which is tried once.
    fn chain(&mut self, interface: &Interface) -> Result<Option<Chain>> {
        let mut found = chain(&self.xdp, interface)?;
        if let Some(damaged) = found.as_ref().filter(|chain| !chain.is_whole())
            && self.tried.insert(damaged.dispatcher)
        {
            self.recover();
            found = chain(&self.xdp, interface)?;
        }
        Ok(found)
    }

    /// What is known of a chain's programs. Slots that have lost theirs are no business of the policy.
    fn have<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = Have> + 'a {
        chain.members.iter().filter_map(|member| {
            let program = member.component.as_ref()?.id;
            let version = self.stock.version(program).cloned();
            Some(Have { program, priority: member.priority, actions: member.actions, version })
        })
    }

    /// Puts right what others, or a killed agent, have left behind.
    pub(crate) fn recover(&mut self) {
        let outcome = recovery::run(&self.xdp, self.is_dry);
        self.report.tell("", "recovery", &outcome);
    }

    /// Lets go of programs that the order does not know and no chain has.
    pub(crate) fn tidy(&mut self) {
        let outcome = self.drop_spare();
        self.report.tell("", "programs that are not wanted any more", &outcome);
    }

    /// Whether there are any that could not be let go of.
    pub(crate) fn has_spare(&self) -> bool {
        !self.stock.spare(|version| self.order.knows(version)).is_empty()
    }

    fn drop_spare(&mut self) -> Result<()> {
        let spare = self.stock.spare(|version| self.order.knows(version));
        if self.is_dry || spare.is_empty() {
            return Ok(());
        }
        // Of all namespaces, also those that cannot be seen: a program that is in use there is still ours.
        let links = self.xdp.inventory()?.links;
        for (version, id) in spare {
            if !links.iter().any(|link| link.program == id) {
                log::debug!("unloads {} (program {id})", version.rule());
                self.stock.remove(&version)?;
            }
        }
        Ok(())
    }
}

/// The chain on an interface; `None` without one.
fn chain(xdp: &Xdp, interface: &Interface) -> Result<Option<Chain>> {
    Ok(match xdp.inspect(interface)? {
        Occupant::Chain(chain) => Some(chain),
        _ => None,
    })
}

fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<oxdp::Error>();
    error.is_some_and(|error| matches!(error.kind(), ErrorKind::NoInterface))
}
