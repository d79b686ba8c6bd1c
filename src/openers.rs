#![forbid(unsafe_code)]

//! Which processes have which BPF objects open, as `/proc` tells.
//!
//! The kernel counts the users of an object and does not tell the number. What is looked for here are those that hold a
//! descriptor; one that is on its way in a message between two processes is seen with neither.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;

/// Link of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h): only from there all processes are seen.
const INITIAL_PID: &str = "pid:[4026531836]";

/// A BPF object, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Program(u32),
    Map(u32),
}

/// A descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opener {
    process: String,
    descriptor: RawFd,
}

/// What processes have open.
#[derive(Debug, Default)]
pub(crate) struct Openers {
    open: BTreeMap<Object, Vec<Opener>>,
    /// How many processes do not show it.
    hidden: u32,
    /// Whether there are processes that are not even listed.
    is_partial: bool,
}

impl Openers {
    /// Looks through all processes. Sees all of them as root in the initial PID namespace.
    pub(crate) fn take() -> Self {
        let pid_namespace = fs::read_link("/proc/self/ns/pid");
        let is_initial = pid_namespace.is_ok_and(|link| link.as_os_str() == INITIAL_PID);
        let mut found = Self { is_partial: !is_initial, ..Self::default() };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.filter_map(|entry| entry.file_name().into_string().ok()) {
            if !process.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            match found.look_into(&process) {
                Err(error) if !is_ended(&error) => found.hidden += 1,
                _ => {}
            }
        }
        found
    }

    fn look_into(&mut self, process: &str) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            let entry = entry?;
            let target = match fs::read_link(entry.path()) {
                Err(error) if is_ended(&error) => continue,
                other => other?,
            };
            let Some(kind) = kind(&target) else { continue };
            let number = entry.file_name();
            let info = Path::new("/proc").join(process).join("fdinfo").join(&number);
            let info = match fs::read_to_string(info) {
                Err(error) if is_ended(&error) => continue,
                other => other?,
            };
            let Some(object) = kind(&info) else { continue };
            let descriptor = number.to_str().and_then(|number| number.parse().ok()).unwrap_or(-1);
            let opener = Opener { process: process.to_owned(), descriptor };
            self.open.entry(object).or_default().push(opener);
        }
        Ok(())
    }

    /// A process that has an object open, in words, leaving out these descriptors of our own.
    pub(crate) fn of(&self, object: Object, own: &[RawFd]) -> Option<String> {
        let us = std::process::id().to_string();
        let is_other = |opener: &&Opener| opener.process != us || !own.contains(&opener.descriptor);
        Some(who(&self.open.get(&object)?.iter().find(is_other)?.process))
    }

    /// Why there may be others, in words.
    pub(crate) fn gap(&self) -> Option<String> {
        if self.hidden > 0 {
            return Some(format!("{} processes do not show what they have open", self.hidden));
        }
        let hidden =
            "not in the initial PID namespace: what processes outside have open is not seen";
        self.is_partial.then(|| hidden.to_owned())
    }
}

/// What a descriptor with this link is of, as a reader of its fdinfo.
fn kind(target: &Path) -> Option<fn(&str) -> Option<Object>> {
    match target.to_str()? {
        "anon_inode:bpf-prog" => Some(|info| field(info, "prog_id:").map(Object::Program)),
        "anon_inode:bpf-map" => Some(|info| field(info, "map_id:").map(Object::Map)),
        _ => None,
    }
}

/// A number in what `/proc/PID/fdinfo` tells.
fn field(info: &str, name: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A process, a thread or a descriptor that is no longer there.
fn is_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn who(process: &str) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("{} (pid {process})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_object_is_read() {
        let info = "pos:\t0\nflags:\t02000000\nprog_type:\t6\nprog_jited:\t1\nprog_id:\t42\n";
        let read = |target: &str, info| kind(Path::new(target)).and_then(|read| read(info));
        assert_eq!(read("anon_inode:bpf-prog", info), Some(Object::Program(42)));
        assert_eq!(read("anon_inode:bpf-map", "map_type:\t17\nmap_id:\t7\n"), Some(Object::Map(7)));
        assert_eq!(read("anon_inode:bpf-prog", "pos:\t0\n"), None);
        assert_eq!(read("socket:[5]", info), None);
    }

    #[test]
    fn descriptors_of_our_own_can_be_left_out() {
        let opener = |process: String, descriptor| Opener { process, descriptor };
        let us = std::process::id().to_string();
        let mut openers = Openers::default();
        openers.open.insert(Object::Map(7), vec![opener(us.clone(), 3), opener(us.clone(), 4)]);
        assert!(openers.of(Object::Map(7), &[3]).unwrap().contains(&us));
        assert_eq!(openers.of(Object::Map(7), &[3, 4]), None);
        assert_eq!(openers.of(Object::Program(7), &[]), None);
    }
}
