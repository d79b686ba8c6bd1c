//! Dispatchers' pin directories: found, read, staged, removed.

use super::layout::{
    PinKey, PinLayout, SEARCH_DEPTH, directory_name, is_usable_scope, parse_directory_name,
};
use super::lock::{Lock, Patience};
use super::{At, denied, twice};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::fs::EntryKind;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The `xdp` directory of a bpf file system, and the layout by which it is filled.
#[derive(Debug)]
pub(crate) struct Store {
    kernel: Kernel,
    root: PathBuf,
    layout: Arc<dyn PinLayout>,
    patience: Patience,
}

/// The pin directory of one dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PinnedDispatcher {
    path: PathBuf,
}

/// A dispatcher's pin directory, open.
#[derive(Debug)]
pub(crate) struct OpenPins<'a> {
    kernel: &'a Kernel,
    pins: PinnedDispatcher,
    directory: File,
    names: Vec<String>,
}

/// A pin directory being filled: removed again when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct Staging<'a> {
    kernel: &'a Kernel,
    directory: PinnedDispatcher,
    /// The directory, open: a name in it is found faster than a whole path.
    open: File,
    kept: bool,
}

impl Store {
    pub(crate) fn new(
        kernel: Kernel,
        root: PathBuf,
        layout: Arc<dyn PinLayout>,
        patience: Patience,
    ) -> Self {
        Self { kernel, root, layout, patience }
    }

    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(super) fn layout(&self) -> &dyn PinLayout {
        &*self.layout
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a dispatcher is pinned: where the layout says, else anywhere below `xdp`, since its id is
    /// unique in the kernel.
    pub(crate) fn find(&self, key: &PinKey<'_>) -> Result<Option<OpenPins<'_>>> {
        let scope = self.layout.scope(key.netns);
        if is_usable_scope(&scope) {
            let name = directory_name(key.ifindex, key.dispatcher);
            let pins = PinnedDispatcher { path: self.root.join(scope).join(name) };
            if let Some(open) = pins.open(&self.kernel)? {
                return Ok(Some(open));
            }
        }
        match self.search(&self.root, key.dispatcher, SEARCH_DEPTH)? {
            Some(pins) => pins.open(&self.kernel),
            None => Ok(None),
        }
    }

    fn search(
        &self,
        below: &Path,
        dispatcher: u32,
        depth: usize,
    ) -> Result<Option<PinnedDispatcher>> {
        let entries = match self.kernel.read_dir(below) {
            // Removed meanwhile by who holds its lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", below)?,
        };
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let found = match parse_directory_name(&entry.name) {
                Some((_, id)) if id == dispatcher => Some(PinnedDispatcher { path: entry.path }),
                None if depth > 0 => self.search(&entry.path, dispatcher, depth - 1)?,
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Makes the directory for a dispatcher that is not attached yet, in the scope that `lock` holds.
    pub(crate) fn stage(&self, lock: &Lock, ifindex: u32, dispatcher: u32) -> Result<Staging<'_>> {
        let path = lock.path().join(directory_name(ifindex, dispatcher));
        let directory = PinnedDispatcher { path };
        if let Err(error) = self.kernel.mkdir(&directory.path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(denied("make directory", &directory.path, error));
            }
            // The id is ours and fresh, and we hold the lock: what is here was left by a process that died
            // before its dispatcher, with the same id, was attached.
            directory.remove(&self.kernel)?;
            self.kernel.mkdir(&directory.path).at("make directory", &directory.path)?;
        }
        match self.kernel.open_dir(&directory.path) {
            Ok(open) => Ok(Staging { kernel: &self.kernel, directory, open, kept: false }),
            Err(error) => {
                let denied = denied("open", &directory.path, error);
                if let Err(error) = twice(|| self.kernel.rmdir(&directory.path)) {
                    log::warn!("{} is left behind: {error}", directory.path.display());
                }
                Err(denied)
            }
        }
    }

    /// Opens the directory of a dispatcher that is attached, to pin again what is lost there; makes it if it is not there.
    pub(crate) fn reopen(&self, _lock: &Lock, pins: &PinnedDispatcher) -> Result<Staging<'_>> {
        let path = pins.path();
        match self.kernel.mkdir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(denied("make directory", path, error));
            }
            _ => {}
        }
        let open = self.kernel.open_dir(path).at("open", path)?;
        Ok(Staging { kernel: &self.kernel, directory: pins.clone(), open, kept: true })
    }

    /// Removes a directory in which nothing is; any other stays.
    pub(crate) fn remove_bare(&self, _lock: &Lock, pins: &PinnedDispatcher) {
        let _ = self.kernel.rmdir(pins.path());
    }

    /// Moves the pins of a dispatcher to another place, in one step.
    pub(crate) fn rename(
        &self,
        _locks: (&Lock, &Lock),
        from: &PinnedDispatcher,
        to: &PinnedDispatcher,
    ) -> Result<()> {
        self.kernel.rename(from.path(), to.path()).at("move", from.path())
    }

    /// Whether the directory is there.
    pub(crate) fn is_there(&self, pins: &PinnedDispatcher) -> Result<bool> {
        match self.kernel.path_id(pins.path()) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(denied("look at", pins.path(), error)),
        }
    }

    /// Where the layout wants a dispatcher's pins.
    pub(crate) fn home(&self, key: &PinKey<'_>) -> PathBuf {
        self.root.join(self.layout.path(key))
    }

    /// Removes the pins of a dispatcher that is no longer attached.
    pub(crate) fn remove(&self, _lock: &Lock, directory: &PinnedDispatcher) -> Result<()> {
        directory.remove(&self.kernel)
    }
}

impl PinnedDispatcher {
    /// The one whose directory this is.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number in its name that the interface had when it was made.
    pub(super) fn ifindex(&self) -> Option<u32> {
        Some(parse_directory_name(self.path.file_name()?.to_str()?)?.0)
    }

    /// The dispatcher's program id, in its name.
    pub(crate) fn id(&self) -> Option<u32> {
        Some(parse_directory_name(self.path.file_name()?.to_str()?)?.1)
    }

    pub(crate) fn program_path(&self, slot: usize) -> PathBuf {
        self.path.join(program_name(slot))
    }

    pub(crate) fn link_path(&self, slot: usize) -> PathBuf {
        self.path.join(link_name(slot))
    }

    /// Opens the directory to look into it; `None` if there is none, or no longer.
    fn open(self, kernel: &Kernel) -> Result<Option<OpenPins<'_>>> {
        let open = || {
            let directory = kernel.open_dir(&self.path)?;
            let names = kernel.names_in(&directory)?;
            Ok((directory, names.into_iter().map(|(name, _)| name).collect()))
        };
        match open() {
            Ok((directory, names)) => Ok(Some(OpenPins { kernel, pins: self, directory, names })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(denied("read", &self.path, error)),
        }
    }

    /// Removes what the protocol puts here, and then the directory. Anything else in it stays, and is the
    /// error.
    fn remove(&self, kernel: &Kernel) -> Result<()> {
        let open = || {
            let directory = kernel.open_dir(&self.path)?;
            let names = kernel.names_in(&directory)?;
            Ok((directory, names))
        };
        let (directory, entries) = twice(open).at("read", &self.path)?;
        let mut foreign = None;
        for (name, kind) in entries {
            if name == "." || name == ".." {
                continue;
            }
            if kind != EntryKind::Object || !is_pin_name(&name) {
                foreign = Some(self.path.join(name));
                continue;
            }
            twice(|| kernel.unlink_in(&directory, &name)).at("remove", &self.path.join(&name))?;
        }
        if let Some(path) = foreign {
            let what = "not made by the dispatcher protocol".into();
            let kind = ErrorKind::UnexpectedPin { path, what };
            return Err(Error::new("remove", self.path.display(), kind));
        }
        twice(|| kernel.rmdir(&self.path)).at("remove", &self.path)
    }
}

/// Name of the pin of the link that holds a dispatcher on its interface. Not part of libxdp's protocol, which has no
/// such links.
pub(super) const ATTACHMENT: &str = "xdp-link";

/// Nothing of that name, or a file or symbolic link in place of the directory.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

impl OpenPins<'_> {
    /// Whether it is in a bpf file system: no other has pins.
    pub(crate) fn is_in_bpffs(&self) -> Result<bool> {
        self.kernel.holds_pins(&self.directory).at("look at", self.pins.path())
    }

    /// Where they are.
    pub(crate) fn place(&self) -> &PinnedDispatcher {
        &self.pins
    }

    pub(crate) fn into_place(self) -> PinnedDispatcher {
        self.pins
    }

    /// The pinned program of a slot; `None` if there is no such pin.
    pub(crate) fn program(&self, slot: usize) -> Result<Option<OwnedFd>> {
        self.object(&program_name(slot))
    }

    /// Whether the link of a slot is pinned.
    pub(crate) fn has_link(&self, slot: usize) -> bool {
        self.has(&link_name(slot))
    }

    /// The pinned link that holds the dispatcher on its interface; `None` if there is no such pin.
    pub(crate) fn attachment(&self) -> Result<Option<OwnedFd>> {
        // Most dispatchers have no such pin.
        if self.has(ATTACHMENT) { self.object(ATTACHMENT) } else { Ok(None) }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    fn object(&self, name: &str) -> Result<Option<OwnedFd>> {
        let path = || self.pins.path.join(name);
        let opened = match self.kernel.open_pin_in(&self.directory, name) {
            // Kernels before 6.5 know only whole paths, which take longer to walk.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.kernel.open_pin(&path())
            }
            other => other,
        };
        match opened {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(denied("open pin", &path(), error)),
        }
    }
}

fn program_name(slot: usize) -> String {
    format!("prog{slot}-prog")
}

fn link_name(slot: usize) -> String {
    format!("prog{slot}-link")
}

/// `progN-prog`, `progN-link` or `xdp-link`
fn is_pin_name(name: &str) -> bool {
    name == ATTACHMENT || ["-prog", "-link"].iter().any(|end| slot_of(name, end).is_some())
}

/// The slot that a pin is of, by its name: `progN` and then `end`.
pub(super) fn slot_of(name: &str, end: &str) -> Option<usize> {
    match name.strip_prefix("prog")?.strip_suffix(end)?.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(usize::from(digit - b'0')),
        _ => None,
    }
}

impl Staging<'_> {
    /// Pins a slot's program and link.
    pub(crate) fn pin(
        &self,
        _lock: &Lock,
        slot: usize,
        program: BorrowedFd<'_>,
        link: BorrowedFd<'_>,
    ) -> Result<()> {
        self.pin_as(&link_name(slot), link)?;
        self.pin_as(&program_name(slot), program)
    }

    /// Pins a slot's program.
    pub(crate) fn pin_program(
        &self,
        _lock: &Lock,
        slot: usize,
        program: BorrowedFd<'_>,
    ) -> Result<()> {
        self.pin_as(&program_name(slot), program)
    }

    /// Pins a slot's link.
    pub(crate) fn pin_link(&self, _lock: &Lock, slot: usize, link: BorrowedFd<'_>) -> Result<()> {
        self.pin_as(&link_name(slot), link)
    }

    /// Pins the link that holds the dispatcher, or will hold it, on its interface.
    pub(crate) fn pin_attachment(&self, _lock: &Lock, link: BorrowedFd<'_>) -> Result<()> {
        self.pin_as(ATTACHMENT, link)
    }

    fn pin_as(&self, name: &str, object: BorrowedFd<'_>) -> Result<()> {
        let path = || self.directory.path.join(name);
        let pinned = match self.kernel.pin_in(object, &self.open, name) {
            // Kernels before 6.5 know only whole paths.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.kernel.pin(object, &path())
            }
            other => other,
        };
        pinned.map_err(|error| denied("pin", &path(), error))
    }

    /// The dispatcher is attached: its pins stay.
    pub(crate) fn keep(mut self) -> PinnedDispatcher {
        self.kept = true;
        self.directory.clone()
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.directory.remove(self.kernel) {
            log::warn!("half-made pins are left behind: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetnsId;
    use crate::pins::{Legacy, NetnsInode};

    fn store(root: &Path, layout: impl PinLayout + 'static) -> Store {
        Store::new(Kernel::default(), root.to_owned(), Arc::new(layout), Patience(None))
    }

    fn netns() -> NetnsId {
        NetnsId { inode: 5, cookie: None, handle: None, boot: String::new() }
    }

    #[test]
    fn a_dispatcher_is_found_wherever_it_is_pinned() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("agent/pods/dispatch-3-77");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::create_dir_all(root.path().join("dispatch-3-7")).unwrap();
        let netns = netns();
        let find = |layout: Store, dispatcher| {
            let key = PinKey { netns: &netns, ifindex: 9, dispatcher };
            layout.find(&key).unwrap().map(|found| found.pins.path.clone())
        };
        assert_eq!(find(store(root.path(), Legacy), 77), Some(elsewhere.clone()));
        assert_eq!(find(store(root.path(), NetnsInode), 77), Some(elsewhere));
        assert_eq!(find(store(root.path(), NetnsInode), 7), Some(root.path().join("dispatch-3-7")));
        assert_eq!(find(store(root.path(), Legacy), 777), None);
        // A symbolic link leads to what may be another dispatcher's.
        std::os::unix::fs::symlink("agent", root.path().join("dispatch-9-777")).unwrap();
        assert_eq!(find(store(root.path(), Legacy), 777), None);
    }

    #[test]
    fn only_the_protocol_s_pins_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path(), Legacy);
        let lock = store.lock_root(Patience(None).begin()).unwrap();
        let directory = PinnedDispatcher { path: root.path().join("dispatch-1-2") };
        std::fs::create_dir(directory.path()).unwrap();
        for name in ["prog0-prog", "prog0-link", "somebody_s"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let error = store.remove(&lock, &directory).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::UnexpectedPin { .. }), "{error}");
        assert!(directory.path().join("somebody_s").exists());
        std::fs::remove_file(directory.path().join("somebody_s")).unwrap();
        store.remove(&lock, &directory).unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_staged_directory_goes_unless_it_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path(), Legacy);
        let lock = store.lock_root(Patience(None).begin()).unwrap();
        drop(store.stage(&lock, 1, 2).unwrap());
        assert!(!root.path().join("dispatch-1-2").exists());
        let kept = store.stage(&lock, 1, 2).unwrap().keep();
        assert!(kept.path().exists());
        // Left by a process that died: taken over, since the id is ours.
        std::fs::write(kept.program_path(0), "").unwrap();
        let staging = store.stage(&lock, 1, 2).unwrap();
        assert!(!kept.program_path(0).exists());
        drop(staging);
    }

    #[test]
    fn pin_names() {
        for name in ["prog0-prog", "prog9-link", "xdp-link"] {
            assert!(is_pin_name(name), "{name}");
        }
        for name in ["prog10-prog", "prog-prog", "progx-link", "prog0", "prog0-map", "identity"] {
            assert!(!is_pin_name(name), "{name}");
        }
    }
}
