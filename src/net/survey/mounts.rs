//! The part of the walk that reads mounts: namespaces that are bound to a path, and bpf file systems.

use super::BpffsMount;
use super::gaps::Gap;
use super::sweep::{Sweep, Trouble};
use super::text::{self, Mount, Target};
use super::view::View;
use crate::sys::Capability;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

impl Sweep<'_> {
    /// What is bound to a path in any mount namespace, and where bpf file systems are.
    pub(super) fn mounts(&mut self) -> io::Result<()> {
        let mut namespaces = std::mem::take(&mut self.mount_namespaces);
        if let Some(Target::MountNs(own)) = self.own("ns/mnt").as_deref().map(text::target) {
            let others = namespaces.remove(&own).unwrap_or_default();
            let views = std::iter::once(View::own()).chain(others.into_iter().map(View::of));
            self.mount_namespace(own, &views.collect::<Vec<_>>())?;
        }
        for (inode, tasks) in namespaces {
            let views: Vec<_> = tasks.into_iter().map(View::of).collect();
            self.mount_namespace(inode, &views)?;
        }
        Ok(())
    }

    /// Reads the mounts of a namespace by one of the threads in it, if they have not all ended meanwhile. One whose
    /// root is the namespace's own sees them all.
    fn mount_namespace(&mut self, inode: u64, views: &[View]) -> io::Result<()> {
        for wants_all in [true, false] {
            for &view in views {
                if view.sees_all(self.kernel) == wants_all && self.mount_table(view)? {
                    self.read_mount_namespaces.insert(inode);
                    if !wants_all {
                        self.gaps.note(Gap::Chroot, view.to_string());
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether the view was still there.
    fn mount_table(&mut self, view: View) -> io::Result<bool> {
        let Some(first) = self.visit(view)? else { return Ok(false) };
        if !first.is_empty() {
            // What was unmounted meanwhile is not in the table any more; what is hidden below another mount is.
            let mut again = self.visit(view)?.unwrap_or_default();
            again.retain(|inode, _| first.contains_key(inode));
            self.missed.append(&mut again);
        }
        Ok(true)
    }

    /// Opens what is new among the mounts that `view` shows. The answer are those that could not be opened; `None` if
    /// the view has gone.
    fn visit(&mut self, view: View) -> io::Result<Option<BTreeMap<u64, PathBuf>>> {
        let table = self.kernel.read_file(&view.path("mountinfo"));
        let Some(table) = self.seen(table, Gap::Process, || view.to_string())? else {
            return Ok(None);
        };
        let mut missed = BTreeMap::new();
        for mount in table.split(|byte| *byte == b'\n').filter_map(text::mount) {
            match mount {
                Mount::Namespace { target: Target::MountNs(inode), .. } => {
                    self.held_mount_namespaces.insert(inode);
                }
                Mount::Namespace { target: target @ Target::Netns(inode), path }
                    if !self.knows(target) =>
                {
                    let path = view.reach(&path);
                    if !self.bound(&path, inode)? {
                        missed.insert(inode, path);
                    }
                }
                Mount::Namespace { .. } => {}
                Mount::Bpf { device, is_whole, path } => {
                    self.bpffs(view.reach(&path), device, is_whole);
                }
                Mount::HidingProc { path } => self.hiding_proc(&view.reach(&path)),
            }
        }
        Ok(Some(missed))
    }

    /// Whether the namespace that is bound to `path` could be opened.
    fn bound(&mut self, path: &Path, inode: u64) -> io::Result<bool> {
        match self.kernel.open_ns(path, Some(inode)) {
            Ok(Some(file)) => self.add(file, path.display().to_string()).map(|()| true),
            Err(error) if Trouble::of(&error) == Trouble::Short => Err(error),
            Ok(None) | Err(_) => Ok(false),
        }
    }

    /// Each once, by its root if that is mounted anywhere.
    fn bpffs(&mut self, path: PathBuf, device: u64, is_whole: bool) {
        let known = self.bpffs.iter_mut().find(|(mount, _)| mount.device == device);
        if known.as_ref().is_some_and(|(_, was_whole)| *was_whole || !is_whole) {
            return;
        }
        // Another mount may hide it.
        if !self.kernel.path_id(&path).is_ok_and(|id| id.device == device) {
            return;
        }
        let mount = (BpffsMount { path, device }, is_whole);
        match known {
            Some(known) => *known = mount,
            None => self.bpffs.push(mount),
        }
    }

    fn hiding_proc(&mut self, path: &Path) {
        if path == Path::new("/proc") && self.kernel.has(Capability::SysPtrace) != Some(true) {
            self.gaps.note(Gap::HidingProc, "/proc");
        }
    }
}
