//! A pin layout of one's own: the pins of each pod in a directory called after the pod.
//!
//! `pod_layout eth0 blue=6c84fb90-12c4-11e1-840d-7b25c5ee775a red=…` counts the packets of `eth0` in the namespaces
//! `blue` and `red`, and prints where the programs are pinned. An agent would learn both names from its runtime.

#![allow(clippy::print_stdout, reason = "where the pins are is the point")]

use anyhow::{Context, Result};
use oxdp::{Interface, Mode, Netns, NetnsId, NetnsInode, PinLayout, Program, Select, Xdp};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const COUNTER: &[u8] = include_bytes!("../bpf/prebuilt/packet_counter.o");

/// The UID of each pod, by the inode of its namespace.
#[derive(Debug)]
struct Pods(HashMap<u64, String>);

impl PinLayout for Pods {
    /// Namespaces of no pod go where they would without this layout.
    fn scope(&self, netns: &NetnsId) -> PathBuf {
        let uid = self.0.get(&netns.inode);
        uid.map_or_else(|| NetnsInode.scope(netns), |uid| Path::new("pods").join(uid))
    }

    fn netns_inode(&self, scope: &Path) -> Option<u64> {
        let Ok(uid) = scope.strip_prefix("pods") else { return NetnsInode.netns_inode(scope) };
        self.0.iter().find_map(|(inode, pod)| (uid == Path::new(pod)).then_some(*inode))
    }
}

/// `NETNS=UID`. The namespace is held open, so its inode stays its own. bpffs allows no dots in names.
fn pod(argument: &str) -> Result<(Netns, String)> {
    let (netns, uid) = argument.split_once('=').context("a pod is given as NETNS=UID")?;
    Ok((Netns::by_name(netns)?, uid.replace('.', "_")))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let device = arguments.next().context("usage: pod_layout INTERFACE NETNS=UID...")?;
    let pods = arguments.map(|argument| pod(&argument)).collect::<Result<Vec<_>>>()?;
    let uids = pods.iter().map(|(netns, uid)| (netns.inode(), uid.clone())).collect();
    let xdp = Xdp::builder().mount_bpffs(true).layout(Pods(uids)).build()?;
    for (netns, uid) in &pods {
        let interface = Interface::by_name(netns, &device)?;
        let mut counter = Program::from_bytes(COUNTER, Select::Only)?;
        let attached = xdp.attach(&interface, &mut counter, Mode::Unspecified)?;
        println!("{uid} {}", attached.pins.context("no pins")?.display());
    }
    Ok(())
}
