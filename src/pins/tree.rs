//! Everything below the protocol's directory, whoever made it.

use super::At;
use super::layout::{DEAD, DRAFT, NetnsInode, PinLayout as _, SEARCH_DEPTH, parse_directory_name};
use super::scope::{IDENTITY, Note};
use super::store::{ATTACHMENT, PinnedDispatcher, Store, is_absent, slot_of};
use crate::error::Result;
use crate::net::NetnsId;
use crate::sys::Kernel;
use crate::sys::fs::{Entry, EntryKind};
use libbpf_sys::BPF_PROG_TYPE_EXT;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What lies below a protocol's directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) scopes: Vec<FoundScope>,
    pub(crate) pins: Vec<FoundPins>,
}

/// A directory of dispatchers' directories.
#[derive(Clone, Debug)]
pub(crate) struct FoundScope {
    pub(crate) path: PathBuf,
    pub(crate) mark: Mark,
    /// Whether nothing but its note is in it.
    pub(crate) is_empty: bool,
}

/// Whose a scope says that it is.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// This namespace's.
    Noted(NetnsId),
    /// It is not in its place yet.
    Draft,
    /// Its note is gone already: who removed it ended before the directory went too.
    Emptied,
    /// It has no note that can be read.
    None,
}

/// A dispatcher's directory.
#[derive(Clone, Debug)]
pub(crate) struct FoundPins {
    pub(crate) path: PathBuf,
    pub(crate) ifindex: u32,
    pub(crate) dispatcher: u32,
    /// Program and link of each slot of which one is pinned.
    pub(crate) slots: BTreeMap<usize, (Option<u32>, Option<u32>)>,
    /// The link that holds the dispatcher on its interface.
    pub(crate) attachment: Option<u32>,
    /// What the protocol does not put there.
    pub(crate) unexpected: Vec<PathBuf>,
}

impl Tree {
    /// Adds the pins that another look has found.
    pub(crate) fn add(&mut self, other: Self) {
        for pins in other.pins {
            if !self.pins.iter().any(|known| known.path == pins.path) {
                self.pins.push(pins);
            }
        }
    }
}

impl Store {
    /// Looks at everything below the root. Takes no lock: what is changed meanwhile may be seen half-way.
    pub(crate) fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::default();
        self.walk(self.root(), SEARCH_DEPTH, &mut tree)?;
        Ok(tree)
    }

    /// The links that are pinned as those of other dispatchers, of those that are in the kernel, or in `own` directory of
    /// this one.
    pub(crate) fn links_elsewhere(
        &self,
        dispatcher: u32,
        own: Option<&Path>,
    ) -> Result<BTreeSet<u32>> {
        let is_loaded = |id| self.kernel().prog_by_id(id).is_ok();
        let mut links = BTreeSet::new();
        for pins in self.tree()?.pins {
            let is_own = Some(pins.path.as_path()) == own;
            if is_own || (pins.dispatcher != dispatcher && is_loaded(pins.dispatcher)) {
                links.extend(pins.slots.values().filter_map(|(_, link)| *link));
            }
        }
        Ok(links)
    }

    /// The links that are pinned in a dispatcher's directory.
    pub(crate) fn links_in(&self, pins: &PinnedDispatcher) -> Result<Vec<u32>> {
        let found = self.pins(pins.path().to_owned(), 0, 0)?;
        let slots = found.into_iter().flat_map(|found| found.slots.into_values());
        Ok(slots.filter_map(|(_, link)| link).collect())
    }

    /// The id of the pinned link of a slot.
    pub(crate) fn pinned_link(&self, pins: &PinnedDispatcher, slot: usize) -> Result<Option<u32>> {
        let path = pins.link_path(slot);
        link(self.kernel(), &path).at("look at", &path)
    }

    fn walk(&self, below: &Path, depth: usize, tree: &mut Tree) -> Result<()> {
        let Some(entries) = self.entries(below)? else { return Ok(()) };
        if below != self.root() {
            tree.scopes.push(self.scope(below, &entries)?);
        }
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory) {
            match parse_directory_name(&entry.name) {
                Some((ifindex, dispatcher)) => {
                    let found = self.pins(entry.path, ifindex, dispatcher)?;
                    tree.pins.extend(found);
                }
                None if depth > 0 => self.walk(&entry.path, depth - 1, tree)?,
                None => {}
            }
        }
        Ok(())
    }

    /// `None` if the directory has gone meanwhile.
    fn entries(&self, directory: &Path) -> Result<Option<Vec<Entry>>> {
        match self.kernel().read_dir(directory) {
            Err(error) if is_absent(&error) => Ok(None),
            other => other.at("read", directory).map(Some),
        }
    }

    fn scope(&self, path: &Path, entries: &[Entry]) -> Result<FoundScope> {
        let is_draft = path.strip_prefix(self.root()).is_ok_and(|name| name == Path::new(DRAFT));
        let mark = match self.note(path)? {
            _ if is_draft => Mark::Draft,
            Note::Names(netns) => Mark::Noted(netns),
            Note::None if entries.is_empty() && self.is_scope_name(path) => Mark::Emptied,
            Note::Unreadable(_) | Note::None => Mark::None,
        };
        let is_empty = entries.iter().all(|entry| entry.name == IDENTITY);
        Ok(FoundScope { path: path.to_owned(), mark, is_empty })
    }

    /// Whether a directory is named as scopes are, by this layout or another one of ours.
    fn is_scope_name(&self, path: &Path) -> bool {
        let Ok(name) = path.strip_prefix(self.root()) else { return false };
        let is_dead = name.to_str().is_some_and(|name| name.starts_with(DEAD));
        is_dead
            || self.layout().netns_inode(name).is_some()
            || NetnsInode.netns_inode(name).is_some()
    }

    fn pins(&self, path: PathBuf, ifindex: u32, dispatcher: u32) -> Result<Option<FoundPins>> {
        let Some(entries) = self.entries(&path)? else { return Ok(None) };
        let mut found = FoundPins {
            path,
            ifindex,
            dispatcher,
            slots: BTreeMap::new(),
            attachment: None,
            unexpected: Vec::new(),
        };
        for entry in entries {
            match self.take_in(&mut found, &entry) {
                Ok(true) => {}
                Ok(false) => found.unexpected.push(entry.path),
                Err(error) => {
                    log::warn!("{} cannot be looked at: {error}", entry.path.display());
                    found.unexpected.push(entry.path);
                }
            }
        }
        Ok(Some(found))
    }

    /// Notes what a pin is of; `false` if it is none that the protocol would have made.
    fn take_in(&self, found: &mut FoundPins, entry: &Entry) -> io::Result<bool> {
        if entry.kind != EntryKind::Object {
            return Ok(false);
        }
        let kernel = self.kernel();
        let name = entry.name.as_str();
        if name == ATTACHMENT {
            found.attachment = link(kernel, &entry.path)?;
            return Ok(found.attachment.is_some());
        }
        if let Some(slot) = slot_of(name, "-link") {
            let id = link(kernel, &entry.path)?;
            found.slots.entry(slot).or_default().1 = id;
            return Ok(id.is_some());
        }
        if let Some(slot) = slot_of(name, "-prog") {
            let id = component(kernel, &entry.path)?;
            found.slots.entry(slot).or_default().0 = id;
            return Ok(id.is_some());
        }
        Ok(false)
    }
}

/// The id of a pinned link; `None` if it is none, or has gone meanwhile.
fn link(kernel: &Kernel, path: &Path) -> io::Result<Option<u32>> {
    let fd = match kernel.open_pin(path) {
        Err(error) if is_no_object(&error) => return Ok(None),
        other => other?,
    };
    if !kernel.is_link(fd.as_fd())? {
        return Ok(None);
    }
    Ok(Some(kernel.link_info(fd.as_fd())?.id))
}

/// The id of a pinned extension program; `None` if it is none, or has gone meanwhile.
fn component(kernel: &Kernel, path: &Path) -> io::Result<Option<u32>> {
    let fd = match kernel.open_pin(path) {
        Err(error) if is_no_object(&error) => return Ok(None),
        other => other?,
    };
    let info = kernel.component_info(fd.as_fd())?;
    Ok(info.filter(|info| info.kind == BPF_PROG_TYPE_EXT).map(|info| info.id))
}

/// No pin of that name, or a file that is none: outside of bpffs, and in a directory of a test.
fn is_no_object(error: &io::Error) -> bool {
    is_absent(error) || matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::Patience;
    use std::sync::Arc;

    #[test]
    fn a_tree_is_seen_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let store =
            Store::new(Kernel::default(), root.to_owned(), Arc::new(NetnsInode), Patience(None));
        let netns = NetnsId { inode: 5, cookie: Some(1), handle: None, boot: "b".into() };
        let scope = store.lock_scope(&netns).unwrap();
        for path in
            ["netns-5/dispatch-3-7", "netns-6", "dispatch-1-2", "draft-scope", "agent/pods/x", "tc"]
        {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::fs::write(root.join("dispatch-1-2/mine"), "").unwrap();
        let tree = store.tree().unwrap();
        let pins: Vec<_> = tree.pins.iter().map(|p| (p.ifindex, p.dispatcher)).collect();
        assert_eq!(pins, [(1, 2), (3, 7)]);
        assert_eq!(tree.pins[0].unexpected, [root.join("dispatch-1-2/mine")]);
        let find = |name: &str| {
            let path = root.join(name);
            tree.scopes.iter().find(|scope| scope.path == path).unwrap().clone()
        };
        assert!(matches!(find("netns-5").mark, Mark::Noted(noted) if noted == netns));
        assert!(!find("netns-5").is_empty);
        assert!(matches!(find("draft-scope").mark, Mark::Draft));
        assert!(matches!(find("netns-6").mark, Mark::Emptied));
        assert!(matches!(find("agent/pods/x").mark, Mark::None) && find("agent/pods/x").is_empty);
        std::fs::remove_dir(scope.path().join("dispatch-3-7")).unwrap();
    }
}
