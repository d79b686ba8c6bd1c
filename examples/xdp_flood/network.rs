//! What the kernel knows of the interface: its address, its neighbours, what it has sent.

use anyhow::{Context, Result, ensure};
use oxdp::{Interface, Netns};
use std::fmt;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac([u8; 6]);

impl Mac {
    pub(crate) fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let byte = |part| u8::from_str_radix(part, 16);
        let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
        let bytes = bytes.try_into().ok().context("an Ethernet address has six bytes")?;
        Ok(Self(bytes))
    }
}

/// What an interface has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
}

/// The interface that packets go out of.
#[derive(Debug)]
pub(crate) struct Uplink {
    interface: Interface,
    /// What `ip link show` says of it.
    link: String,
}

impl Uplink {
    pub(crate) fn open(netns: &Netns, name: &str) -> Result<Self> {
        let interface = Interface::by_name(netns, name)?;
        let link = ip(netns, &["-oneline", "link", "show", "dev", interface.name()])?;
        Ok(Self { interface, link })
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.interface.netns()
    }

    pub(crate) fn index(&self) -> u32 {
        self.interface.index()
    }

    pub(crate) fn mac(&self) -> Result<Mac> {
        let address = after(&self.link, "link/ether");
        address.with_context(|| format!("{self} is no Ethernet interface"))?.parse()
    }

    pub(crate) fn mtu(&self) -> Result<usize> {
        Ok(after(&self.link, "mtu").with_context(|| format!("{self} has no MTU"))?.parse()?)
    }

    /// From the neighbour table; the kernel is not made to ask for it.
    pub(crate) fn neighbour(&self, address: IpAddr) -> Result<Mac> {
        let wanted = address.to_string();
        let arguments = ["neigh", "show", "to", &wanted, "dev", self.interface.name()];
        let found = ip(self.netns(), &arguments)?;
        let mac = after(&found, "lladdr").with_context(|| {
            format!("{self} has no neighbour {address}: ping it first, or say --to-mac")
        })?;
        mac.parse()
    }

    pub(crate) fn sent(&self) -> Result<Sent> {
        // The file shows the namespace of the thread that opens it.
        let table = self.netns().run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let mut lines = table.lines().filter_map(|line| line.trim().split_once(':'));
        let (_, counts) = lines
            .find(|(name, _)| *name == self.interface.name())
            .with_context(|| format!("{self} is gone"))?;
        // Eight columns of what was received, then bytes and packets that were sent.
        let packets = counts.split_whitespace().nth(9).context("too few columns in net/dev")?;
        Ok(Sent { packets: packets.parse()? })
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface.name())
    }
}

/// The word that follows `word`.
fn after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let mut words = text.split_whitespace();
    words.find(|found| *found == word)?;
    words.next()
}

fn ip(netns: &Netns, arguments: &[&str]) -> Result<String> {
    let run = || Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = netns.run(run)?.context("running ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
