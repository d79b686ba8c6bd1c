//! A network namespace as a value.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::fs::FileId;
use once_cell::sync::OnceCell;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Where iproute2 keeps named namespaces.
pub(super) const NAMED: &str = "/run/netns";

/// A network namespace, held open: it lives at least as long as this value.
///
/// Cheap to clone. Two values are equal if they are the same namespace, however they were found.
///
/// Entering another namespace than the caller's needs `CAP_SYS_ADMIN` over it (setns(2)). It happens on
/// threads made for it; the caller's own thread never moves.
#[derive(Clone)]
pub struct Netns(Arc<Inner>);

struct Inner {
    fd: OwnedFd,
    label: String,
    device: u64,
    inode: u64,
    id: OnceCell<NetnsId>,
}

/// What identifies a network namespace.
///
/// The inode is all that every kernel has, and it is used again as soon as the namespace is gone. The
/// cookie and the handle are not, so where both sides know one of them, it decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NetnsId {
    /// Inode of the namespace's file, as in `net:[4026531840]`.
    pub inode: u64,
    /// `SO_NETNS_COOKIE`: unique until reboot. `None` before kernel 5.14.
    pub cookie: Option<u64>,
    /// The id in the namespace's file handle: unique until reboot. `None` before kernel 6.18.
    pub handle: Option<u64>,
    /// `/proc/sys/kernel/random/boot_id`, within which the two are unique; empty where that is not shown.
    pub boot: String,
}

impl NetnsId {
    /// Whether both can be the same namespace: no part that both know differs.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let same = |a: Option<u64>, b: Option<u64>| a.is_none() || b.is_none() || a == b;
        self.inode == other.inode
            && self.boot == other.boot
            && same(self.cookie, other.cookie)
            && same(self.handle, other.handle)
    }
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        let label = || "current".to_owned();
        let file = Kernel::default().own_netns().during("open namespace", label())?;
        Self::new(file, label())
    }

    /// A namespace that `ip netns add` made.
    ///
    /// # Errors
    /// [`ErrorKind::NoNetns`] if there is none of that name.
    pub fn by_name(name: &str) -> Result<Self> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            let kind = ErrorKind::NoNetns("a name has no slash and is not empty".into());
            return Err(Error::new("open namespace", name, kind));
        }
        Self::open(&Path::new(NAMED).join(name), name.to_owned())
    }

    /// The namespace of a process, by its id in the PID namespace of `/proc`.
    pub fn from_pid(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")), format!("pid {pid}"))
    }

    /// The namespace of PID 1 of `/proc`'s PID namespace: a host's own, or a container's.
    ///
    /// `/proc/1/ns/net` may be closed to us, even to a root of fewer capabilities than PID 1 has (ptrace(2),
    /// access mode checking). Then it is told by the inode of `/proc/PID/net/dev`, which is one for each
    /// namespace and open to all, and entered by way of another process. `None` if there is no such way: then
    /// this process cannot enter it.
    pub(crate) fn initial() -> Result<Option<Self>> {
        let closed = |error: &Error| matches!(error.errno(), Some(libc::EACCES | libc::EPERM));
        match Self::from_pid(1) {
            Err(error) if closed(&error) => {}
            other => return other.map(Some),
        }
        let Some(wanted) = net_files("1") else { return Ok(None) };
        let processes = fs::read_dir("/proc").during("read", "/proc")?.filter_map(io::Result::ok);
        let processes = processes.filter_map(|entry| entry.file_name().into_string().ok());
        let numbers = processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let found = std::iter::once("thread-self".to_owned())
            .chain(numbers)
            .filter(|process| net_files(process) == Some(wanted))
            .find_map(|process| Self::from_path(format!("/proc/{process}/ns/net")).ok());
        Ok(found)
    }

    /// A namespace by a path that is bound to it.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let label = if path.starts_with("/proc/thread-self") {
            "current".into()
        } else {
            path.display().to_string()
        };
        Self::open(path, label)
    }

    /// A namespace from a descriptor, say one that came over a socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::new(File::from(fd), "from descriptor".into())
    }

    fn open(path: &Path, label: String) -> Result<Self> {
        // A FIFO in its place must not be waited for.
        let options = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = options.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => ErrorKind::NoNetns("no such file".into()),
                _ => error.into(),
            };
            Error::new("open namespace", path.display(), kind)
        })?;
        Self::new(file, label)
    }

    fn new(file: File, label: String) -> Result<Self> {
        let kernel = Kernel::default();
        if !kernel.is_netns(file.as_fd()).during("open namespace", &label)? {
            let kind = ErrorKind::NoNetns("another kind of file".into());
            return Err(Error::new("open namespace", label, kind));
        }
        Self::of_file(&kernel, file, label.clone()).during("open namespace", label)
    }

    /// Of a file that is known to be a network namespace's.
    pub(super) fn of_file(kernel: &Kernel, file: File, label: String) -> io::Result<Self> {
        let FileId { device, inode } = kernel.file_id(&file)?;
        let id = OnceCell::new();
        Ok(Self(Arc::new(Inner { fd: file.into(), label, device, inode, id })))
    }

    /// How it was found: its name, a path or a process.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Inode of the namespace's file.
    pub fn inode(&self) -> u64 {
        self.0.inode
    }

    /// The namespace's identity, read once. Enters the namespace to ask for the cookie.
    pub fn id(&self) -> Result<&NetnsId> {
        self.0.id.get_or_try_init(|| {
            let kernel = Kernel::default();
            let cookie = self.enter(&kernel, || kernel.netns_cookie())?.during("identify", self)?;
            let handle = kernel.netns_handle(self.as_fd()).during("identify", self)?;
            let boot = match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
                Ok(boot) => boot.trim().to_owned(),
                // Where that part of /proc is not shown: it only bears out what the numbers say.
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error).during("read", "the boot id"),
            };
            Ok(NetnsId { inode: self.0.inode, cookie, handle, boot })
        })
    }

    /// Runs `work` inside the namespace: on the calling thread if it is there already, else on a thread of
    /// its own. Sockets that `work` makes stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.enter(&Kernel::default(), work)
    }

    pub(crate) fn enter<T: Send>(
        &self,
        kernel: &Kernel,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        kernel.in_netns(self.as_fd(), work).map_err(|error| {
            let needs = "CAP_SYS_ADMIN in the namespace's user namespace";
            Error::new("enter", self, ErrorKind::privileged(error, needs))
        })
    }
}

/// What tells the namespace of a process, without a look at the namespace itself.
fn net_files(process: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{process}/net/dev")).ok()?.ino())
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        (self.0.device, self.0.inode) == (other.0.device, other.0.inode)
    }
}

impl Eq for Netns {}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netns {} (inode {})", self.0.label, self.0.inode)
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64, cookie: Option<u64>, handle: Option<u64>) -> NetnsId {
        NetnsId { inode, cookie, handle, boot: "b".into() }
    }

    #[test]
    fn what_both_know_decides() {
        assert!(id(1, None, None).agrees_with(&id(1, Some(2), Some(3))));
        assert!(!id(1, Some(4), None).agrees_with(&id(1, Some(2), Some(3))));
        assert!(!id(1, Some(2), Some(4)).agrees_with(&id(1, Some(2), Some(3))));
        assert!(!id(9, None, None).agrees_with(&id(1, None, None)));
        let other_boot = NetnsId { boot: "c".into(), ..id(1, Some(2), None) };
        assert!(!id(1, Some(2), None).agrees_with(&other_boot));
    }

    #[test]
    fn the_current_namespace_is_the_process_s() {
        let current = Netns::current().unwrap();
        assert_eq!(current, Netns::from_pid(std::process::id()).unwrap());
        assert_eq!(current.id().unwrap().inode, current.inode());
    }

    #[test]
    fn the_initial_namespace_is_found() {
        let initial = Netns::initial().unwrap().expect("some process of it is open to us");
        let there = initial.run(|| net_files("thread-self")).unwrap();
        assert!(there.is_some());
        assert_eq!(there, net_files("1"));
    }

    #[test]
    fn other_files_are_refused() {
        for path in ["/dev/null", "/proc/self/ns/mnt", "/proc/self/status", "/", "/no/such/file"] {
            let error = Netns::from_path(path).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NoNetns(_)), "{error}");
        }
        let error = Netns::by_name("../../proc/self/ns/net").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoNetns(_)), "{error}");
        let error = Netns::by_name("no-such-namespace").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoNetns(_)), "{error}");
    }
}
