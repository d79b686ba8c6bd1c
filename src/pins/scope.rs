//! The directory of one namespace: made with a note of whose it is, and set aside when that one is dead.

#![forbid(unsafe_code)]

use super::layout;
use super::lock::{Lock, Patience};
use super::store::{PinnedDispatcher, Store};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::NetnsId;
use crate::sys::Kernel;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

/// The symbolic link in a scope whose text is the namespace's identity.
pub(super) const IDENTITY: &str = "identity";
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

impl Store {
    /// Locks the directory where this namespace's pins go, and makes it first if it is not there.
    pub(crate) fn lock_scope(&self, netns: &NetnsId) -> Result<Scope<'_>> {
        let lock = self.lock_or_make(netns)?;
        Ok(Scope { store: self, lock })
    }

    /// Locks the directory that `found` lies in; `None` if it has gone meanwhile.
    pub(crate) fn lock_around(&self, found: &PinnedDispatcher) -> Result<Option<Scope<'_>>> {
        let around = found.path().parent().unwrap_or(self.root());
        let lock = Lock::acquire(self.kernel(), around, self.patience())?;
        Ok(lock.map(|lock| Scope { store: self, lock }))
    }

    fn lock_or_make(&self, netns: &NetnsId) -> Result<Lock> {
        let scope = self.layout().scope(netns);
        if !layout::is_usable_scope(&scope) {
            return Err(Error::new(
                "choose a scope for",
                "the namespace",
                ErrorKind::BadLayout(scope),
            ));
        }
        let path = self.root().join(&scope);
        if scope.as_os_str().is_empty() {
            return self.lock_root();
        }
        for attempt in 0..ATTEMPTS {
            let lock = if owner(self.kernel(), &path, netns)? == Owner::Us {
                Lock::acquire(self.kernel(), &path, self.patience())?
            } else {
                self.make_scope(&path, netns)?
            };
            if let Some(lock) = lock
                && owner(self.kernel(), &path, netns)? == Owner::Us
            {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_micros(50 * u64::from(attempt)));
        }
        let kind = ErrorKind::Contended { attempts: ATTEMPTS };
        Err(Error::new("lock", path.display(), kind))
    }

    pub(super) fn lock_root(&self) -> Result<Lock> {
        Lock::acquire(self.kernel(), self.root(), self.patience())?.ok_or_else(|| {
            let gone = io::Error::from_raw_os_error(libc::ENOENT);
            Error::new("lock", self.root().display(), gone)
        })
    }

    /// Makes the scope under the root's lock, so that two processes cannot both set an old one aside, and locks
    /// it. `None` if another process was faster with its lock, or has removed it on the way, as its last user
    /// does: the caller tries again.
    fn make_scope(&self, path: &Path, netns: &NetnsId) -> Result<Option<Lock>> {
        let kernel = self.kernel();
        let _root = self.lock_root()?;
        if owner(kernel, path, netns)? == Owner::Another && !remove_if_empty(kernel, path) {
            set_aside(kernel, self.root(), path, netns)?;
        }
        let mut parent = self.root().to_owned();
        for component in path.strip_prefix(self.root()).unwrap_or(path).components() {
            parent.push(component);
            match kernel.mkdir(&parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                made => ignore(made, io::ErrorKind::AlreadyExists)
                    .during("make directory", parent.display())?,
            }
        }
        let made = kernel.symlink(&encode(netns), &path.join(IDENTITY));
        match made {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
                ) =>
            {
                remove_if_empty(kernel, path);
                Err(Error::new("note the namespace in", path.display(), error))
            }
            // Not waited for: who holds the root's lock must not hang on another namespace.
            _ => Lock::try_acquire(kernel, path),
        }
    }

    /// Removes a scope in which no dispatcher is left, and with it empty directories of its layout above.
    fn tidy(&self, lock: &Lock) {
        let path = lock.path();
        if path == self.root() {
            return;
        }
        if !remove_if_empty(self.kernel(), path) {
            return;
        }
        let above = path
            .ancestors()
            .skip(1)
            .take_while(|above| *above != self.root());
        for directory in above {
            if self.kernel().rmdir(directory).is_err() {
                return;
            }
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
    if !entries.is_empty()
        && kernel
            .unlink(&note)
            .or_else(|_| kernel.unlink(&note))
            .is_err()
    {
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
        Err(error) => Err(Error::new("read the owner of", path.display(), error)),
    }
}

/// A scope without a note: absent or empty it is free, and with pins in it somebody else's.
fn unnoted(kernel: &Kernel, path: &Path) -> Result<Owner> {
    match kernel.read_dir(path) {
        Ok(entries) if entries.is_empty() => Ok(Owner::Nobody),
        Ok(_) => Ok(Owner::Another),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
        Err(error) => Err(Error::new("read", path.display(), error)),
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
            Err(error) => return Err(Error::new("look at", aside.display(), error)),
        }
        log::warn!(
            "{} belongs to a namespace that had inode {} before; it is now {}",
            path.display(),
            netns.inode,
            aside.display()
        );
        return ignore(kernel.rename(path, &aside), io::ErrorKind::NotFound)
            .during("set aside", path.display());
    }
    Ok(())
}

fn encode(netns: &NetnsId) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let (cookie, handle) = (number(netns.cookie), number(netns.handle));
    format!(
        "inode={},cookie={cookie},handle={handle},boot={}",
        netns.inode, netns.boot
    )
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
    use std::path::PathBuf;
    use std::sync::Arc;

    fn netns(cookie: u64) -> NetnsId {
        NetnsId {
            inode: 5,
            cookie: Some(cookie),
            handle: None,
            boot: "b-1".into(),
        }
    }

    /// Scopes are directories and symbolic links: any file system has them.
    fn store(root: PathBuf) -> Store {
        Store::new(
            Kernel::default(),
            root,
            Arc::new(NetnsInode),
            Patience(None),
        )
    }

    #[test]
    fn identities_are_read_as_written() {
        let full = NetnsId {
            handle: Some(77),
            ..netns(9)
        };
        let bare = NetnsId {
            cookie: None,
            ..netns(0)
        };
        for id in [full, bare] {
            assert_eq!(decode(&encode(&id)), Some(id));
        }
        for text in [
            "",
            "inode=5",
            "inode=x,cookie=-,handle=-,boot=b",
            "cookie=1,inode=5",
        ] {
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
        assert_eq!(
            store.kernel().read_dir(new.path()).unwrap().len(),
            1,
            "only its note"
        );
        assert!(
            directory
                .path()
                .join("dead-netns-5-0/dispatch-1-2")
                .exists()
        );
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
