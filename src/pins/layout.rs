//! From a dispatcher to the path of its pins, and back. Pure.

use crate::error::{Error, ErrorKind, Result};
use crate::net::{Netns, NetnsId};
use crate::sys::Kernel;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The environment variable that names the layout of who has not chosen one.
const VARIABLE: &str = "OXDP_PIN_LAYOUT";

/// How many directories a scope may be deep.
const MAX_DEPTH: usize = 4;
const DISPATCHER: &str = "dispatch-";
const NETNS: &str = "netns-";
/// Names in `xdp` that mean something of their own, so no scope may have them.
pub(super) const DRAFT: &str = "draft-scope";
pub(super) const DEAD: &str = "dead-netns-";

/// What a dispatcher's pins are filed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinKey<'a> {
    /// The namespace of the interface.
    pub netns: &'a NetnsId,
    /// The interface's index in that namespace.
    pub ifindex: u32,
    /// Program id of the dispatcher, unique in the kernel.
    pub dispatcher: u32,
}

/// What the path of a dispatcher's pins tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinPath {
    /// The namespace's inode, if the layout writes it into the path.
    pub netns_inode: Option<u64>,
    /// The interface's index when the pins were made.
    pub ifindex: u32,
    /// Program id of the dispatcher.
    pub dispatcher: u32,
}

/// Decides where below bpffs's `xdp` directory the dispatchers of a namespace are pinned.
///
/// The last part of the path, `dispatch-IFINDEX-ID`, is the protocol's and the same in every layout, so
/// that a dispatcher can always be found by its id; a layout chooses the directory it lies in.
///
/// ```
/// use oxdp::{NetnsId, PinLayout};
/// use std::path::{Path, PathBuf};
///
/// /// All namespaces of this agent in one directory of their own, one below it for each.
/// #[derive(Debug)]
/// struct Agent;
///
/// impl PinLayout for Agent {
///     fn scope(&self, netns: &NetnsId) -> PathBuf {
///         format!("agent/{}", netns.inode).into()
///     }
///     fn netns_inode(&self, scope: &Path) -> Option<u64> {
///         scope.strip_prefix("agent").ok()?.to_str()?.parse().ok()
///     }
/// }
/// ```
pub trait PinLayout: fmt::Debug + Send + Sync {
    /// The directory for this namespace, relative to `xdp`; empty for `xdp` itself, which all namespaces
    /// with that answer share. Any other directory must be the namespace's alone. At most four names deep;
    /// bpffs allows no dots in names, and those that start with `dispatch-`, `draft-scope` and `dead-netns-`
    /// are taken.
    fn scope(&self, netns: &NetnsId) -> PathBuf;

    /// The inode of the namespace whose scope this is, if the path tells; the way back from
    /// [`scope`](PinLayout::scope).
    fn netns_inode(&self, scope: &Path) -> Option<u64>;

    /// The directory of a dispatcher's pins, relative to `xdp`.
    fn path(&self, key: &PinKey<'_>) -> PathBuf {
        self.scope(key.netns).join(directory_name(key.ifindex, key.dispatcher))
    }

    /// What such a path tells; the way back from [`path`](PinLayout::path).
    fn parse(&self, path: &Path) -> Option<PinPath> {
        let (ifindex, dispatcher) = parse_directory_name(path.file_name()?.to_str()?)?;
        let netns_inode = self.netns_inode(path.parent()?);
        Some(PinPath { netns_inode, ifindex, dispatcher })
    }
}

/// All dispatchers in `xdp/` itself, as C libxdp has them. Right where one bpffs serves one namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Legacy;

/// The dispatchers of every namespace in `xdp/netns-INODE/`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetnsInode;

/// [`Legacy`] for the namespace that PID 1 runs in, where C libxdp will look for them, and [`NetnsInode`]
/// for every other one. The default, unless `OXDP_PIN_LAYOUT` is `legacy` or `netns-inode`.
///
/// PID 1 is that of the PID namespace of `/proc`: in a container with its own one, its own init. So two
/// containers that share a bpffs with each other, or with the host, should be given [`NetnsInode`].
#[derive(Clone, Debug)]
pub struct Auto {
    initial: Option<NetnsId>,
}

impl Auto {
    /// With the namespace of PID 1 as the one that keeps the classic paths. Where that one is closed to this
    /// process, no namespace that it can work in is the one.
    pub fn detect() -> Result<Self> {
        let initial = Netns::initial()?.map(|netns| netns.id().cloned()).transpose()?;
        Ok(Self { initial })
    }

    /// With another namespace as the one that keeps the classic paths.
    pub fn with_initial(initial: NetnsId) -> Self {
        Self { initial: Some(initial) }
    }
}

/// The layout that an environment variable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Legacy,
    NetnsInode,
    Auto,
}

impl Choice {
    fn of(value: Option<&OsStr>) -> Result<Self> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(Self::Auto) };
        match value.to_str() {
            Some("legacy") => Ok(Self::Legacy),
            Some("netns-inode") => Ok(Self::NetnsInode),
            Some("auto") => Ok(Self::Auto),
            _ => {
                let value = value.to_string_lossy().into_owned();
                let allowed = "legacy, netns-inode or auto";
                let kind = ErrorKind::BadVariable { name: VARIABLE, value, allowed };
                Err(Error::new("read", "the environment", kind))
            }
        }
    }
}

/// As `OXDP_PIN_LAYOUT` says.
pub(crate) fn layout_from_environment(kernel: &Kernel) -> Result<Arc<dyn PinLayout>> {
    Ok(match Choice::of(kernel.variable(VARIABLE).as_deref())? {
        Choice::Legacy => Arc::new(Legacy),
        Choice::NetnsInode => Arc::new(NetnsInode),
        Choice::Auto => Arc::new(Auto::detect()?),
    })
}

impl PinLayout for Legacy {
    fn scope(&self, _: &NetnsId) -> PathBuf {
        PathBuf::new()
    }

    fn netns_inode(&self, _: &Path) -> Option<u64> {
        None
    }
}

impl PinLayout for NetnsInode {
    fn scope(&self, netns: &NetnsId) -> PathBuf {
        format!("{NETNS}{}", netns.inode).into()
    }

    fn netns_inode(&self, scope: &Path) -> Option<u64> {
        decimal(scope.to_str()?.strip_prefix(NETNS)?)
    }
}

impl PinLayout for Auto {
    fn scope(&self, netns: &NetnsId) -> PathBuf {
        match &self.initial {
            Some(initial) if netns.agrees_with(initial) => Legacy.scope(netns),
            _ => NetnsInode.scope(netns),
        }
    }

    fn netns_inode(&self, scope: &Path) -> Option<u64> {
        if scope.as_os_str().is_empty() {
            return self.initial.as_ref().map(|initial| initial.inode);
        }
        NetnsInode.netns_inode(scope)
    }
}

/// `dispatch-IFINDEX-ID`
pub(super) fn directory_name(ifindex: u32, dispatcher: u32) -> String {
    format!("{DISPATCHER}{ifindex}-{dispatcher}")
}

pub(super) fn parse_directory_name(name: &str) -> Option<(u32, u32)> {
    let (ifindex, dispatcher) = name.strip_prefix(DISPATCHER)?.split_once('-')?;
    Some((decimal(ifindex)?, decimal(dispatcher)?))
}

/// A number written the one way that `Display` writes it: no sign, no zeroes in front.
fn decimal<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    let number: N = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Whether a layout's scope stays below `xdp` and cannot be taken for a dispatcher's directory.
pub(super) fn is_usable_scope(scope: &Path) -> bool {
    let fits = |component: Component<'_>| match component {
        Component::Normal(name) => name.to_str().is_some_and(|name| {
            let is_reserved = [DISPATCHER, DRAFT, DEAD].iter().any(|own| name.starts_with(own));
            !is_reserved && !name.contains(['.', '\0'])
        }),
        _ => false,
    };
    scope.components().count() <= MAX_DEPTH && scope.components().all(fits)
}

/// How deep below `xdp` a dispatcher's directory can lie.
pub(super) const SEARCH_DEPTH: usize = MAX_DEPTH;

/// What a path tells leads back to the same path, and a usable scope stays below `xdp`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(path: &str) {
    let netns = |inode| NetnsId { inode, cookie: None, handle: None, boot: String::new() };
    let path = Path::new(path);
    let auto = Auto::with_initial(netns(1));
    for layout in [&Legacy as &dyn PinLayout, &NetnsInode, &auto] {
        let Some(PinPath { netns_inode, ifindex, dispatcher }) = layout.parse(path) else {
            continue;
        };
        let name = path.file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some(directory_name(ifindex, dispatcher).as_str()));
        if let Some(netns) = netns_inode.map(netns) {
            let key = PinKey { netns: &netns, ifindex, dispatcher };
            let back = PinPath { netns_inode, ifindex, dispatcher };
            assert_eq!(layout.parse(&layout.path(&key)), Some(back));
        }
    }
    if is_usable_scope(path) {
        assert!(path.is_relative());
        let is_name = |part| matches!(part, Component::Normal(_));
        assert!(path.components().all(is_name));
        assert!(parse_directory_name(&path.to_string_lossy()).is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn netns(inode: u64, cookie: u64) -> NetnsId {
        NetnsId { inode, cookie: Some(cookie), handle: None, boot: "boot".into() }
    }

    fn path(layout: &dyn PinLayout, netns: &NetnsId) -> String {
        let key = PinKey { netns, ifindex: 7, dispatcher: 42 };
        layout.path(&key).to_str().unwrap().to_owned()
    }

    #[test]
    fn the_three_layouts() {
        let (initial, other) = (netns(100, 1), netns(200, 2));
        let auto = Auto::with_initial(initial.clone());
        assert_eq!(path(&Legacy, &other), "dispatch-7-42");
        assert_eq!(path(&NetnsInode, &initial), "netns-100/dispatch-7-42");
        assert_eq!(path(&NetnsInode, &other), "netns-200/dispatch-7-42");
        assert_eq!(path(&auto, &initial), "dispatch-7-42");
        assert_eq!(path(&auto, &other), "netns-200/dispatch-7-42");
        // The initial namespace's inode under another cookie is another namespace.
        assert_eq!(path(&auto, &netns(100, 9)), "netns-100/dispatch-7-42");
    }

    #[test]
    fn choices() {
        for (value, expected) in [
            (None, Choice::Auto),
            (Some(""), Choice::Auto),
            (Some("auto"), Choice::Auto),
            (Some("legacy"), Choice::Legacy),
            (Some("netns-inode"), Choice::NetnsInode),
        ] {
            assert_eq!(Choice::of(value.map(OsStr::new)).unwrap(), expected, "{value:?}");
        }
        for value in ["Legacy", "netns_inode", " auto", "0"] {
            let error = Choice::of(Some(OsStr::new(value))).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::BadVariable { name: VARIABLE, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn foreign_names_are_not_dispatchers() {
        for name in [
            "dispatch-7",
            "dispatch--7",
            "dispatch-07-1",
            "dispatch-7-1x",
            "xdispatch-7-1",
            "dispatch-7-4294967296",
            "dispatch-+7-1",
            "dispatch-7-1-2",
        ] {
            assert_eq!(parse_directory_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_scope_cannot_lead_out() {
        for bad in [
            "..",
            "a/../b",
            "/etc",
            "a.b",
            "dispatch-1-2",
            "draft-scope",
            "dead-netns-1-0",
            "a/b/c/d/e",
        ] {
            assert!(!is_usable_scope(Path::new(bad)), "{bad}");
        }
        for good in ["", "netns-1", "agent/pods/123"] {
            assert!(is_usable_scope(Path::new(good)), "{good}");
        }
    }

    proptest! {
        #[test]
        fn every_path_leads_back(inode: u64, ifindex: u32, dispatcher: u32) {
            let netns = netns(inode, 5);
            let key = PinKey { netns: &netns, ifindex, dispatcher };
            let auto = Auto::with_initial(self::netns(1, 1));
            for (layout, tells) in [
                (&Legacy as &dyn PinLayout, None),
                (&NetnsInode, Some(inode)),
                (&auto, Some(inode)),
            ] {
                let back = layout.parse(&layout.path(&key));
                prop_assert_eq!(back, Some(PinPath { netns_inode: tells, ifindex, dispatcher }));
            }
        }
    }
}
