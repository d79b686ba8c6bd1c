//! A lab of real namespaces, real veth pairs and real packets; everything in it goes when it is dropped.

use anyhow::{Context, Result, ensure};
use oxdp::{Interface, Netns};
use std::io::{ErrorKind, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a packet, or the end of a BPF object, may take.
const SOON: Duration = Duration::from_secs(10);

/// Runs `ip` and fails if it does.
pub(crate) fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .context("running ip (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}

/// Whether `condition` becomes true soon.
pub(crate) fn soon(mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if condition()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// A named network namespace of our own.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("oxdp-{role}-{}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let netns = Netns::by_name(&name)?;
        // Neighbour discovery would be counted among the packets.
        let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        match netns.run(quiet)? {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(Self { name, netns }),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The test has had its say; a namespace that cannot be removed is told by `ip netns`.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// Two namespaces and a wire: XDP runs at the near end, packets come from the far one.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
    sender: UdpSocket,
}

/// Name of the interface at the near end.
pub(crate) const UPLINK: &str = "uplink";
/// Name of the interface at the far end.
pub(crate) const WIRE: &str = "wire";
pub(crate) const NEAR: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";
pub(crate) const NEAR_MAC: &str = "02:00:00:00:77:01";
const FAR_MAC: &str = "02:00:00:00:77:02";

impl Pair {
    /// With `ifindex` as the index of the near end, as any namespace can have it.
    pub(crate) fn new(role: &str, ifindex: u32) -> Result<Self> {
        let near = Namespace::new(role)?;
        let far = Namespace::new(&format!("{role}-far"))?;
        let (n, f) = (&near.name, &far.name);
        ip(&format!(
            "-n {n} link add {UPLINK} index {ifindex} address {NEAR_MAC} numrxqueues 1 numtxqueues 1 \
             type veth peer name {WIRE} address {FAR_MAC} numrxqueues 1 numtxqueues 1 netns {f}"
        ))?;
        for (netns, device, own, other, mac) in
            [(n, UPLINK, NEAR, FAR, FAR_MAC), (f, WIRE, FAR, NEAR, NEAR_MAC)]
        {
            ip(&format!("-n {netns} addr add {own}/24 dev {device}"))?;
            ip(&format!("-n {netns} link set {device} up"))?;
            ip(&format!(
                "-n {netns} neigh replace {other} lladdr {mac} dev {device} nud permanent"
            ))?;
        }
        let sender = far.netns.run(|| UdpSocket::bind((FAR, 0)))??;
        Ok(Self { near, far, sender })
    }

    /// The near end.
    pub(crate) fn interface(&self) -> Result<Interface> {
        Ok(Interface::by_name(&self.near.netns, UPLINK)?)
    }

    /// A socket at the near end for what gets through to `port`.
    pub(crate) fn listen(&self, port: u16) -> Result<UdpSocket> {
        let socket = self.near.netns.run(|| UdpSocket::bind((NEAR, port)))??;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// How many packets of ten that are sent to `port` get through.
    pub(crate) fn through(&self, port: u16) -> Result<usize> {
        let (socket, last) = (self.listen(port)?, self.listen(9)?);
        self.send(port, 10)?;
        self.send(9, 1)?;
        ensure!(soon(|| Ok(received(&last)? > 0))?, "the last packet never came");
        received(&socket)
    }

    /// A socket at the far end to send from.
    pub(crate) fn sender(&self) -> Result<UdpSocket> {
        Ok(self.sender.try_clone()?)
    }

    /// Sends `count` packets to `port` at the near end.
    pub(crate) fn send(&self, port: u16, count: usize) -> Result<()> {
        for _ in 0..count {
            self.sender.send_to(b"oxdp", (NEAR, port))?;
        }
        Ok(())
    }
}

/// Namespaces with an interface of the same number each; they go when it is dropped.
#[derive(Debug)]
pub(crate) struct Crowd(Vec<String>);

impl Crowd {
    /// The number of the interface in each.
    pub(crate) const IFINDEX: u32 = 10;

    pub(crate) fn new(size: usize) -> Result<Self> {
        let name = |number| format!("oxdp-crowd-{}-{number}", std::process::id());
        let crowd = Self((0..size).map(name).collect());
        let add = crowd.0.iter().map(|name| format!("netns add {name}\n"));
        batch(None, &add.collect::<String>())?;
        for name in &crowd.0 {
            batch(
                Some(name),
                &format!("link add {UPLINK} index {} type veth peer name {WIRE}\n", Self::IFINDEX),
            )?;
        }
        Ok(crowd)
    }

    pub(crate) fn interface(&self, number: usize) -> Result<Interface> {
        let name = self.0.get(number).context("a namespace")?;
        Ok(Interface::by_name(&Netns::by_name(name)?, UPLINK)?)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let del = self.0.iter().map(|name| format!("netns del {name}\n"));
        // The test has had its say.
        let _ = batch(None, &del.collect::<String>());
    }
}

/// Runs commands of `ip`, in a namespace.
fn batch(netns: Option<&str>, commands: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(netns.map(|name| ["-n", name]).into_iter().flatten()).args(["-force", "-batch", "-"]);
    let mut ip = ip.stdin(Stdio::piped()).spawn().context("running ip")?;
    ip.stdin.take().context("stdin")?.write_all(commands.as_bytes())?;
    ensure!(ip.wait()?.success(), "ip -batch: {commands}");
    Ok(())
}

/// How many packets wait at a socket.
pub(crate) fn received(socket: &UdpSocket) -> Result<usize> {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 64]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Everything below the protocol's directory in a bpffs.
pub(crate) fn pins_in(bpffs: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![bpffs.join("xdp")];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
