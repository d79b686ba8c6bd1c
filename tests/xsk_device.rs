//! What a device can do with AF_XDP, and which AF_XDP sockets there are, as the kernel tells.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::xsk::{
    DeviceCapabilities, QueueCounts, RxMetadataFeatures, SocketInfo, XdpFeatures, XskFeatures,
    count_sockets_in, sockets_in,
};
use oxdp::{ErrorKind, Interface, Netns};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use support::kernel;
use support::lab::{Namespace, Pair, UPLINK, ip};

/// What veth tells is what its driver has; what the kernel is too old for is not made up.
#[test]
fn veth_tells_what_it_can_do() -> Result<()> {
    let (pair, kernel) = (Pair::new("capable", 10)?, kernel()?);
    let told = DeviceCapabilities::of(&pair.interface()?);
    if kernel < (6, 3) {
        let error = told.unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotSupported { .. }), "{error}");
        ensure!(error.errno() == Some(libc::EOPNOTSUPP));
        let text = error.to_string();
        ensure!(text.contains("kernel 6.3") && text.contains(UPLINK), "{text}");
        return Ok(());
    }
    let told = told?;
    let native = XdpFeatures::BASIC | XdpFeatures::REDIRECT | XdpFeatures::RX_SG;
    ensure!(told.xdp.contains(native), "{told:?}");
    ensure!(!told.xdp.contains(XdpFeatures::HW_OFFLOAD), "{told:?}");
    let is_zero_copy = told.xdp.contains(XdpFeatures::XSK_ZEROCOPY);
    ensure!(told.zero_copy_max_segments.is_some() == is_zero_copy, "{told:?}");
    let mut metadata = RxMetadataFeatures::TIMESTAMP | RxMetadataFeatures::HASH;
    metadata.set(RxMetadataFeatures::VLAN_TAG, kernel >= (6, 8));
    ensure!(told.rx_metadata == (kernel >= (6, 7)).then_some(metadata), "{told:?}");
    ensure!(told.xsk == (kernel >= (6, 8)).then_some(XskFeatures::empty()), "{told:?}");
    ensure!(told.counts == QueueCounts::of(&pair.interface()?)?, "{told:?}");
    Ok(())
}

/// A veth sends to its peer only what runs a program, or wants to: it says so from then on.
#[test]
fn what_a_device_can_do_changes() -> Result<()> {
    if kernel()? < (6, 3) {
        return veth_tells_what_it_can_do();
    }
    let pair = Pair::new("changing", 10)?;
    let can_send = || -> Result<bool> {
        let told = DeviceCapabilities::of(&pair.interface()?)?;
        Ok(told.xdp.contains(XdpFeatures::NDO_XMIT | XdpFeatures::NDO_XMIT_SG))
    };
    ensure!(!can_send()?);
    let (far, object) = (&pair.far.name, support::object("xdp_pass.o"));
    ip(&format!("-n {far} link set wire xdpdrv obj {} sec xdp", object.display()))?;
    ensure!(can_send()?);
    Ok(())
}

/// The interface is asked for in its own namespace, where another one has the same number.
#[test]
fn queues_are_counted_where_the_interface_is() -> Result<()> {
    let [many, few] = [Namespace::new("many")?, Namespace::new("few")?];
    for (namespace, rx, tx) in [(&many, 4, 2), (&few, 1, 3)] {
        ip(&format!(
            "-n {} link add {UPLINK} index 10 numrxqueues {rx} numtxqueues {tx} type veth peer name wire",
            namespace.name
        ))?;
        let interface = Interface::by_index(&namespace.netns, 10)?;
        let counts = QueueCounts::of(&interface)?;
        ensure!((counts.rx, counts.tx) == (Some(rx), Some(tx)), "{counts:?}");
        ensure!(counts.limit() == rx.max(tx), "{counts:?}");
        // veth has counted its channels since 5.13.
        let channels = kernel()? >= (5, 13);
        ensure!(counts.channels.is_some() == channels, "{counts:?}");
        ensure!(counts.queues() == if channels { rx.max(tx) } else { 1 }, "{counts:?}");
        ensure!(counts.in_use().is_none_or(|used| used == rx.max(tx)), "{counts:?}");
    }
    Ok(())
}

#[test]
fn a_device_without_channels_has_one_queue() -> Result<()> {
    let namespace = Namespace::new("loopback")?;
    let counts = QueueCounts::of(&Interface::by_name(&namespace.netns, "lo")?)?;
    ensure!((counts.rx, counts.tx, counts.channels) == (Some(1), Some(1), None), "{counts:?}");
    ensure!((counts.queues(), counts.limit(), counts.in_use()) == (1, 1, None));
    Ok(())
}

#[test]
fn an_interface_that_is_gone_is_told() -> Result<()> {
    let pair = Pair::new("gone", 10)?;
    let interface = pair.interface()?;
    ip(&format!("-n {} link del {UPLINK}", pair.near.name))?;
    let error = QueueCounts::of(&interface).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    if kernel()? >= (6, 3) {
        let error = DeviceCapabilities::of(&interface).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    }
    Ok(())
}

/// A page of packet memory.
#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "it is the kernel's")] [u8; 4096]);

/// An AF_XDP socket by bare system calls, with the memory that it was given.
struct RawSocket {
    file: File,
    memory: Vec<Page>,
}

impl RawSocket {
    /// One that has nothing yet.
    fn new(netns: &Netns) -> Result<Self> {
        // SAFETY: socket(2) takes no pointer.
        let fd = netns.run(|| unsafe {
            libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        })?;
        ensure!(fd >= 0, "an AF_XDP socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file, memory: Vec::new() })
    }

    /// One with 16 pages in chunks of 2048, 64 of them headroom, bound to queue 0 of interface 10.
    fn bound(netns: &Netns) -> Result<Self> {
        let memory = vec![Page([0; 4096]); 16];
        let socket = Self { memory, ..Self::new(netns)? };
        let umem = libc::xdp_umem_reg {
            addr: socket.memory.as_ptr() as u64,
            len: 16 * 4096,
            chunk_size: 2048,
            headroom: 64,
            flags: 0,
            tx_metadata_len: 0,
        };
        socket.set(libc::XDP_UMEM_REG, &umem)?;
        socket.set(libc::XDP_UMEM_FILL_RING, &64)?;
        socket.set(libc::XDP_UMEM_COMPLETION_RING, &32)?;
        socket.set(libc::XDP_RX_RING, &16)?;
        socket.set(libc::XDP_TX_RING, &8)?;
        socket.bind(libc::XDP_COPY, 0)?;
        Ok(socket)
    }

    /// One with an RX ring that shares memory and queue of another.
    fn sharing(netns: &Netns, other: &Self) -> Result<Self> {
        let socket = Self::new(netns)?;
        socket.set(libc::XDP_RX_RING, &4)?;
        socket.bind(libc::XDP_SHARED_UMEM, other.file.as_raw_fd().cast_unsigned())?;
        Ok(socket)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> Result<()> {
        let (fd, size) = (self.file.as_raw_fd(), u32::try_from(size_of::<T>())?);
        let value = (&raw const *value).cast();
        // SAFETY: value is live and of the size that is passed.
        let set = unsafe { libc::setsockopt(fd, libc::SOL_XDP, option, value, size) };
        ensure!(set == 0, "option {option}: {}", io::Error::last_os_error());
        Ok(())
    }

    fn bind(&self, flags: u16, shared: u32) -> Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP)?,
            sxdp_flags: flags,
            sxdp_ifindex: 10,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: shared,
        };
        let (fd, size) = (self.file.as_raw_fd(), u32::try_from(size_of_val(&address))?);
        // SAFETY: address is live and of the size that is passed.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size) };
        ensure!(bound == 0, "bind: {}", io::Error::last_os_error());
        Ok(())
    }

    fn cookie(&self) -> Result<u64> {
        let (fd, mut cookie, mut size) = (self.file.as_raw_fd(), 0_u64, 8);
        let value = (&raw mut cookie).cast();
        // SAFETY: cookie has the 8 bytes that size says.
        let got = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut size)
        };
        ensure!(got == 0, "SO_COOKIE: {}", io::Error::last_os_error());
        Ok(cookie)
    }

    fn found_in<'a>(&self, sockets: &'a [SocketInfo]) -> Result<&'a SocketInfo> {
        let inode = self.file.metadata()?.ino();
        let found = sockets.iter().find(|socket| u64::from(socket.inode) == inode);
        found.with_context(|| format!("socket {inode} among {sockets:?}"))
    }
}

/// Whether the running kernel was built with `CONFIG_XDP_SOCKETS_DIAG`, by what it was built with.
fn lists_sockets() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let modules = Path::new("/lib/modules").join(release.trim());
    if modules.exists() {
        let lists = ["modules.dep", "modules.builtin"].map(|list| fs::read(modules.join(list)));
        let has = |list: io::Result<Vec<u8>>| -> Result<bool> {
            Ok(String::from_utf8_lossy(&list?).contains("/xsk_diag.ko"))
        };
        let [loadable, built_in] = lists.map(has);
        return Ok(loadable? || built_in?);
    }
    let config = Command::new("zcat").arg("/proc/config.gz").output()?;
    ensure!(config.status.success(), "neither its modules nor its configuration are here");
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    Ok(["y", "m"].iter().any(|on| config.contains(&format!("CONFIG_XDP_SOCKETS_DIAG={on}\n"))))
}

/// The sockets of a namespace, if the kernel has the list; it must have it if it was built so.
fn listed(netns: &Netns) -> Result<Option<Vec<SocketInfo>>> {
    let told = sockets_in(netns);
    if lists_sockets()? {
        return Ok(Some(told?));
    }
    let error = told.unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NotSupported { .. }), "{error}");
    ensure!(error.to_string().contains("CONFIG_XDP_SOCKETS_DIAG"), "{error}");
    Ok(None)
}

#[test]
fn a_socket_is_listed_with_all_it_has() -> Result<()> {
    let pair = Pair::new("listed", 10)?;
    let netns = &pair.near.netns;
    let bare = RawSocket::new(netns)?;
    let bound = RawSocket::bound(netns)?;
    ensure!(count_sockets_in(netns)? == 2);
    let Some(sockets) = listed(netns)? else { return Ok(()) };
    ensure!(sockets.len() == 2, "{sockets:?}");
    for socket in [&bare, &bound] {
        let found = socket.found_in(&sockets)?;
        ensure!(found.cookie == socket.cookie()?, "{found:?}");
        ensure!(found.uid == Some(fs::metadata("/proc/self")?.uid()), "{found:?}");
        ensure!(found.memory.is_some_and(|memory| memory.send_limit > 0), "{found:?}");
        ensure!(found.statistics.is_some() == (kernel()? >= (5, 9)), "{found:?}");
    }
    let found = bound.found_in(&sockets)?;
    ensure!((found.interface, found.queue) == (Some(10), 0), "{found:?}");
    ensure!((found.rx_ring, found.tx_ring) == (Some(16), Some(8)), "{found:?}");
    ensure!((found.fill_ring, found.completion_ring) == (Some(64), Some(32)), "{found:?}");
    let umem = found.umem.context("its memory")?;
    ensure!((umem.size, umem.pages) == (65536, 16), "{umem:?}");
    ensure!((umem.chunk_size, umem.headroom) == (2048, 64), "{umem:?}");
    ensure!(!umem.is_zero_copy && umem.references > 0, "{umem:?}");
    let found = bare.found_in(&sockets)?;
    ensure!((found.interface, found.umem, found.fill_ring) == (None, None, None), "{found:?}");
    ensure!((found.rx_ring, found.tx_ring) == (None, None), "{found:?}");
    Ok(())
}

#[test]
fn sockets_are_listed_where_they_are() -> Result<()> {
    let pair = Pair::new("listed-far", 10)?;
    let _socket = RawSocket::new(&pair.near.netns)?;
    ensure!(count_sockets_in(&pair.near.netns)? == 1 && count_sockets_in(&pair.far.netns)? == 0);
    let Some(sockets) = listed(&pair.far.netns)? else { return Ok(()) };
    ensure!(sockets.is_empty(), "{sockets:?}");
    Ok(())
}

#[test]
fn sockets_that_share_memory_say_so() -> Result<()> {
    let pair = Pair::new("sharing", 10)?;
    let netns = &pair.near.netns;
    let first = RawSocket::bound(netns)?;
    let second = RawSocket::sharing(netns, &first)?;
    let Some(sockets) = listed(netns)? else { return Ok(()) };
    let [first, second] = [first.found_in(&sockets)?, second.found_in(&sockets)?];
    let [one, other] = [first.umem.context("memory")?, second.umem.context("memory")?];
    ensure!(one == other && one.references > 1, "{one:?} {other:?}");
    ensure!(second.fill_ring == Some(64) && second.rx_ring == Some(4), "{second:?}");
    Ok(())
}

/// More of them than fit into one datagram.
#[test]
fn many_sockets_are_listed_once_each() -> Result<()> {
    let namespace = Namespace::new("many-sockets")?;
    let sockets: Vec<_> =
        (0..300).map(|_| RawSocket::new(&namespace.netns)).collect::<Result<_>>()?;
    ensure!(count_sockets_in(&namespace.netns)? == 300);
    let Some(found) = listed(&namespace.netns)? else { return Ok(()) };
    ensure!(found.len() == 300, "{}", found.len());
    sockets.iter().try_for_each(|socket| socket.found_in(&found).map(drop))
}

/// The kernel's list may end before a socket whose device is gone; their number does not.
#[test]
fn sockets_without_a_device_are_counted() -> Result<()> {
    let pair = Pair::new("bereft", 10)?;
    let netns = &pair.near.netns;
    let sockets = [RawSocket::new(netns)?, RawSocket::bound(netns)?, RawSocket::new(netns)?];
    ip(&format!("-n {} link del {UPLINK}", pair.near.name))?;
    ensure!(count_sockets_in(netns)? == 3);
    let Some(found) = listed(netns)? else { return Ok(()) };
    sockets[2].found_in(&found)?;
    Ok(())
}
