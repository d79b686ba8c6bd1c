//! Files and directories of bpffs: made, listed, locked, removed, mounted.

use super::Kernel;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `f_type` of a bpf file system; include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What tells one file from another: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What a directory entry is, symbolic links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    Symlink,
    /// In bpffs: a pinned program, map or link.
    Object,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) kind: EntryKind,
}

/// Room for the entries of a dispatcher's directory, in bytes: some forty for each; more take another call.
const NAMES_ROOM: usize = 2048;

/// The entries in a stretch of `struct linux_dirent64`: inode, offset, length of the record, type, name.
fn names_of(mut records: &[u8]) -> Vec<(String, EntryKind)> {
    const LENGTH: usize = 16;
    const TYPE: usize = 18;
    const NAME: usize = 19;
    let mut names = Vec::new();
    while let Some(&[low, high]) = records.get(LENGTH..LENGTH + 2).and_then(|two| two.first_chunk())
    {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(record) = records.get(..length).filter(|record| record.len() > NAME) else {
            break;
        };
        let name = record.get(NAME..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        let kind = match record.get(TYPE) {
            Some(&libc::DT_DIR) => EntryKind::Directory,
            Some(&libc::DT_LNK) => EntryKind::Symlink,
            _ => EntryKind::Object,
        };
        if let Some(Ok(name)) = name.map(std::str::from_utf8) {
            names.push((name.to_owned(), kind));
        }
        records = records.get(length..).unwrap_or_default();
    }
    names
}

fn file_id(metadata: &fs::Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

impl Kernel {
    pub(crate) fn mkdir(&self, path: &Path) -> io::Result<()> {
        self.step("mkdir")?;
        fs::DirBuilder::new().mode(0o700).create(path)
    }

    pub(crate) fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.step("rmdir")?;
        fs::remove_dir(path)
    }

    /// Removes the entry `name` of an open directory, unless it is a directory itself.
    pub(crate) fn unlink_in(&self, directory: &File, name: &str) -> io::Result<()> {
        self.step("unlinkat")?;
        let name = c_path(Path::new(name))?;
        // SAFETY: the directory is open, and name ends in NUL and lives until the call returns.
        if unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub(crate) fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step("unlink")?;
        fs::remove_file(path)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename")?;
        fs::rename(from, to)
    }

    pub(crate) fn symlink(&self, text: &str, path: &Path) -> io::Result<()> {
        self.step("symlink")?;
        std::os::unix::fs::symlink(text, path)
    }

    pub(crate) fn readlink(&self, path: &Path) -> io::Result<String> {
        self.step("readlink")?;
        Ok(fs::read_link(path)?.to_string_lossy().into_owned())
    }

    /// The path without symbolic links.
    pub(crate) fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.step("realpath")?;
        fs::canonicalize(path)
    }

    /// The entries of `path`, sorted by name. No program of the protocol makes names that are not UTF-8: what cannot be
    /// read of such is replaced.
    pub(crate) fn read_dir(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.step("readdir")?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let file_type = entry.file_type()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = if file_type.is_dir() {
                EntryKind::Directory
            } else if file_type.is_symlink() {
                EntryKind::Symlink
            } else {
                EntryKind::Object
            };
            entries.push(Entry { path: entry.path(), name, kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens a directory itself, for locking. A symbolic link in its place is refused.
    pub(crate) fn open_dir(&self, path: &Path) -> io::Result<File> {
        self.step("open")?;
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)
    }

    /// Opens a directory in another one, and nothing outside of it or mounted there, wherever symbolic links lead.
    /// Kernel 5.6.
    pub(crate) fn open_dir_within(&self, directory: &File, name: &str) -> io::Result<File> {
        self.step("openat2")?;
        let name = c_path(Path::new(name))?;
        // SAFETY: open_how is plain integers, for which all zeroes is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags =
            u64::from((libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC).cast_unsigned());
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV;
        // SAFETY: the directory is open, name ends in NUL, and how is a live open_how of the size that is said.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match i32::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            Ok(fd) if fd >= 0 => Ok(unsafe { File::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What is in a directory that was just opened, itself and the one above included, in no order; names that are
    /// not UTF-8 left out.
    pub(crate) fn names_in(&self, directory: &File) -> io::Result<Vec<(String, EntryKind)>> {
        self.step("getdents64")?;
        let mut names = Vec::new();
        let mut buffer = [0_u8; NAMES_ROOM];
        loop {
            // SAFETY: the directory is open, and buffer has the room that is said.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_getdents64,
                    directory.as_raw_fd(),
                    buffer.as_mut_ptr(),
                    buffer.len(),
                )
            };
            match usize::try_from(got) {
                Err(_) => return Err(io::Error::last_os_error()),
                Ok(0) => return Ok(names),
                Ok(got) => names.extend(names_of(buffer.get(..got).unwrap_or_default())),
            }
        }
    }

    /// Device and inode of what `path` names now, a symbolic link not followed.
    pub(crate) fn path_id(&self, path: &Path) -> io::Result<FileId> {
        self.step("stat")?;
        Ok(file_id(&fs::symlink_metadata(path)?))
    }

    /// The device that a path lies on, symbolic links followed.
    pub(crate) fn device_of(&self, path: &Path) -> io::Result<u64> {
        self.step("stat")?;
        Ok(fs::metadata(path)?.dev())
    }

    pub(crate) fn file_id(&self, file: &File) -> io::Result<FileId> {
        self.step("fstat")?;
        Ok(file_id(&file.metadata()?))
    }

    /// Waits for the exclusive flock(2) that C libxdp takes too.
    pub(crate) fn lock(&self, file: &File) -> io::Result<()> {
        self.step("flock")?;
        file.lock()
    }

    /// Takes the lock if it is free; `false` if somebody holds it.
    pub(crate) fn try_lock(&self, file: &File) -> io::Result<bool> {
        self.step("flock")?;
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// An environment variable. A set-uid program follows none (secure_getenv(3)).
    #[allow(clippy::unused_self)]
    pub(crate) fn variable(&self, name: &str) -> Option<std::ffi::OsString> {
        // SAFETY: getauxval takes no pointer.
        let is_trusted = unsafe { libc::getauxval(libc::AT_SECURE) == 0 };
        if is_trusted { std::env::var_os(name) } else { None }
    }

    /// Whether an open directory is one of a bpf file system.
    pub(crate) fn holds_pins(&self, directory: &File) -> io::Result<bool> {
        Ok(self.file_system(directory.as_fd())? == BPF_FS_MAGIC)
    }

    /// The type of the file system that an open file lies on.
    pub(super) fn file_system(&self, file: BorrowedFd<'_>) -> io::Result<u64> {
        self.step("fstatfs")?;
        // SAFETY: statfs is plain data for which all zeroes is a value.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: stat is a live statfs for the kernel to fill.
        if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(magic(&stat))
    }

    /// Whether `path` lies on a bpf file system.
    pub(crate) fn is_bpffs(&self, path: &Path) -> io::Result<bool> {
        self.step("statfs")?;
        let path = c_path(path)?;
        // SAFETY: statfs is plain data for which all zeroes is a value.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: path ends in NUL, and stat is a live statfs for the kernel to fill.
        if unsafe { libc::statfs(path.as_ptr(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(magic(&stat) == BPF_FS_MAGIC)
    }

    /// Mounts a bpf file system on `path`. Needs `CAP_SYS_ADMIN`.
    pub(crate) fn mount_bpffs(&self, path: &Path) -> io::Result<()> {
        self.step("mount")?;
        let path = c_path(path)?;
        let options = c"mode=0700";
        // SAFETY: all four strings end in NUL and live until the call returns.
        let result = unsafe {
            libc::mount(
                c"bpf".as_ptr(),
                path.as_ptr(),
                c"bpf".as_ptr(),
                0,
                options.as_ptr().cast::<libc::c_void>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The type of a file system. Its field's width differs between architectures; it has 32 bits in all of them.
#[allow(clippy::cast_sign_loss)]
fn magic(stat: &libc::statfs) -> u64 {
    (stat.f_type as u64) & 0xffff_ffff
}

/// A path as the kernel reads it. Fails with `InvalidInput` on a NUL inside.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_open_directory_s_names_are_those_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        // More than one call's room.
        let mut expected: Vec<_> = (0..200).map(|n| format!("prog{n}-link")).collect();
        for name in &expected {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let kernel = Kernel::default();
        let mut names = kernel.names_in(&kernel.open_dir(directory.path()).unwrap()).unwrap();
        names.retain(|(name, _)| name != "." && name != "..");
        names.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|name| (name, EntryKind::Object)).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn an_entry_s_kind_is_told_and_no_directory_is_unlinked() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        std::os::unix::fs::symlink("text", directory.path().join("note")).unwrap();
        let kernel = Kernel::default();
        let open = kernel.open_dir(directory.path()).unwrap();
        let entries = kernel.names_in(&open).unwrap();
        assert!(entries.contains(&("below".into(), EntryKind::Directory)), "{entries:?}");
        assert!(entries.contains(&("note".into(), EntryKind::Symlink)), "{entries:?}");
        assert!(kernel.unlink_in(&open, "below").is_err());
        kernel.unlink_in(&open, "note").unwrap();
        assert!(kernel.unlink_in(&open, "note").is_err());
    }

    proptest! {
        #[test]
        fn no_records_make_it_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = names_of(&bytes);
        }
    }
}
