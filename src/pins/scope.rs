//! The directory of one namespace: made with a note of whose it is, and set aside when that one is dead.

use super::layout;
use super::lock::{Lock, Patience};
use super::store::{PinnedDispatcher, Store};
use super::{At, denied};
use crate::error::{Error, ErrorKind, Result};
use crate::net::NetnsId;
use crate::sys::Kernel;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The symbolic link in a scope whose text is the namespace's identity.
pub(super) const IDENTITY: &str = "identity";
/// The name of a scope that is being made.
const DRAFT: &str = "draft-scope";
/// How often a scope that others remove at the same time is made again.
const ATTEMPTS: u32 = 64;

/// Whose a scope directory is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    /// A namespace that had our inode before us, or a note that cannot be read.
    Another,
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
            return Ok(Scope { store: self, lock: self.lock_root()? });
        }
        let path = self.root().join(&scope);
        for attempt in 0..ATTEMPTS {
            if owner(self.kernel(), &path, netns)? != Owner::Us {
                if let Some(scope) = self.make_scope(&path, netns)? {
                    return Ok(scope);
                }
            } else if let Some(lock) = Lock::acquire(self.kernel(), &path, self.patience())? {
                let scope = Scope { store: self, lock };
                if owner(self.kernel(), &path, netns)? == Owner::Us {
                    return Ok(scope);
                }
            }
            // Its last user has removed it, or another process was faster to make it.
            std::thread::sleep(Duration::from_micros(50 * u64::from(attempt)));
        }
        let kind = ErrorKind::Contended { attempts: ATTEMPTS };
        Err(Error::new("lock", path.display(), kind))
    }

    /// Locks the directory that `found` lies in; `None` if it has gone meanwhile.
    pub(crate) fn lock_around(&self, found: &PinnedDispatcher) -> Result<Option<Scope<'_>>> {
        let around = found.path().parent().unwrap_or(self.root());
        let lock = Lock::acquire(self.kernel(), around, self.patience())?;
        Ok(lock.map(|lock| Scope { store: self, lock }))
    }

    pub(super) fn lock_root(&self) -> Result<Lock> {
        Lock::acquire(self.kernel(), self.root(), self.patience())?.ok_or_else(|| {
            let gone = io::Error::from_raw_os_error(libc::ENOENT);
            Error::new("lock", self.root().display(), gone)
        })
    }

    /// Makes and locks the scope. `None` if another process made it first: the caller tries again.
    fn make_scope(&self, path: &Path, netns: &NetnsId) -> Result<Option<Scope<'_>>> {
        let kernel = self.kernel();
        let root = self.lock_root()?;
        match owner(kernel, path, netns)? {
            Owner::Us => return Ok(None),
            Owner::Another if !remove_if_empty(kernel, path) => {
                set_aside(kernel, self.root(), path, netns)?;
            }
            _ => {}
        }
        let made = self.make_parents(path).and_then(|()| {
            Draft::new(kernel, &root, self.root().join(DRAFT), netns)?.publish(path)
        });
        match made {
            Ok(lock) => Ok(Some(Scope { store: self, lock })),
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

    pub(super) fn patience(&self) -> Patience {
        self.lock_patience
    }
}

/// Whether the scope is gone. Only one that holds nothing but its note is removed.
fn remove_if_empty(kernel: &Kernel, path: &Path) -> bool {
    let Ok(entries) = kernel.read_dir(path).or_else(|_| kernel.read_dir(path)) else {
        return false;
    };
    if entries.iter().any(|entry| entry.name != IDENTITY) {
        return false;
    }
    let note = path.join(IDENTITY);
    if !entries.is_empty() && kernel.unlink(&note).or_else(|_| kernel.unlink(&note)).is_err() {
        return false;
    }
    kernel.rmdir(path).or_else(|_| kernel.rmdir(path)).is_ok()
}

fn ignore(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

fn owner(kernel: &Kernel, path: &Path, netns: &NetnsId) -> Result<Owner> {
    match kernel.readlink(&path.join(IDENTITY)) {
        Ok(text) => Ok(match decode(&text) {
            Some(noted) if noted.agrees_with(netns) => Owner::Us,
            _ => Owner::Another,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => unnoted(kernel, path),
        Err(error) => Err(denied("read the owner of", path, error)),
    }
}

/// A scope without a note: absent or empty it is free, and with pins in it somebody else's.
fn unnoted(kernel: &Kernel, path: &Path) -> Result<Owner> {
    match kernel.read_dir(path) {
        Ok(entries) if entries.is_empty() => Ok(Owner::Nobody),
        Ok(_) => Ok(Owner::Another),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
        Err(error) => Err(denied("read", path, error)),
    }
}

/// Renames the scope of a dead namespace out of the way. Its pins stay, so nothing is detached; what is
/// in it can still be found by dispatcher id, and cleaned by who knows that it is dead.
fn set_aside(kernel: &Kernel, root: &Path, path: &Path, netns: &NetnsId) -> Result<()> {
    for number in 0..u32::MAX {
        let aside = root.join(format!("dead-netns-{}-{number}", netns.inode));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::NetnsInode;
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
