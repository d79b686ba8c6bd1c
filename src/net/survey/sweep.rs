//! The walk over everything in `/proc` that can keep a network namespace alive.
//!
//! Processes, descriptors and mounts come and go meanwhile. What has ended is passed over; what is refused is a gap;
//! an error is only what this process has run out of.

use super::gaps::{Gap, Gaps};
use super::text::{self, Target};
use super::view::{Task, View};
use super::{BpffsMount, Survey};
use crate::net::Netns;
use crate::net::netns::NAMED;
use crate::sys::ns::NsKind;
use crate::sys::{Capability, Kernel};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO`; include/linux/proc_ns.h.
const INITIAL_PID: &str = "pid:[4026531836]";
const INITIAL_USER: &str = "user:[4026531837]";

/// The kernel thread that starts all others, in the initial PID namespace.
const KTHREADD: u32 = 2;

/// What an operation on somebody else's object failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The object has ended meanwhile.
    Gone,
    /// It is closed to us.
    Closed,
    /// This process, or the machine, has run out of something.
    Short,
}

impl Trouble {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::EBADF | libc::ESTALE) => Self::Gone,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::Short,
            _ => Self::Closed,
        }
    }
}

/// What has been found so far. Every namespace in it is held open, so its inode cannot become another one's.
#[derive(Debug)]
pub(super) struct Sweep<'a> {
    pub(super) kernel: &'a Kernel,
    found: Vec<Netns>,
    inodes: HashSet<u64>,
    /// Inodes of namespaces that are bound somewhere, and could not be reached there.
    pub(super) missed: BTreeMap<u64, PathBuf>,
    tasks: Vec<Task>,
    /// The threads in each mount namespace.
    pub(super) mount_namespaces: BTreeMap<u64, Vec<Task>>,
    /// Mount namespaces that are bound to a path, or held open.
    pub(super) held_mount_namespaces: BTreeSet<u64>,
    pub(super) read_mount_namespaces: BTreeSet<u64>,
    sockets: HashSet<u64>,
    pub(super) bpffs: Vec<(BpffsMount, bool)>,
    pub(super) gaps: Gaps,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(kernel: &'a Kernel) -> Self {
        Self {
            kernel,
            found: Vec::new(),
            inodes: HashSet::new(),
            missed: BTreeMap::new(),
            tasks: Vec::new(),
            mount_namespaces: BTreeMap::new(),
            held_mount_namespaces: BTreeSet::new(),
            read_mount_namespaces: BTreeSet::new(),
            sockets: HashSet::new(),
            bpffs: Vec::new(),
            gaps: Gaps::default(),
        }
    }

    /// Those with the most telling labels first: who is found keeps the label.
    pub(super) fn run(mut self) -> io::Result<Survey> {
        if self.own("ns/pid").as_deref() != Some(INITIAL_PID) {
            self.gaps.note(Gap::PidNamespace, "");
        }
        self.named()?;
        self.threads()?;
        self.mounts()?;
        self.descriptors()?;
        let is_listed = self.listed()?;
        self.missed.retain(|inode, _| !self.inodes.contains(inode));
        for path in self.missed.values() {
            self.gaps.note(Gap::Namespace, path.to_string_lossy());
        }
        for inode in self.held_mount_namespaces.difference(&self.read_mount_namespaces) {
            self.gaps.note(Gap::EmptyMountNs, format!("mnt:[{inode}]"));
        }
        Ok(Survey {
            namespaces: self.found,
            gaps: self.gaps.tell(is_listed),
            bpffs: self.bpffs.into_iter().map(|(mount, _)| mount).collect(),
        })
    }

    /// What `iproute2` has named.
    fn named(&mut self) -> io::Result<()> {
        let names = self.kernel.read_dir(Path::new(NAMED));
        for entry in self.seen(names, Gap::Namespace, || NAMED.into())?.unwrap_or_default() {
            let opened = self.kernel.open_ns(&entry.path, None);
            let path = || entry.path.to_string_lossy().into();
            // Where the mount is not seen in this mount namespace, there is a plain file.
            let Some(file) = self.seen(opened, Gap::Namespace, path)?.flatten() else { continue };
            if matches!(self.kernel.is_netns(file.as_fd()), Ok(true)) {
                self.add(file, entry.name)?;
            }
        }
        Ok(())
    }

    /// The namespaces that threads are in.
    fn threads(&mut self) -> io::Result<()> {
        let has_kthreadd = self.is_kernel_thread(KTHREADD);
        for pid in self.kernel.numbers_in("/proc")? {
            if has_kthreadd && self.is_like_kthreadd(pid) {
                self.membership(Task { pid, tid: pid })?;
                continue;
            }
            let threads = self.kernel.numbers_in(&format!("/proc/{pid}/task"));
            for tid in self.look(pid, threads)?.unwrap_or_default() {
                self.thread(Task { pid, tid })?;
            }
        }
        Ok(())
    }

    /// Whether it has the same table of descriptors as `kthreadd`, of which one look is enough. The kernel's own threads
    /// inherit it (`CLONE_FILES`) and nobody else does; and each is the only thread of its process.
    fn is_like_kthreadd(&self, pid: u32) -> bool {
        pid != KTHREADD && matches!(self.kernel.share_files(KTHREADD, pid), Ok(true))
    }

    fn thread(&mut self, task: Task) -> io::Result<()> {
        if self.membership(task)? {
            self.tasks.push(task);
        }
        Ok(())
    }

    /// Looks at the namespaces that a thread is in; `false` if it has ended.
    fn membership(&mut self, task: Task) -> io::Result<bool> {
        let Some(target) = self.link(task, "ns/net")? else { return Ok(false) };
        if !self.knows(target) {
            // Whichever it is in by now.
            let file = self.kernel.open_file(&task.path("ns/net"));
            if let Some(file) = self.look(task.pid, file)? {
                self.add(file, task.to_string())?;
            }
        }
        if let Some(Target::MountNs(inode)) = self.link(task, "ns/mnt")? {
            self.mount_namespaces.entry(inode).or_default().push(task);
        }
        Ok(true)
    }

    /// The namespaces that descriptors keep alive. Threads mostly share one table of them.
    fn descriptors(&mut self) -> io::Result<()> {
        for task in std::mem::take(&mut self.tasks) {
            let shares = || matches!(self.kernel.share_files(task.pid, task.tid), Ok(true));
            if task.is_first() || !shares() {
                self.descriptors_of(task)?;
            }
        }
        Ok(())
    }

    fn descriptors_of(&mut self, task: Task) -> io::Result<()> {
        let numbers = self.kernel.numbers_in(&task.path("fd"));
        let mut process = None;
        for number in self.look(task.pid, numbers)?.unwrap_or_default() {
            match self.link(task, &format!("fd/{number}"))? {
                Some(target @ Target::Netns(inode)) if !self.knows(target) => {
                    self.namespace(task, number, Some(inode))?;
                }
                Some(Target::MountNs(inode)) => _ = self.held_mount_namespaces.insert(inode),
                Some(Target::File) => self.file(task, number)?,
                Some(Target::Socket(inode)) => self.socket(task, number, inode, &mut process)?,
                Some(Target::Tun) => _ = self.ask(task, number, &mut process)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A file that was opened by a path can be a namespace that was bound to it.
    fn file(&mut self, task: Task, number: u32) -> io::Result<()> {
        let info = self.kernel.read_file(&task.path(&format!("fdinfo/{number}")));
        let Some(info) = self.look(task.pid, info)? else { return Ok(()) };
        match text::inode(&info) {
            Some(inode) if !text::may_be_namespace(inode) || self.inodes.contains(&inode) => Ok(()),
            inode => self.namespace(task, number, inode),
        }
    }

    fn namespace(&mut self, task: Task, number: u32, inode: Option<u64>) -> io::Result<()> {
        let path = task.path(&format!("fd/{number}"));
        let opened = self.kernel.open_ns(Path::new(&path), inode);
        let Some(file) = self.look(task.pid, opened)?.flatten() else { return Ok(()) };
        match self.kernel.ns_kind(file.as_fd())? {
            Some(NsKind::Net) => self.add(file, format!("descriptor {number} of {task}"))?,
            Some(NsKind::Mount) => {
                self.held_mount_namespaces.insert(self.kernel.file_id(&file)?.inode);
            }
            _ => {}
        }
        Ok(())
    }

    /// A socket that several processes have is asked once.
    fn socket(
        &mut self,
        task: Task,
        number: u32,
        inode: u64,
        process: &mut Option<OwnedFd>,
    ) -> io::Result<()> {
        if !self.sockets.contains(&inode) && self.ask(task, number, process)? {
            self.sockets.insert(inode);
        }
        Ok(())
    }

    /// Asks a socket for its namespace, by a duplicate of the descriptor; whether it has answered.
    fn ask(&mut self, task: Task, number: u32, process: &mut Option<OwnedFd>) -> io::Result<bool> {
        let label = || format!("socket {number} of {task}");
        let netns = borrow(self.kernel, task, number, process)
            .and_then(|socket| self.kernel.socket_netns(&socket));
        match self.seen(netns, Gap::Socket, label)?.flatten() {
            Some(file) => self.add(file, label()).map(|()| true),
            None => Ok(false),
        }
    }

    /// What the kernel lists, where it can: `true` if it has listed all that it ever lists.
    fn listed(&mut self) -> io::Result<bool> {
        let Ok(ids) = self.kernel.list_netns() else { return Ok(false) };
        for id in ids {
            let opened = self.kernel.open_netns_by_id(id, None);
            if let Some(file) = self.seen(opened, Gap::Namespace, || format!("id {id}"))? {
                self.add(file, format!("id {id}"))?;
            }
        }
        // What it does not want to show is left out without a word.
        Ok(self.own("ns/pid").as_deref() == Some(INITIAL_PID)
            && self.own("ns/user").as_deref() == Some(INITIAL_USER)
            && self.kernel.has(Capability::SysAdmin) == Some(true))
    }

    pub(super) fn knows(&self, target: Target) -> bool {
        matches!(target, Target::Netns(inode) if self.inodes.contains(&inode))
    }

    pub(super) fn add(&mut self, file: File, label: String) -> io::Result<()> {
        let netns = Netns::of_file(self.kernel, file, label)?;
        if self.inodes.insert(netns.inode()) {
            self.found.push(netns);
        }
        Ok(())
    }

    /// The text of a link of the calling thread's.
    pub(super) fn own(&self, link: &str) -> Option<String> {
        self.kernel.readlink(Path::new(&View::own().path(link))).ok()
    }

    fn link(&mut self, task: Task, name: &str) -> io::Result<Option<Target>> {
        let text = self.kernel.readlink(Path::new(&task.path(name)));
        Ok(self.look(task.pid, text)?.map(|text| text::target(&text)))
    }

    /// As [`seen`](Sweep::seen), of a process. The kernel's own threads hold nothing.
    fn look<T>(&mut self, pid: u32, result: io::Result<T>) -> io::Result<Option<T>> {
        let is_closed = result.as_ref().is_err_and(|e| Trouble::of(e) == Trouble::Closed);
        if is_closed && self.is_kernel_thread(pid) {
            return Ok(None);
        }
        self.seen(result, Gap::Process, || format!("pid {pid}"))
    }

    fn is_kernel_thread(&self, pid: u32) -> bool {
        let stat = self.kernel.read_file(&format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| text::is_kernel_thread(&stat))
    }

    /// What somebody else's object has answered: nothing if it has ended, and a gap if it is closed to us.
    pub(super) fn seen<T>(
        &mut self,
        result: io::Result<T>,
        gap: Gap,
        what: impl Fn() -> String,
    ) -> io::Result<Option<T>> {
        match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => match Trouble::of(&error) {
                Trouble::Gone => {}
                Trouble::Closed => self.gaps.note(gap, what()),
                Trouble::Short => return Err(error),
            },
        }
        Ok(None)
    }
}

/// A duplicate of a descriptor; `process` is opened for the first one.
fn borrow(
    kernel: &Kernel,
    task: Task,
    number: u32,
    process: &mut Option<OwnedFd>,
) -> io::Result<File> {
    let process = match process {
        Some(process) => process,
        None => process.insert(kernel.pidfd_open(task.tid, task.is_first())?),
    };
    kernel.borrow_descriptor(process.as_fd(), number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fault::Plan;
    use std::sync::Arc;

    #[test]
    fn troubles() {
        for (errno, expected) in [
            (libc::ENOENT, Trouble::Gone),
            (libc::ESRCH, Trouble::Gone),
            (libc::EBADF, Trouble::Gone),
            (libc::ESTALE, Trouble::Gone),
            (libc::EMFILE, Trouble::Short),
            (libc::EACCES, Trouble::Closed),
            (libc::EPERM, Trouble::Closed),
            (libc::ENOSYS, Trouble::Closed),
        ] {
            assert_eq!(Trouble::of(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }

    /// So nothing is missed where only its namespaces are looked at.
    #[test]
    fn what_is_like_kthreadd_is_one_thread_without_descriptors() {
        let kernel = Kernel::default();
        let sweep = Sweep::new(&kernel);
        let pids = kernel.numbers_in("/proc").unwrap().into_iter();
        for pid in
            pids.filter(|pid| sweep.is_kernel_thread(KTHREADD) && sweep.is_like_kthreadd(*pid))
        {
            let numbers = |what| kernel.numbers_in(&format!("/proc/{pid}/{what}"));
            // Some end meanwhile.
            let (Ok(threads), Ok(descriptors)) = (numbers("task"), numbers("fd")) else { continue };
            assert!(sweep.is_kernel_thread(pid), "{pid}");
            assert_eq!((threads, descriptors), (vec![pid], Vec::new()));
        }
    }

    /// Whichever call is refused: what is not found for that is told as a gap.
    #[test]
    fn what_is_refused_is_told() {
        let record = Arc::new(Plan::record());
        // Not kept: it would keep every namespace that another test has made.
        let all = Survey::take(&Kernel::with_fault(Arc::clone(&record))).unwrap().namespaces.len();
        let calls = record.seen().len();
        for at in (0..calls).step_by(calls / 200 + 1) {
            let plan = Plan::fail(at..calls * 2, libc::EACCES);
            // Without any process in it, or a look at one, there is nothing to be told.
            let Ok(survey) = Survey::take(&Kernel::with_fault(Arc::new(plan))) else { continue };
            assert!(survey.namespaces.len() >= all || !survey.is_complete(), "{at}");
        }
    }
}
