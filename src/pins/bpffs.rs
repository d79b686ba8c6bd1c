//! Where the bpf file system is, and mounting one when that is allowed.

use super::{At, denied};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use std::io;
use std::path::{Path, PathBuf};

/// Where every distribution mounts it.
const DEFAULT: &str = "/sys/fs/bpf";
/// The protocol's directory in it.
pub(super) const DIRECTORY: &str = "xdp";

/// Where the bpf file system should be, and whether it may be mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) path: PathBuf,
    pub(crate) mount: bool,
    /// Where there is none, this directory is locked in its place, and nothing is pinned.
    pub(crate) stand_in: Option<PathBuf>,
}

impl Location {
    /// As `LIBXDP_BPFFS` and `LIBXDP_BPFFS_AUTOMOUNT` say.
    pub(crate) fn from_environment(kernel: &Kernel) -> Self {
        let variable = |name| kernel.variable(name);
        let path = variable("LIBXDP_BPFFS").filter(|path| !path.is_empty());
        Self {
            path: path.map_or_else(|| DEFAULT.into(), PathBuf::from),
            mount: variable("LIBXDP_BPFFS_AUTOMOUNT").is_some_and(|value| value == "1"),
            stand_in: None,
        }
    }

    /// The `xdp` directory, made if it is not there; the file system mounted if need be and allowed.
    pub(crate) fn open(&self, kernel: &Kernel) -> Result<PathBuf> {
        if !is_bpffs(kernel, &self.path)? {
            if !self.mount {
                return Err(self.missing());
            }
            self.mount(kernel)?;
        }
        let directory = self.directory();
        match kernel.mkdir(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                resolve(kernel, directory)
            }
            Err(error) => Err(denied("make directory", &directory, error)),
        }
    }

    /// As [`open`](Self::open); what stands in where there is no bpf file system, made if it is not there.
    pub(crate) fn open_to_lock(&self, kernel: &Kernel) -> Result<PathBuf> {
        match (self.open(kernel), &self.stand_in) {
            (Err(error), Some(directory)) if is_missing(&error) => match kernel.mkdir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(denied("make directory", directory, error))
                }
                _ => Ok(directory.clone()),
            },
            (opened, _) => opened,
        }
    }

    /// Whether something stands in for the bpf file system.
    pub(crate) fn is_stood_in_for(&self, kernel: &Kernel) -> Result<bool> {
        if self.stand_in.is_none() {
            return Ok(false);
        }
        match self.open(kernel) {
            Err(error) if is_missing(&error) => Ok(true),
            opened => opened.map(|_| false),
        }
    }

    /// The `xdp` directory if it is there; nothing is made.
    pub(crate) fn existing(&self, kernel: &Kernel) -> Result<Option<PathBuf>> {
        if !is_bpffs(kernel, &self.path)? {
            return Ok(None);
        }
        let directory = self.directory();
        match kernel.path_id(&directory) {
            Ok(_) => resolve(kernel, directory).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(denied("look at", &directory, error)),
        }
    }

    /// Mounts a bpf file system, under the lock of the mount point: a second one would hide the first.
    fn mount(&self, kernel: &Kernel) -> Result<()> {
        const MOUNT: &str = "mount bpffs on";
        let point = match kernel.open_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing()),
            other => other.at(MOUNT, &self.path)?,
        };
        kernel.lock(&point).at(MOUNT, &self.path)?;
        if is_bpffs(kernel, &self.path)? {
            return Ok(());
        }
        log::info!("mounting a bpf file system on {}", self.path.display());
        let mounted = kernel.mount_bpffs(&self.path);
        mounted
            .map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN"))
            .during(MOUNT, self.path.display())
    }

    /// Where the `xdp` directory is, if there is one.
    pub(crate) fn directory(&self) -> PathBuf {
        self.path.join(DIRECTORY)
    }

    fn missing(&self) -> Error {
        Error::new("find bpffs at", self.path.display(), ErrorKind::NoBpffs(self.path.clone()))
    }
}

/// The directory behind `xdp`. iproute2 makes that a symbolic link to a directory of its own, `tc`, in a bpf file system
/// that it finds empty; C libxdp follows it, so its chains lie there.
fn resolve(kernel: &Kernel, directory: PathBuf) -> Result<PathBuf> {
    match kernel.readlink(&directory) {
        // It is no link.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(directory),
        Err(error) => Err(denied("look at", &directory, error)),
        Ok(_) => {
            let behind = kernel.canonicalize(&directory).at("follow", &directory)?;
            if is_bpffs(kernel, &behind)? {
                return Ok(behind);
            }
            let what = format!("leads out of the bpf file system, to {}", behind.display());
            let kind = ErrorKind::UnexpectedPin { path: directory.clone(), what };
            Err(Error::new("follow", directory.display(), kind))
        }
    }
}

/// Whether an error is that there is no bpf file system.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoBpffs(_))
}

fn is_bpffs(kernel: &Kernel, path: &Path) -> Result<bool> {
    match kernel.is_bpffs(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.at("look for bpffs at", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_not_taken_for_bpffs() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("absent")] {
            let location = Location { path: path.clone(), mount: false, stand_in: None };
            let error = location.open(&Kernel::default()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NoBpffs(at) if *at == path), "{error}");
            assert!(!path.join("xdp").exists());
        }
    }
}
