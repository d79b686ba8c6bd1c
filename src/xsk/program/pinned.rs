//! Whether a map is pinned by somebody, in whatever place of a bpf file system.

use crate::sys::Kernel;
use crate::sys::fs::EntryKind;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// How many directories are looked into, and how deep.
const MAX_DIRECTORIES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// The pin of the map with this id below `mount`; `None` if there is none, or no bpf file system that could be read. Enters
/// nothing that is mounted in it.
pub(super) fn pin_of_map(kernel: &Kernel, mount: &Path, map: u32) -> Option<PathBuf> {
    let top = kernel.open_dir(mount).ok()?;
    if !kernel.holds_pins(&top).ok()? {
        return None;
    }
    let mut search = Search { kernel, map, entered: 0 };
    search.enter(&top, mount, MAX_DEPTH).ok()?
}

struct Search<'a> {
    kernel: &'a Kernel,
    map: u32,
    entered: usize,
}

impl Search<'_> {
    fn enter(
        &mut self,
        directory: &File,
        path: &Path,
        depth: usize,
    ) -> io::Result<Option<PathBuf>> {
        self.entered += 1;
        if self.entered > MAX_DIRECTORIES {
            return Ok(None);
        }
        for (name, kind) in self.kernel.names_in(directory)? {
            let at = path.join(&name);
            let found = match kind {
                EntryKind::Object => self.is_it(&at).unwrap_or(false).then_some(at),
                EntryKind::Directory if depth > 0 && name != "." && name != ".." => {
                    let below = self.kernel.open_dir_within(directory, &name);
                    below.and_then(|below| self.enter(&below, &at, depth - 1)).unwrap_or(None)
                }
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn is_it(&self, pin: &Path) -> io::Result<bool> {
        let object = self.kernel.open_pin(pin)?;
        if !self.kernel.is_map(std::os::fd::AsFd::as_fd(&object))? {
            return Ok(false);
        }
        Ok(self.kernel.map_id(&self.kernel.map_open(object)?)? == self.map)
    }
}
