//! Which namespaces a command works in.

use anyhow::{Context, Result};
use nix::net::if_::{Interface as Entry, if_nameindex};
use oxdp::{Auto, ErrorKind, Interface, Inventory, Netns, NetnsId, PinLayout, RecoveryPlan};
use oxdp::{RecoveryAction, ScopeOwner};
use std::path::Path;

/// The one that was asked for: a number or `pid:NUMBER` for that of a process, a path, or a name of `ip netns`; by default
/// that of this process.
pub(crate) fn find(asked: Option<&str>) -> oxdp::Result<Netns> {
    let Some(asked) = asked else { return Netns::current() };
    match asked.strip_prefix("pid:").unwrap_or(asked).parse() {
        Ok(pid) => Netns::from_pid(pid),
        Err(_) if asked.contains('/') => Netns::from_path(asked),
        Err(_) => Netns::by_name(asked),
    }
}

/// Its interfaces. Not those of `/sys/class/net`: that is the namespace it was mounted in.
pub(crate) fn interfaces(netns: &Netns) -> Result<Vec<Interface>> {
    let list = || {
        let interfaces = if_nameindex()?;
        Ok::<Vec<u32>, nix::Error>(interfaces.iter().map(Entry::index).collect())
    };
    let mut interfaces = Vec::new();
    for index in netns.run(list)?.context("list the interfaces")? {
        match Interface::by_index(netns, index) {
            // It has gone since.
            Err(error) if matches!(error.kind(), ErrorKind::NoInterface) => {}
            found => interfaces.push(found?),
        }
    }
    Ok(interfaces)
}

/// Takes out of a plan what is not about one namespace: its chains, and the pins in directories of its own.
pub(crate) fn only(netns: &Netns, inventory: &Inventory, plan: &mut RecoveryPlan) -> Result<()> {
    let id = netns.id()?;
    let has_root = Auto::detect()?.scope(id).as_os_str().is_empty();
    plan.lines.retain(|line| match &line.action {
        RecoveryAction::RemovePins { path, .. } => {
            let scope = path.parent();
            scope.is_some_and(|scope| is_own(id, inventory, scope))
                || (has_root && scope == inventory.root.as_deref())
        }
        RecoveryAction::RemoveScope { path, .. } => is_own(id, inventory, path),
        other => other.chain().is_some_and(|chain| chain.netns.agrees_with(id)),
    });
    Ok(())
}

fn is_own(id: &NetnsId, inventory: &Inventory, path: &Path) -> bool {
    let scope = inventory.scopes.iter().find(|scope| scope.path == path);
    scope.is_some_and(|scope| match &scope.owner {
        ScopeOwner::Alive { netns } | ScopeOwner::Unseen { netns } => netns.agrees_with(id),
        _ => false,
    })
}
