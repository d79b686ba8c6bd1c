//! Threads, and the file systems as they see them.

use crate::sys::Kernel;
use std::fmt;
use std::path::{Path, PathBuf};

/// A thread of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) pid: u32,
    pub(super) tid: u32,
}

impl Task {
    /// Whether it is the one that the process goes by.
    pub(super) fn is_first(self) -> bool {
        self.pid == self.tid
    }

    /// The path of something of this thread's in `/proc`.
    pub(super) fn path(self, name: &str) -> String {
        let Self { pid, tid } = self;
        if self.is_first() {
            format!("/proc/{pid}/{name}")
        } else {
            format!("/proc/{pid}/task/{tid}/{name}")
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_first() {
            write!(f, "thread {} of ", self.tid)?;
        }
        write!(f, "pid {}", self.pid)
    }
}

/// The mounts as a thread sees them; of the calling thread, if there is no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct View(Option<Task>);

impl View {
    pub(super) fn own() -> Self {
        Self(None)
    }

    pub(super) fn of(task: Task) -> Self {
        Self(Some(task))
    }

    pub(super) fn path(self, name: &str) -> String {
        self.0.map_or_else(|| format!("/proc/thread-self/{name}"), |task| task.path(name))
    }

    /// A path of the thread's, as one that can be opened from here for as long as the thread lives.
    pub(super) fn reach(self, path: &Path) -> PathBuf {
        match self.0 {
            None => path.to_owned(),
            Some(task) => {
                Path::new(&task.path("root")).join(path.strip_prefix("/").unwrap_or(path))
            }
        }
    }

    /// Whether its root is that of its mount namespace: a mount table leaves out what lies outside of the root.
    pub(super) fn sees_all(self, kernel: &Kernel) -> bool {
        kernel.readlink(Path::new(&self.path("root"))).is_ok_and(|root| root == "/")
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(task) => task.fmt(f),
            None => f.write_str("this process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_threads_and_views() {
        let (first, other) = (Task { pid: 7, tid: 7 }, Task { pid: 7, tid: 9 });
        assert_eq!(first.path("ns/net"), "/proc/7/ns/net");
        assert_eq!(other.path("fd/3"), "/proc/7/task/9/fd/3");
        assert_eq!(
            (first.to_string(), other.to_string()),
            ("pid 7".into(), "thread 9 of pid 7".into())
        );
        let bpffs = Path::new("/sys/fs/bpf");
        assert_eq!(View::own().reach(bpffs), bpffs);
        assert_eq!(View::of(first).reach(bpffs), Path::new("/proc/7/root/sys/fs/bpf"));
        assert_eq!(View::of(other).reach(Path::new("/")), Path::new("/proc/7/task/9/root/"));
    }
}
