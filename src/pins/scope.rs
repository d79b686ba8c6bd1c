//! The directory of one namespace: made with a note of whose it is, and set aside when that one is dead.

use super::layout::{self, PinKey};
use super::lock::{Deadline, Lock};
use super::store::{PinnedDispatcher, Store, is_absent};
use super::{At, denied, twice};
use crate::error::{Error, ErrorKind, Result};
use crate::net::NetnsId;
use crate::sys::Kernel;
use crate::sys::fs::{Entry, EntryKind};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The symbolic link in a scope whose text is the namespace's identity.
pub(super) const IDENTITY: &str = "identity";

/// By how much the pause grows each time that others were faster.
const PAUSE: Duration = Duration::from_micros(50);

/// Whose a scope directory is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    /// A namespace that had our inode before us: no two that live have the same.
    Dead,
    /// Somebody that may well live, and why we think so.
    Another(String),
}

/// What a scope's note says.
#[derive(Debug)]
pub(super) enum Note {
    /// It is this namespace's.
    Names(NetnsId),
    /// It says this, which is no identity.
    Unreadable(String),
    /// There is none.
    None,
}

/// A locked scope. When it is let go and no dispatcher is left in it, it is removed.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    store: &'a Store,
    lock: Lock,
}

impl Deref for Scope<'_> {
    type Target = Lock;

    fn deref(&self) -> &Lock {
        &self.lock
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.store.tidy(&self.lock);
    }
}

/// A scope under construction, under a name that no reader looks at; removed when dropped.
#[derive(Debug)]
struct Draft<'a> {
    kernel: &'a Kernel,
    path: PathBuf,
    published: bool,
}

impl<'a> Draft<'a> {
    /// Under the root's lock only one draft is made at a time: one that is there was left by a killed process.
    fn new(kernel: &'a Kernel, _root: &Lock, path: PathBuf, netns: &NetnsId) -> Result<Self> {
        let made = match kernel.mkdir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_if_empty(kernel, &path);
                kernel.mkdir(&path)
            }
            other => other,
        };
        made.at("make directory", &path)?;
        let draft = Self { kernel, path, published: false };
        kernel
            .symlink(&encode(netns), &draft.path.join(IDENTITY))
            .at("note the namespace in", &draft.path)?;
        Ok(draft)
    }

    /// Gives it its place, already locked: nobody ever sees the scope without its note, or free.
    fn publish(mut self, path: &Path) -> Result<Lock> {
        let lock = Lock::try_acquire(self.kernel, &self.path)?;
        let lock = lock.ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY));
        let lock = lock.at("lock", &self.path)?;
        self.kernel.rename(&self.path, path).at("make directory", path)?;
        self.published = true;
        Ok(lock.renamed(path))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            remove_if_empty(self.kernel, &self.path);
        }
    }
}

impl Store {
    /// Locks the directory where this namespace's pins go, and makes it first if it is not there.
    pub(crate) fn lock_scope(&self, netns: &NetnsId) -> Result<Scope<'_>> {
        let scope = self.layout().scope(netns);
        if !layout::is_usable_scope(&scope) {
            let kind = ErrorKind::BadLayout(scope);
            return Err(Error::new("choose a scope for", "the namespace", kind));
        }
        if scope.as_os_str().is_empty() {
            return Ok(Scope { store: self, lock: self.lock_root(self.patience().begin())? });
        }
        let path = self.root().join(&scope);
        let deadline = self.patience().begin();
        let mut pause = Duration::ZERO;
        loop {
            if owner(self.kernel(), &path, netns)? != Owner::Us {
                if let Some(scope) = self.make_scope(&path, netns, deadline)? {
                    return Ok(scope);
                }
            } else if let Some(lock) = Lock::acquire(self.kernel(), &path, deadline)? {
                let scope = Scope { store: self, lock };
                if owner(self.kernel(), &path, netns)? == Owner::Us {
                    return Ok(scope);
                }
            }
            // Its last user has removed it, or another process was faster to make it: that one goes on.
            deadline.check(self.kernel(), &path)?;
            std::thread::sleep(pause);
            pause = (pause + PAUSE).min(40 * PAUSE);
        }
    }

    /// Whether the pins of a chain lie where nobody would look for them: since they were made its interface has got another
    /// number, or has left the namespace in whose scope they are.
    pub(crate) fn is_misplaced(&self, pins: &PinnedDispatcher, key: &PinKey<'_>) -> Result<bool> {
        if pins.ifindex() != Some(key.ifindex) {
            return Ok(true);
        }
        match pins.path().parent() {
            Some(scope) if scope != self.root() => Ok(match self.note(scope)? {
                Note::Names(netns) => !netns.agrees_with(key.netns),
                Note::Unreadable(_) | Note::None => false,
            }),
            _ => Ok(false),
        }
    }

    /// What the note in a scope says.
    pub(super) fn note(&self, scope: &Path) -> Result<Note> {
        read_note(self.kernel(), scope)
    }

    /// As [`lock_around`](Store::lock_around), and also `None` if somebody holds the lock now.
    pub(crate) fn try_lock_around(&self, found: &PinnedDispatcher) -> Result<Option<Scope<'_>>> {
        let around = found.path().parent().unwrap_or(self.root());
        let lock = Lock::try_acquire(self.kernel(), around)?;
        Ok(lock.map(|lock| Scope { store: self, lock }))
    }

    /// Locks a scope that is there, so that it goes if nothing is in it; `None` if it has gone meanwhile.
    pub(crate) fn lock_existing(&self, scope: &Path) -> Result<Option<Scope<'_>>> {
        let lock = Lock::acquire(self.kernel(), scope, self.patience().begin())?;
        Ok(lock.map(|lock| Scope { store: self, lock }))
    }

    /// Whether that is where scopes are made.
    pub(crate) fn is_draft(&self, path: &Path) -> bool {
        path == self.root().join(layout::DRAFT)
    }

    /// Removes a scope without a note, if nothing is in it: one that somebody has put in its place meanwhile has a note.
    pub(crate) fn remove_bare_scope(&self, path: &Path) -> Result<bool> {
        match self.kernel().rmdir(path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::ENOENT)) => {
                Ok(false)
            }
            other => other.map(|()| true).at("remove", path),
        }
    }

    /// Removes what a process has left that ended while it made a scope.
    pub(crate) fn remove_draft(&self) -> Result<bool> {
        let _root = self.lock_root(self.patience().begin())?;
        Ok(remove_if_empty(self.kernel(), &self.root().join(layout::DRAFT)))
    }

    /// Locks the directory that `found` lies in; `None` if it has gone meanwhile.
    pub(crate) fn lock_around(&self, found: &PinnedDispatcher) -> Result<Option<Scope<'_>>> {
        let around = found.path().parent().unwrap_or(self.root());
        let lock = Lock::acquire(self.kernel(), around, self.patience().begin())?;
        Ok(lock.map(|lock| Scope { store: self, lock }))
    }

    /// Locks the root, as C libxdp does for everything.
    pub(crate) fn lock_everything(&self) -> Result<Lock> {
        self.lock_root(self.patience().begin())
    }

    pub(super) fn lock_root(&self, deadline: Deadline) -> Result<Lock> {
        Lock::acquire(self.kernel(), self.root(), deadline)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
            .at("lock", self.root())
    }

    /// Makes and locks the scope. `None` if another process is at work on it: the caller tries again.
    fn make_scope(
        &self,
        path: &Path,
        netns: &NetnsId,
        deadline: Deadline,
    ) -> Result<Option<Scope<'_>>> {
        let kernel = self.kernel();
        let root = self.lock_root(deadline)?;
        match owner(kernel, path, netns)? {
            Owner::Us => return Ok(None),
            Owner::Nobody => {}
            Owner::Dead => {
                // Not waited for: who holds the root's lock must not hang on another's.
                let Some(_old) = Lock::try_acquire(kernel, path)? else { return Ok(None) };
                if !remove_if_empty(kernel, path) {
                    set_aside(kernel, self.root(), path, netns)?;
                }
            }
            Owner::Another(what) => {
                let kind = ErrorKind::UnexpectedPin { path: path.to_owned(), what };
                return Err(Error::new("use as a scope", path.display(), kind));
            }
        }
        let made = self.make_parents(path).and_then(|()| {
            Draft::new(kernel, &root, self.root().join(layout::DRAFT), netns)?.publish(path)
        });
        match made {
            Ok(lock) => Ok(Some(Scope { store: self, lock })),
            // The last user of a neighbour has removed the directory above both.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => {
                self.remove_parents(path);
                Err(error)
            }
        }
    }

    /// The directories between the root and a scope, where a layout has such.
    fn make_parents(&self, path: &Path) -> Result<()> {
        for parent in self.parents(path).into_iter().rev() {
            ignore(self.kernel().mkdir(parent), io::ErrorKind::AlreadyExists)
                .at("make directory", parent)?;
        }
        Ok(())
    }

    /// Removes those that are empty.
    fn remove_parents(&self, path: &Path) {
        for parent in self.parents(path) {
            if self.kernel().rmdir(parent).is_err() {
                return;
            }
        }
    }

    /// From the scope's own up to, and without, the root.
    fn parents<'p>(&self, path: &'p Path) -> Vec<&'p Path> {
        path.ancestors().skip(1).take_while(|above| *above != self.root()).collect()
    }

    /// Removes a scope in which no dispatcher is left, and with it empty directories of its layout above.
    fn tidy(&self, lock: &Lock) {
        let path = lock.path();
        if path != self.root() && remove_if_empty(self.kernel(), path) {
            self.remove_parents(path);
        }
    }
}

/// Whether the scope is gone. Only one that holds nothing but its note is removed.
fn remove_if_empty(kernel: &Kernel, path: &Path) -> bool {
    let Ok(entries) = twice(|| kernel.read_dir(path)) else {
        return false;
    };
    let is_note = |entry: &Entry| entry.name == IDENTITY && entry.kind == EntryKind::Symlink;
    if !entries.iter().all(is_note) {
        return false;
    }
    let note = path.join(IDENTITY);
    if !entries.is_empty() && twice(|| kernel.unlink(&note)).is_err() {
        return false;
    }
    twice(|| kernel.rmdir(path)).is_ok()
}

fn ignore(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

fn owner(kernel: &Kernel, path: &Path, netns: &NetnsId) -> Result<Owner> {
    let another = |text: &str| Owner::Another(format!("its note names another namespace: {text}"));
    Ok(match read_note(kernel, path)? {
        Note::Names(noted) if noted.agrees_with(netns) => Owner::Us,
        Note::Names(noted) if noted.inode == netns.inode => Owner::Dead,
        Note::Names(noted) => another(&encode(&noted)),
        Note::Unreadable(text) => another(&text),
        Note::None => unnoted(kernel, path)?,
    })
}

fn read_note(kernel: &Kernel, scope: &Path) -> Result<Note> {
    match kernel.readlink(&scope.join(IDENTITY)) {
        Ok(text) => Ok(decode(&text).map_or(Note::Unreadable(text), Note::Names)),
        // None, or something else of that name.
        Err(error) if is_absent(&error) || error.raw_os_error() == Some(libc::EINVAL) => {
            Ok(Note::None)
        }
        Err(error) => Err(denied("read the owner of", scope, error)),
    }
}

/// A scope without a note: absent or empty it is free, and with anything in it somebody else's.
fn unnoted(kernel: &Kernel, path: &Path) -> Result<Owner> {
    match kernel.read_dir(path) {
        Ok(entries) if entries.is_empty() => Ok(Owner::Nobody),
        Ok(_) => Ok(Owner::Another("it has content and no note whose it is".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
        Err(error) => Err(denied("read", path, error)),
    }
}

/// Renames the scope of a dead namespace, whose lock we hold, out of the way. Its pins stay, so nothing is
/// detached; what is in it can still be found by dispatcher id, and cleaned by who knows that it is dead.
fn set_aside(kernel: &Kernel, root: &Path, path: &Path, netns: &NetnsId) -> Result<()> {
    for number in 0..u32::MAX {
        let aside = root.join(format!("{}{}-{number}", layout::DEAD, netns.inode));
        match kernel.path_id(&aside) {
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(denied("look at", &aside, error)),
        }
        log::warn!(
            "{} belongs to a namespace that had inode {} before; it is now {}",
            path.display(),
            netns.inode,
            aside.display()
        );
        return ignore(kernel.rename(path, &aside), io::ErrorKind::NotFound).at("set aside", path);
    }
    Ok(())
}

fn encode(netns: &NetnsId) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let (cookie, handle) = (number(netns.cookie), number(netns.handle));
    format!("inode={},cookie={cookie},handle={handle},boot={}", netns.inode, netns.boot)
}

fn decode(text: &str) -> Option<NetnsId> {
    let mut fields = text.split(',');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let number = |text: &str| match text {
        "-" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    Some(NetnsId {
        inode: field("inode")?.parse().ok()?,
        cookie: number(field("cookie")?)?,
        handle: number(field("handle")?)?,
        boot: field("boot")?.to_owned(),
    })
}

/// A note that can be read is written the same way, unless it was written another.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    if let Some(netns) = decode(text) {
        assert_eq!(decode(&encode(&netns)).as_ref(), Some(&netns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::{NetnsInode, Patience};
    use std::sync::Arc;

    fn netns(cookie: u64) -> NetnsId {
        NetnsId { inode: 5, cookie: Some(cookie), handle: None, boot: "b-1".into() }
    }

    /// Scopes are directories and symbolic links: any file system has them.
    fn store(root: PathBuf) -> Store {
        Store::new(Kernel::default(), root, Arc::new(NetnsInode), Patience(None))
    }

    #[test]
    fn identities_are_read_as_written() {
        let full = NetnsId { handle: Some(77), ..netns(9) };
        let bare = NetnsId { cookie: None, ..netns(0) };
        for id in [full, bare] {
            assert_eq!(decode(&encode(&id)), Some(id));
        }
        for text in ["", "inode=5", "inode=x,cookie=-,handle=-,boot=b", "cookie=1,inode=5"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_scope_goes_when_its_last_dispatcher_does() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path().to_owned());
        let scope = store.lock_scope(&netns(1)).unwrap();
        let dispatcher = scope.path().join("dispatch-1-2");
        std::fs::create_dir(&dispatcher).unwrap();
        drop(scope);
        assert!(dispatcher.exists());
        let scope = store.lock_scope(&netns(1)).unwrap();
        std::fs::remove_dir(&dispatcher).unwrap();
        drop(scope);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_reused_inode_does_not_take_over_the_dead_one_s_scope() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path().to_owned());
        let old = store.lock_scope(&netns(1)).unwrap();
        std::fs::create_dir(old.path().join("dispatch-1-2")).unwrap();
        drop(old);
        let new = store.lock_scope(&netns(2)).unwrap();
        assert_eq!(store.kernel().read_dir(new.path()).unwrap().len(), 1, "only its note");
        assert!(directory.path().join("dead-netns-5-0/dispatch-1-2").exists());
        drop(new);
        // One without pins is not worth keeping.
        drop(store.lock_scope(&netns(3)).unwrap());
        assert!(!directory.path().join("dead-netns-5-1").exists());
    }

    #[test]
    fn what_may_be_somebody_s_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path().to_owned());
        let scope = directory.path().join("netns-5");
        let refused = || {
            let error = store.lock_scope(&netns(1)).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::UnexpectedPin { .. }), "{error}");
            assert!(scope.exists());
        };
        std::fs::create_dir(&scope).unwrap();
        std::fs::write(scope.join("my_map"), "").unwrap();
        refused();
        std::fs::remove_file(scope.join("my_map")).unwrap();
        let other = NetnsId { inode: 6, ..netns(1) };
        std::os::unix::fs::symlink(encode(&other), scope.join(IDENTITY)).unwrap();
        refused();
        std::fs::remove_file(scope.join(IDENTITY)).unwrap();
        std::os::unix::fs::symlink("unreadable", scope.join(IDENTITY)).unwrap();
        refused();
    }

    #[test]
    fn a_dead_namespace_s_scope_is_not_taken_from_who_works_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let limit = Patience(Some(Duration::from_millis(50)));
        let root = directory.path().to_owned();
        let store = Store::new(Kernel::default(), root, Arc::new(NetnsInode), limit);
        let held = store.lock_scope(&netns(1)).unwrap();
        std::fs::create_dir(held.path().join("dispatch-1-2")).unwrap();
        let error = store.lock_scope(&netns(2)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::LockTimeout { .. }), "{error}");
        assert!(held.path().join("dispatch-1-2").exists());
        drop(held);
        assert!(store.lock_scope(&netns(2)).is_ok());
    }

    /// Scopes below a common directory, which the last user of each removes.
    #[derive(Debug)]
    struct Nested;

    impl crate::PinLayout for Nested {
        fn scope(&self, netns: &NetnsId) -> PathBuf {
            format!("agent/pods/{}", netns.inode).into()
        }

        fn netns_inode(&self, _: &Path) -> Option<u64> {
            None
        }
    }

    #[test]
    fn neighbours_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        std::thread::scope(|scope| {
            for inode in 0..4 {
                let root = root.clone();
                scope.spawn(move || {
                    let layout = Arc::new(Nested);
                    let store = Store::new(Kernel::default(), root, layout, Patience(None));
                    for _ in 0..100 {
                        let scope = store.lock_scope(&NetnsId { inode, ..netns(1) }).unwrap();
                        std::fs::create_dir(scope.path().join("dispatch-1-2")).unwrap();
                        std::fs::remove_dir(scope.path().join("dispatch-1-2")).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn eight_threads_make_and_remove_one_scope() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let store = store(root.clone());
                    for _ in 0..50 {
                        let scope = store.lock_scope(&netns(1)).unwrap();
                        let dispatcher = scope.path().join("dispatch-1-2");
                        std::fs::create_dir(&dispatcher).unwrap();
                        std::fs::remove_dir(&dispatcher).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
