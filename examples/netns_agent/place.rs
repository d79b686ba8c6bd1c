//! The namespaces there are, with what they are called.

use anyhow::{Context, Result};
use nix::net::if_::{Interface as Entry, if_nameindex};
use oxdp::Netns;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// Where iproute2 binds namespaces.
const NAMED: &str = "/run/netns/";
/// The agent's own namespace.
const HOST: &str = "host";

/// Index and name of an interface.
pub(crate) type Link = (u32, String);

/// A namespace.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) netns: Netns,
    /// What policies call it.
    pub(crate) names: Vec<String>,
}

impl Place {
    /// The agent's own namespace, and those that are bound to a path: when one of them goes, the mount table tells. By
    /// their inodes, which are nobody else's while the values here keep them open.
    pub(crate) fn bound() -> Result<BTreeMap<u64, Self>> {
        let own = Self { netns: Netns::current()?, names: vec![HOST.into()] };
        let mut places = BTreeMap::from([(own.netns.inode(), own)]);
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        for (inode, path) in namespaces(&mounts) {
            let (name, netns) = match path.strip_prefix(NAMED) {
                Some(name) => (name, Netns::by_name(name)),
                None => (path.as_str(), Netns::from_path(&path)),
            };
            let netns = match netns {
                Err(error) if matches!(error.errno(), Some(libc::EMFILE | libc::ENFILE)) => {
                    return Err(error.into());
                }
                // It has gone since, or lies below another mount.
                Err(_) => continue,
                Ok(netns) => netns,
            };
            if netns.inode() == inode {
                let place = Self { netns, names: Vec::new() };
                let names = &mut places.entry(inode).or_insert(place).names;
                names.push(name.to_owned());
                names.dedup();
            }
        }
        Ok(places)
    }

    /// The others, which only processes keep.
    pub(crate) fn unbound(bound: &BTreeMap<u64, Self>) -> Result<Vec<Self>> {
        let others = Netns::all()?.into_iter().filter(|netns| !bound.contains_key(&netns.inode()));
        Ok(others.map(|netns| Self { names: vec![netns.label().to_owned()], netns }).collect())
    }

    /// The index and name of each of its interfaces.
    pub(crate) fn links(&self) -> Result<Vec<Link>> {
        let list = || -> Result<Vec<Link>> {
            let interfaces = if_nameindex()?;
            let link = |entry: &Entry| (entry.index(), entry.name().to_string_lossy().into_owned());
            Ok(interfaces.iter().map(link).collect())
        };
        self.netns.run(list)?
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netns {}", self.names.first().map_or("?", String::as_str))
    }
}

/// The network namespaces in a mount table: inode and path.
fn namespaces(mounts: &str) -> impl Iterator<Item = (u64, String)> {
    mounts.lines().filter_map(|line| {
        // proc(5): id, parent, device, root, mount point, …
        let mut words = line.split(' ').skip(3);
        let (root, path) = (words.next()?, words.next()?);
        let inode = root.strip_prefix("net:[")?.strip_suffix(']')?;
        Some((inode.parse().ok()?, unescaped(path)))
    })
}

/// A blank is written `\040` there, and so are tabs, ends of lines and backslashes.
fn unescaped(path: &str) -> String {
    let escapes = [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")];
    let path = path.to_owned();
    escapes.iter().fold(path, |path, (escape, plain)| path.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_among_mounts() {
        let mounts = "\
24 31 0:22 / /proc rw,nosuid shared:13 - proc proc rw
98 26 0:4 net:[4026532281] /run/netns/blue rw shared:54 - nsfs nsfs rw
99 26 0:4 mnt:[4026532282] /run/other rw - nsfs nsfs rw
97 26 0:4 net:[4026532283] /run/docker/netns/a\\040b\\134c rw - nsfs nsfs rw
95 26 0:4 net:[x] /run/netns/red rw - nsfs nsfs rw
short
";
        let found: Vec<_> = namespaces(mounts).collect();
        let blue = (4_026_532_281, "/run/netns/blue".to_owned());
        let other = (4_026_532_283, r"/run/docker/netns/a b\c".to_owned());
        assert_eq!(found, [blue, other]);
    }

    #[test]
    fn our_own_namespace_is_a_place() {
        let bound = Place::bound().unwrap();
        let own = &bound[&Netns::current().unwrap().inode()];
        assert_eq!(own.names[0], "host");
        assert!(own.links().unwrap().iter().any(|(_, name)| name == "lo"));
    }
}
