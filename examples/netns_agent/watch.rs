//! What the agent waits for: signals, namespaces that come and go, and links that do.
//!
//! News only says where to look again, so messages are not read beyond that there is one, and none that is lost or comes
//! twice does harm. Namespaces are told by the mount table (poll(2) on `/proc/self/mountinfo`): inotify on `/run/netns`
//! would be too early, since `ip netns add` makes the file before it binds the namespace there, and sees no other
//! directory. Sockets keep their namespace alive: one is held only as long as something else does too.

use crate::place::Place;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

/// Multicast group of rtnetlink for links (`RTMGRP_LINK`).
const LINKS: u32 = 1;

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) is_end: bool,
    pub(crate) is_reload: bool,
    /// Namespaces were bound or unbound, or other mounts made.
    pub(crate) are_mounts: bool,
    /// Inodes of the namespaces whose links have changed.
    pub(crate) links: BTreeSet<u64>,
}

pub(crate) struct Watch {
    signals: SignalFd,
    mounts: File,
    /// By the inodes of their namespaces.
    sockets: BTreeMap<u64, File>,
}

impl Watch {
    /// From now on signals wait until they are asked for. To be made before there are threads.
    pub(crate) fn new() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            signals: SignalFd::with_flags(&signals, flags).context("signalfd")?,
            mounts: File::open("/proc/self/mountinfo").context("/proc/self/mountinfo")?,
            sockets: BTreeMap::new(),
        })
    }

    /// Watches the links of a namespace, if it does not yet. What was there before is no news.
    pub(crate) fn add(&mut self, inode: u64, place: &Place) -> Result<()> {
        if let Entry::Vacant(entry) = self.sockets.entry(inode) {
            entry.insert(place.netns.run(links)?.context("watch")?);
        }
        Ok(())
    }

    /// Lets go of all other namespaces.
    pub(crate) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        self.sockets.retain(|inode, _| is_there(*inode));
    }

    /// Waits for news, or until the time is over.
    pub(crate) fn wait(&self, limit: Duration) -> Result<News> {
        let mut files = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI),
        ];
        let sockets = self.sockets.values();
        files.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, limit) {
            // By being stopped and continued; all other signals are blocked.
            Err(Errno::EINTR) => return Ok(News::default()),
            other => other.context("poll")?,
        };
        let has_news = |file: &PollFd<'_>| file.any().unwrap_or(true);
        let mut news = News { are_mounts: files.get(1).is_some_and(has_news), ..self.signals()? };
        for ((inode, socket), file) in self.sockets.iter().zip(files.iter().skip(2)) {
            if has_news(file) {
                drain(socket)?;
                news.links.insert(*inode);
            }
        }
        Ok(news)
    }

    fn signals(&self) -> Result<News> {
        let mut news = News::default();
        while let Some(signal) = self.signals.read_signal().context("signalfd")? {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => news.is_reload = true,
                _ => news.is_end = true,
            }
        }
        Ok(news)
    }
}

/// A socket for what happens to the links of the calling thread's namespace.
fn links() -> nix::Result<File> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
    Ok(socket.into())
}

fn drain(mut socket: &File) -> Result<()> {
    loop {
        match socket.read(&mut [0; 4096]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Messages were lost: news all the same.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => drop(other.context("read a message about links")?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;
    use oxdp::Netns;

    #[test]
    fn signals_and_silence_are_told_apart() {
        let mut watch = Watch::new().unwrap();
        let place = Place { netns: Netns::current().unwrap(), names: Vec::new() };
        watch.add(place.netns.inode(), &place).unwrap();
        raise(Signal::SIGHUP).unwrap();
        let news = watch.wait(Duration::from_secs(5)).unwrap();
        assert!(news.is_reload && !news.is_end);
        raise(Signal::SIGTERM).unwrap();
        assert!(watch.wait(Duration::from_secs(5)).unwrap().is_end);
        let news = watch.wait(Duration::ZERO).unwrap();
        assert!(!news.is_end && !news.is_reload);
        watch.keep(|inode| inode != place.netns.inode());
        assert!(watch.sockets.is_empty());
    }
}
