//! `clean`: pins of dispatchers that are no longer in the kernel.
//!
//! A dispatcher whose id the kernel does not know is attached nowhere, in no namespace, so its pins are dead whoever
//! made them. No attach can be hurt: one that is under way has loaded its dispatcher, and holds it, before it makes the
//! directory for the pins; and directories are looked at before ids, under the lock that an attach takes.
//!
//! That is less than C's command removes. The pinned link of a component holds the dispatcher that it was put into, so
//! the chain of an interface that has gone stays in the kernel and is not dead by this rule; to tell that no namespace
//! uses it takes a look at all of them, which is the library's to do.

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use oxdp::{Census, Legacy, PinLayout};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep below `xdp` layouts may lay the directories of dispatchers.
const DEPTH: usize = 5;

pub(crate) fn run(dry_run: bool) -> Result<()> {
    let bpffs = std::env::var_os("LIBXDP_BPFFS").filter(|path| !path.is_empty());
    let bpffs = bpffs.map_or_else(|| "/sys/fs/bpf".into(), PathBuf::from);
    let magic = statfs(&bpffs).with_context(|| format!("look at {}", bpffs.display()))?;
    let is_bpffs = magic.filesystem_type() == BPF_FS_MAGIC;
    ensure!(is_bpffs, "clean {}: not a bpf file system", bpffs.display());
    let mut scopes = Vec::new();
    find_scopes(&bpffs.join("xdp"), DEPTH, &mut scopes)?;
    scopes.iter().try_for_each(|scope| clean(scope, dry_run))
}

/// All directories in which dispatchers can be pinned.
fn find_scopes(directory: &Path, depth: usize, scopes: &mut Vec<PathBuf>) -> Result<()> {
    for below in directories(directory)?.into_iter().filter(|path| dispatcher(path).is_none()) {
        if depth > 0 {
            find_scopes(&below, depth - 1, scopes)?;
        }
    }
    scopes.push(directory.to_owned());
    Ok(())
}

/// The dispatcher whose directory that is. Its name is the same in every layout.
fn dispatcher(path: &Path) -> Option<u32> {
    Some(Legacy.parse(Path::new(path.file_name()?))?.dispatcher)
}

fn clean(scope: &Path, dry_run: bool) -> Result<()> {
    let Some(_lock) = lock(scope)? else { return Ok(()) };
    let pinned = directories(scope)?;
    // After the directories: a dispatcher that is newer than its absence from this has none among them.
    let census = Census::take()?;
    for path in pinned {
        match dispatcher(&path) {
            Some(id) if census.programs.binary_search(&id).is_err() => remove(&path, dry_run)?,
            Some(id) => log::info!("{}: dispatcher {id} is in the kernel: kept", path.display()),
            None => {}
        }
    }
    Ok(())
}

/// Who changes chains holds this lock. `None` if the directory was removed or renamed while it was waited for.
fn lock(directory: &Path) -> Result<Option<Flock<File>>> {
    let context = || format!("lock {}", directory.display());
    let Some(file) = present(File::open(directory)).with_context(context)? else { return Ok(None) };
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    let lock = lock.with_context(context)?;
    let held = lock.metadata().with_context(context)?;
    let named = present(fs::metadata(directory)).with_context(context)?;
    let is_it = named.is_some_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
    Ok(is_it.then_some(lock))
}

/// Removes what the protocol puts into a directory, and then that; with anything else in it, it stays as it is.
fn remove(directory: &Path, dry_run: bool) -> Result<()> {
    let context = || format!("clean {}", directory.display());
    let mut pins = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let is_pin = entry.file_name().to_str().is_some_and(is_pin_name);
        if !is_pin || !entry.file_type().with_context(context)?.is_file() {
            let (kept, why) = (directory.display(), entry.path());
            log::warn!("{kept}: kept, since {} is not the protocol's", why.display());
            return Ok(());
        }
        pins.push(entry.path());
    }
    let what = if dry_run { "would remove" } else { "removed" };
    if !dry_run {
        pins.iter().try_for_each(fs::remove_file).with_context(context)?;
        fs::remove_dir(directory).with_context(context)?;
    }
    let pins = pins.len();
    writeln!(io::stdout(), "{what} {} ({pins} pins)", directory.display()).context("write")
}

/// `progN-prog`, `progN-link` or `xdp-link`
fn is_pin_name(name: &str) -> bool {
    let of_slot = || {
        let (slot, kind) = name.strip_prefix("prog")?.split_once('-')?;
        Some(matches!(slot.as_bytes(), [b'0'..=b'9']) && ["prog", "link"].contains(&kind))
    };
    name == "xdp-link" || of_slot().unwrap_or(false)
}

/// Symbolic links are not followed; a directory that is gone has none.
fn directories(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("read {}", directory.display());
    let Some(entries) = present(fs::read_dir(directory)).with_context(context)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(context)?;
        if entry.file_type().with_context(context)?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
