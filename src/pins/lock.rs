//! The lock over a scope: flock(2) on its directory, as C libxdp takes it on `xdp`.

use super::{At, denied};
use crate::error::{Error, ErrorKind, LockHolder, Result};
use crate::sys::Kernel;
use crate::sys::fs::FileId;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a held lock is tried again while there is a deadline.
const POLL: Duration = Duration::from_millis(2);

/// How long to wait for somebody else's lock; for ever if there is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience(pub(crate) Option<Duration>);

/// When patience that began at some time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<(Instant, Duration)>);

impl Patience {
    pub(super) fn begin(self) -> Deadline {
        Deadline(self.0.map(|limit| (Instant::now(), limit)))
    }
}

impl Deadline {
    /// The error if it is over.
    pub(super) fn check(self, kernel: &Kernel, path: &Path) -> Result<()> {
        match self.0 {
            Some((start, limit)) if start.elapsed() >= limit => {
                let (path, holder) = (path.to_owned(), holder(kernel, path));
                let object = path.display().to_string();
                let kind = ErrorKind::LockTimeout { path, waited: limit, holder };
                Err(Error::new("lock", object, kind))
            }
            _ => Ok(()),
        }
    }
}

/// Proof that this process holds the lock of a directory. Every function that writes pins takes one.
/// The kernel releases the lock when this is dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Holds the lock for as long as it is open.
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock of the directory at `path`. `None` if, when the wait was over, the path no longer
    /// named that directory: who held the lock has removed or renamed it.
    pub(super) fn acquire(
        kernel: &Kernel,
        path: &Path,
        deadline: Deadline,
    ) -> Result<Option<Self>> {
        Self::take(kernel, path, |file| {
            wait(kernel, file, path, deadline)?;
            Ok(true)
        })
    }

    /// As [`acquire`](Lock::acquire), and also `None` if somebody else holds the lock now.
    pub(super) fn try_acquire(kernel: &Kernel, path: &Path) -> Result<Option<Self>> {
        Self::take(kernel, path, |file| kernel.try_lock(file).at("lock", path))
    }

    fn take(
        kernel: &Kernel,
        path: &Path,
        lock: impl FnOnce(&File) -> Result<bool>,
    ) -> Result<Option<Self>> {
        let file = match kernel.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("open", path)?,
        };
        if !lock(&file)? {
            return Ok(None);
        }
        let held = kernel.file_id(&file).at("lock", path)?;
        match kernel.path_id(path) {
            Ok(named) if named == held => Ok(Some(Self { _file: file, path: path.to_owned() })),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(denied("lock", path, error))
            }
            _ => Ok(None),
        }
    }

    /// The same lock, of a directory that was renamed while it was held.
    pub(super) fn renamed(self, path: &Path) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn wait(kernel: &Kernel, file: &File, path: &Path, deadline: Deadline) -> Result<()> {
    if deadline.0.is_none() {
        return uninterrupted(kernel, file, path);
    }
    while !kernel.try_lock(file).at("lock", path)? {
        deadline.check(kernel, path)?;
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn uninterrupted(kernel: &Kernel, file: &File, path: &Path) -> Result<()> {
    loop {
        match kernel.lock(file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.at("lock", path),
        }
    }
}

/// Who has the lock of the directory at `path`, if that can be told.
fn holder(kernel: &Kernel, path: &Path) -> Option<LockHolder> {
    let locked = kernel.path_id(path).ok()?;
    let table = kernel.read_file("/proc/locks").ok()?;
    let pid = String::from_utf8_lossy(&table).lines().find_map(|line| locker(line, locked))?;
    let name = kernel.read_file(&format!("/proc/{pid}/comm")).ok()?;
    Some(LockHolder { pid, name: String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned() })
}

/// The process that a line of `/proc/locks` (proc(5)) names, if it is of the flock(2) of this file:
///
/// `5: FLOCK  ADVISORY  WRITE 4711 00:1f:12345 0 EOF`, with the device in hexadecimal. Who waits has an arrow for the
/// second word.
fn locker(line: &str, locked: FileId) -> Option<u32> {
    let mut words = line.split_whitespace();
    if words.nth(1)? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok()?;
    let mut file = words.next()?.split(':');
    let mut device_part = || u32::from_str_radix(file.next()?, 16).ok();
    let device = libc::makedev(device_part()?, device_part()?);
    let inode = file.next()?.parse().ok()?;
    (FileId { device, inode } == locked).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fault::Plan;
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    #[test]
    fn who_locks_is_told_by_the_table() {
        let locked = FileId { device: libc::makedev(0, 0x1f), inode: 12345 };
        for (line, expected) in [
            ("5: FLOCK  ADVISORY  WRITE 4711 00:1f:12345 0 EOF", Some(4711)),
            ("55: FLOCK  ADVISORY  READ  4711 00:1f:12345 0 EOF", Some(4711)),
            ("5: -> FLOCK  ADVISORY  WRITE 4711 00:1f:12345 0 EOF", None),
            ("5: POSIX  ADVISORY  WRITE 4711 00:1f:12345 0 EOF", None),
            ("5: FLOCK  ADVISORY  WRITE 4711 00:1f:12346 0 EOF", None),
            ("5: FLOCK  ADVISORY  WRITE 4711 00:31:12345 0 EOF", None),
            ("5: FLOCK  ADVISORY  WRITE 4711 01:1f:12345 0 EOF", None),
            ("5: FLOCK  ADVISORY  WRITE -1 00:1f:12345 0 EOF", None),
            ("5: FLOCK  ADVISORY  WRITE 4711 00:1f", None),
            ("", None),
        ] {
            assert_eq!(locker(line, locked), expected, "{line}");
        }
        let large = FileId { device: libc::makedev(259, 0x12345), inode: 7 };
        assert_eq!(locker("1: FLOCK ADVISORY WRITE 8 103:12345:7 0 EOF", large), Some(8));
    }

    #[test]
    fn another_process_that_holds_a_lock_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("flock")
            .arg(directory.path())
            .args(["sh", "-c", "echo; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let error = acquire(directory.path(), Some(Duration::from_millis(20))).unwrap_err();
        let pid = child.id();
        drop(child.stdin.take());
        child.wait().unwrap();
        let ErrorKind::LockTimeout { holder: Some(holder), .. } = error.kind() else {
            panic!("{error}")
        };
        assert_eq!((holder.pid, holder.name.as_str()), (pid, "flock"), "{error}");
        assert!(error.to_string().contains(&format!("locked by flock (pid {pid})")), "{error}");
    }

    fn acquire(path: &Path, limit: Option<Duration>) -> Result<Option<Lock>> {
        Lock::acquire(&Kernel::default(), path, Patience(limit).begin())
    }

    #[test]
    fn a_held_lock_is_told_after_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let held = acquire(directory.path(), None).unwrap().unwrap();
        let limit = Duration::from_millis(20);
        let error = acquire(directory.path(), Some(limit)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::LockTimeout { .. }), "{error}");
        drop(held);
        assert!(acquire(directory.path(), Some(limit)).unwrap().is_some());
    }

    #[test]
    fn a_directory_removed_meanwhile_is_not_locked() {
        let directory = tempfile::tempdir().unwrap();
        let scope = directory.path().join("scope");
        std::fs::create_dir(&scope).unwrap();
        let replace = {
            let scope = scope.clone();
            move || {
                std::fs::remove_dir(&scope).unwrap();
                std::fs::create_dir(&scope).unwrap();
            }
        };
        // When it has been opened already.
        let kernel = Kernel::with_fault(Arc::new(Plan::interrupt("flock", replace)));
        assert!(Lock::acquire(&kernel, &scope, Patience(None).begin()).unwrap().is_none());
        std::fs::remove_dir(&scope).unwrap();
        assert!(acquire(&scope, None).unwrap().is_none());
    }
}
