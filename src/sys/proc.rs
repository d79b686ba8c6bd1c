//! What `/proc` tells of other processes, and descriptors borrowed from them.

use super::Kernel;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `KCMP_FILES`; include/uapi/linux/kcmp.h.
const KCMP_FILES: libc::c_int = 2;

impl Kernel {
    /// The entries of a directory that are numbers: processes, threads, descriptors.
    pub(crate) fn numbers_in(&self, directory: &str) -> io::Result<Vec<u32>> {
        self.step("readdir")?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory)? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(numbers)
    }

    pub(crate) fn open_file(&self, path: &str) -> io::Result<File> {
        self.step("open")?;
        File::open(path)
    }

    pub(crate) fn read_file(&self, path: &str) -> io::Result<Vec<u8>> {
        self.step("read")?;
        fs::read(path)
    }

    /// Whether two threads have the same table of descriptors.
    pub(crate) fn share_files(&self, one: u32, other: u32) -> io::Result<bool> {
        self.step("kcmp")?;
        // SAFETY: kcmp(2) takes no pointer; KCMP_FILES has no further arguments.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
        if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
    }

    /// A process, or kernel 6.9 another thread than its first, to borrow descriptors from.
    pub(crate) fn pidfd_open(&self, pid: u32, is_first: bool) -> io::Result<OwnedFd> {
        self.step("pidfd_open")?;
        let flags = if is_first { 0 } else { libc::PIDFD_THREAD };
        // SAFETY: pidfd_open(2) takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
        new_descriptor(fd)
    }

    /// A duplicate of a descriptor of another process. Kernel 5.6; needs the right to trace the process.
    pub(crate) fn borrow_descriptor(
        &self,
        process: BorrowedFd<'_>,
        number: u32,
    ) -> io::Result<File> {
        self.step("pidfd_getfd")?;
        // SAFETY: pidfd_getfd(2) takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
        new_descriptor(fd).map(File::from)
    }
}

/// Takes what a system call that makes a descriptor has returned.
pub(super) fn new_descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(returned) {
        // SAFETY: it is no error, so the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => above_standard(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere than the first three, which others close and open as they like.
pub(super) fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    // try_clone_to_owned() begins at 3.
    if fd.as_raw_fd() > libc::STDERR_FILENO { Ok(fd) } else { fd.as_fd().try_clone_to_owned() }
}
