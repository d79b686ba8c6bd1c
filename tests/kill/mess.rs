//! One of each kind of thing that recovery puts right, on interfaces beside the chain that packets run through.

use super::operation::COUNTER;
use super::support::lab::{Namespace, Pair, ip};
use super::support::{BPFFS, chain, counter, kernel, names, pins_of, remove_pins};
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use oxdp::{Chain, Interface, Mode, Netns, Occupant, Xdp};
use std::path::{Path, PathBuf};

/// Its chain was taken off by somebody who knows nothing of pins.
const STALE: &str = "stale";
/// All its programs have died.
const HOLLOW: &str = "hollow";
/// Its programs live, and their pins are lost.
const ORPHAN: &str = "orphan";
/// It has come from another namespace.
const MOVED: &str = "moved";

#[derive(Debug)]
pub(super) struct Mess {
    near: String,
    elsewhere: Namespace,
    stale: Interface,
    hollow: Interface,
    /// Only where the kernel tells which slot a link is in.
    orphan: Option<Interface>,
}

impl Mess {
    pub(super) fn new(pair: &Pair) -> Result<Self> {
        let elsewhere = Namespace::new("elsewhere")?;
        let near = &pair.near;
        let dummy = |name: &str| -> Result<Interface> {
            ip(&format!("-n {} link add {name} type dummy", near.name))?;
            Ok(Interface::by_name(&near.netns, name)?)
        };
        let orphan = kernel()? >= (5, 13);
        let orphan = if orphan { Some(dummy(ORPHAN)?) } else { None };
        ip(&format!("-n {} link add {MOVED} index 77 type dummy", elsewhere.name))?;
        Ok(Self {
            stale: dummy(STALE)?,
            hollow: dummy(HOLLOW)?,
            orphan,
            near: near.name.clone(),
            elsewhere,
        })
    }

    pub(super) fn make(&self, xdp: &Xdp) -> Result<()> {
        self.make_stale(xdp)?;
        remove_pins(&attach(xdp, &self.hollow)?)?;
        if let Some(orphan) = &self.orphan {
            let pins = attach(xdp, orphan)?;
            std::fs::rename(pins.join("prog0-link"), held())?;
            remove_pins(&pins)?;
        }
        attach(xdp, &Interface::by_name(&self.elsewhere.netns, MOVED)?)?;
        let (from, to) = (&self.elsewhere.name, &self.near);
        ip(&format!("-n {from} link set {MOVED} netns {to}"))?;
        attach_where_nobody_stays(xdp)?;
        let draft = Path::new(BPFFS).join("xdp/draft-scope");
        std::fs::create_dir(&draft)?;
        Ok(std::os::unix::fs::symlink("half-made", draft.join("identity"))?)
    }

    fn make_stale(&self, xdp: &Xdp) -> Result<()> {
        let (pins, aside) = (attach(xdp, &self.stale)?, Path::new(BPFFS).join("aside"));
        std::fs::rename(&pins, &aside)?;
        xdp.detach_all(&self.stale)?;
        Ok(std::fs::rename(aside, pins)?)
    }

    /// What is on the interfaces.
    pub(super) fn occupants(&self, xdp: &Xdp) -> Result<Vec<Occupant>> {
        let moved = Some(self.moved()?);
        let interfaces =
            [Some(&self.stale), Some(&self.hollow), self.orphan.as_ref(), moved.as_ref()];
        interfaces.into_iter().flatten().map(|interface| Ok(xdp.inspect(interface)?)).collect()
    }

    fn moved(&self) -> Result<Interface> {
        Ok(Interface::by_name(self.stale.netns(), MOVED)?)
    }

    /// Whether everything is as a recovery should leave it: the pins of the chains that live.
    pub(super) fn settled(&self, xdp: &Xdp) -> Result<Vec<PathBuf>> {
        for interface in [&self.stale, &self.hollow] {
            let occupant = xdp.inspect(interface)?;
            ensure!(occupant == Occupant::Empty, "{interface}: {occupant:?}");
        }
        let mut pins = Vec::new();
        for interface in self.orphan.iter().chain([&self.moved()?]) {
            let chain = chain(xdp, interface)?;
            ensure!(chain.is_whole() && names(&chain) == [COUNTER], "{interface}: {chain:?}");
            ensure!(is_at_home(interface, &chain), "{interface}: {chain:?}");
            pins.extend(pins_of(&chain)?);
        }
        Ok(pins)
    }

    /// After a recovery: takes the chains that live off.
    pub(super) fn take_down(&self, xdp: &Xdp) -> Result<()> {
        let moved = self.moved()?;
        for interface in self.orphan.iter().chain([&moved]) {
            xdp.detach_all(interface)?;
        }
        if self.orphan.is_some() {
            std::fs::remove_file(held())?;
        }
        let (from, to) = (&self.near, &self.elsewhere.name);
        ip(&format!("-n {from} link set {MOVED} netns {to}"))
    }
}

/// Where somebody else has pinned the orphan's link.
fn held() -> PathBuf {
    Path::new(BPFFS).join("held")
}

fn attach(xdp: &Xdp, interface: &Interface) -> Result<PathBuf> {
    let outcome = xdp.attach(interface, &mut counter()?, Mode::Skb)?;
    outcome.pins.context("a chain without pins")
}

/// In a namespace that ends with the thread in it.
fn attach_where_nobody_stays(xdp: &Xdp) -> Result<PathBuf> {
    let attached = std::thread::scope(|scope| {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            attach(xdp, &Interface::by_name(&Netns::current()?, "lo")?)
        };
        scope.spawn(inside).join()
    });
    attached.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn is_at_home(interface: &Interface, chain: &Chain) -> bool {
    let name = format!("dispatch-{}-{}", interface.index(), chain.dispatcher);
    let home = format!("xdp/netns-{}", interface.netns().inode());
    chain.pins.as_ref() == Some(&Path::new(BPFFS).join(home).join(name))
}
