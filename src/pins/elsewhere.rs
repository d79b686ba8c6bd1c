//! Dispatchers that are pinned in the bpf file systems of others, who may have put anything there.

use super::bpffs::DIRECTORY;
use super::layout::{SEARCH_DEPTH, parse_directory_name};
use crate::sys::Kernel;
use crate::sys::fs::EntryKind;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// How many directories are looked into.
const MAX_DIRECTORIES: usize = 10_000;

/// The dispatchers that have a directory below `mount`, where a bpf file system is mounted, and that directory. Opens no
/// pin, follows no link out of it, and enters nothing that is mounted in it.
pub(crate) fn dispatchers_in(kernel: &Kernel, mount: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let top = kernel.open_dir(mount)?;
    if !kernel.holds_pins(&top)? {
        return Ok(Vec::new());
    }
    let mut search = Search { kernel, found: Vec::new(), entered: 0 };
    search.enter(&top, DIRECTORY, mount, SEARCH_DEPTH)?;
    Ok(search.found)
}

struct Search<'a> {
    kernel: &'a Kernel,
    found: Vec<(u32, PathBuf)>,
    entered: usize,
}

impl Search<'_> {
    fn enter(&mut self, above: &File, name: &str, path: &Path, depth: usize) -> io::Result<()> {
        self.entered += 1;
        if self.entered > MAX_DIRECTORIES {
            return Ok(());
        }
        let path = path.join(name);
        let directory = self.kernel.open_dir_within(above, name)?;
        for (name, kind) in self.kernel.names_in(&directory)? {
            if kind != EntryKind::Directory || name == "." || name == ".." {
                continue;
            }
            match parse_directory_name(&name) {
                Some((_, dispatcher)) => self.found.push((dispatcher, path.join(name))),
                // What cannot be entered has nothing for us.
                None if depth > 0 => drop(self.enter(&directory, &name, &path, depth - 1)),
                None => {}
            }
        }
        Ok(())
    }
}
