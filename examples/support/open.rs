//! The options that all have, and the sockets that they ask for.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use oxdp::xsk::{BindMode, BusyPoll, Chunks, HugePages, Socket, SocketBuilder, Umem};
use oxdp::{Interface, Mode, Netns, Policy, Xdp};
use std::time::Duration;

/// Which socket is opened, and how.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct SocketOptions {
    /// The network namespace (of `ip netns`) that the interface is in
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// The queue to use; packets of others are not seen
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) queue: u32,
    /// Whether packets are copied between the device and the program
    #[arg(long, value_enum, default_value_t = Copies::Auto)]
    mode: Copies,
    /// Attach the XDP program to the network stack, not to the driver: slower, for any device
    #[arg(long)]
    skb: bool,
    /// Packets that are handled at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Bytes of a frame: from 2048 to 4096; what is no power of two needs --unaligned
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    frame_size: u32,
    /// Frames of any size
    #[arg(long)]
    unaligned: bool,
    /// Slots of the ring of packets, a power of two; there are twice as many frames
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) ring_size: u32,
    /// Take memory of huge pages, from the pool or transparent ones, if there are any
    #[arg(long)]
    huge_pages: bool,
    /// Never sleep: look at the rings all the time
    #[arg(long)]
    pub(crate) spin: bool,
    /// Poll the device from the program's own calls, for so long each
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u64>,
    /// Let the kernel never sleep; then every batch to send takes a system call
    #[arg(long)]
    no_need_wakeup: bool,
    /// Packets that one call sends at most, with copies; kernels before 6.17 send 32 whatever is said
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..))]
    tx_budget: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Copies {
    /// Without copies if the device can
    Auto,
    /// With copies
    Copy,
    /// Without copies, or not at all
    ZeroCopy,
}

impl SocketOptions {
    pub(crate) fn interface(&self, name: &str) -> Result<Interface> {
        let netns = match &self.netns {
            Some(name) => Netns::by_name(name)?,
            None => Netns::current()?,
        };
        Ok(Interface::by_name(&netns, name)?)
    }

    /// Twice as many frames as a ring of packets has slots, for so many sockets.
    pub(crate) fn umem(&self, sockets: u32) -> Result<Umem> {
        ensure!(self.ring_size.is_power_of_two(), "{} is no power of two", self.ring_size);
        let chunks = if self.unaligned { Chunks::Unaligned } else { Chunks::Aligned };
        let huge_pages = if self.huge_pages { HugePages::Try } else { HugePages::No };
        let umem = Umem::builder().frames(2 * self.ring_size * sockets).chunk_size(self.frame_size);
        Ok(umem.chunks(chunks).huge_pages(huge_pages).build()?)
    }

    pub(crate) fn socket(&self, umem: &Umem, interface: &Interface) -> SocketBuilder {
        let mode = match self.mode {
            Copies::Auto => BindMode::Auto,
            Copies::Copy => BindMode::Copy,
            Copies::ZeroCopy => BindMode::ZeroCopy,
        };
        let builder = Socket::builder(umem, interface, self.queue)
            .mode(mode)
            .need_wakeup(!self.no_need_wakeup)
            .fill(2 * self.ring_size)
            .completion(2 * self.ring_size)
            .prefer_tx_budget(self.tx_budget);
        match self.busy_poll {
            Some(microseconds) => {
                let duration = Duration::from_micros(microseconds);
                builder.busy_poll(BusyPoll { duration, ..BusyPoll::default() })
            }
            None => builder,
        }
    }

    /// One that is given what comes to its queue, by the default program: in a chain where the kernel has such, else alone.
    pub(crate) fn receiver(&self, umem: &Umem, interface: &Interface) -> Result<SocketBuilder> {
        let mode = if self.skb { Mode::Skb } else { Mode::Unspecified };
        let xdp = Xdp::builder().policy(Policy::Auto).mount_bpffs(true).build()?;
        Ok(self.socket(umem, interface).default_program(&xdp, mode))
    }
}

/// As `queue 0 of eth0 (…), with copies`.
pub(crate) fn describe(socket: &Socket) -> String {
    let copies = if socket.granted().zero_copy { "without copies" } else { "with copies" };
    format!("{socket}, {copies}")
}
