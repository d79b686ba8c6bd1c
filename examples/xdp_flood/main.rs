//! Sends a stream of UDP packets out of an interface, faster than sockets can: a test run with live frames of a
//! small program, `bpf/xdp_flood.c`, which writes the next packet's headers and redirects it to the interface.
//!
//! ```sh
//! cargo run --release --example xdp_flood -- veth0 --to 10.0.0.2 --to-port 5000-5999 --rate 100000
//! ```

mod display;
mod network;
mod pace;
mod packet;
mod sender;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use display::Display;
use network::{Mac, Uplink};
use oxdp::Netns;
use pace::Pace;
use packet::{Ports, Stream};
use sender::{Plan, Senders};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long packets may be under way after the last one was made: to a driver's queue, or a veth's other end.
const SETTLING: Duration = Duration::from_millis(500);

/// Sends a stream of UDP packets out of an interface, by XDP.
///
/// The packets bypass the network stack of this side: no socket, route, filter or queueing discipline sees them.
/// Needs Linux 5.18, CAP_NET_ADMIN and CAP_BPF, and a driver that sends redirected packets (for veth: a native XDP
/// program, or GRO, at the other end). Ends after --count packets, after --duration, or with Ctrl-C.
///
/// Two things are counted: "made" are the packets that the program sent on its way; "left" is by how much the
/// interface's own tx_packets grew meanwhile, which other senders can add to. A driver counts what it handed to the
/// hardware; veth, what its other end took in. Rates in bits are those of layer 2, without the frame check sequence.
#[derive(Parser, Debug)]
#[command(name = "xdp_flood", verbatim_doc_comment)]
struct Options {
    /// The interface to send out of
    interface: String,
    /// Where to: an IPv4 or IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    to: IpAddr,
    /// Destination port, or a range such as 5000-5999
    #[arg(long, value_name = "PORTS", default_value = "9")]
    to_port: Ports,
    /// Destination MAC address; without it, the one that the neighbour table has for the address
    #[arg(long, value_name = "MAC")]
    to_mac: Option<Mac>,
    /// Where from; without it, the address that the kernel would choose
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Source port, or a range; two ranges give every pair of ports in turn
    #[arg(long, value_name = "PORTS", default_value = "9")]
    from_port: Ports,
    /// Bytes of a packet, from the Ethernet header on; at least 42 for IPv4, 62 for IPv6
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// How many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// For how long, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    duration: Option<f64>,
    /// Packets per second; without it, as fast as it goes
    #[arg(long, value_name = "PPS", value_parser = positive)]
    rate: Option<f64>,
    /// Threads that send, each on its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Packets that the kernel handles at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// The network namespace (of `ip netns`) that the interface is in
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
}

fn positive(text: &str) -> Result<f64> {
    let number: f64 = text.parse()?;
    ensure!(number > 0.0 && number <= 1e12, "not a positive number that makes sense");
    Ok(number)
}

fn main() -> ExitCode {
    env_logger::init();
    match flood(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// In one line; a cause that is part of what was said is not said again.
#[allow(clippy::print_stderr, reason = "this is the program's error output")]
fn complain(error: &anyhow::Error) {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    eprintln!("xdp_flood: {line}");
}

fn flood(options: &Options) -> Result<()> {
    let netns = match &options.netns {
        Some(name) => Netns::by_name(name)?,
        None => Netns::current()?,
    };
    let uplink = Uplink::open(&netns, &options.interface)?;
    let stream = stream(options, &uplink)?;
    let plan = Plan {
        netns: &netns,
        ifindex: uplink.index(),
        threads: options.threads,
        batch: options.batch,
        stream: &stream,
    };
    let senders = Senders::load(&plan)?;
    let stop = stop_on_signal()?;
    let pace = Pace::new(options.count, options.rate);
    let end = options.duration.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let mut display = Display::new(&uplink, options.size)?;
    senders.run(&pace, &stop, || {
        if end.is_some_and(|end| Instant::now() >= end) {
            stop.store(true, Ordering::Relaxed);
        }
        display.tick(senders.made()?)
    })?;
    display.finish(senders.made()?, SETTLING)
}

/// What is to be sent; everything that was not given is looked up here.
fn stream(options: &Options, uplink: &Uplink) -> Result<Stream> {
    let to = options.to;
    ensure!(
        options.size <= uplink.mtu()? + packet::ETHERNET,
        "a packet of {} bytes does not fit {}, whose MTU is {}",
        options.size,
        options.interface,
        uplink.mtu()?
    );
    let to_mac = match options.to_mac {
        Some(mac) => mac,
        None if to.is_multicast() => bail!("{to} is a multicast address: say --to-mac"),
        None => uplink.neighbour(to)?,
    };
    let from = match options.from {
        Some(from) => from,
        None => uplink.netns().run(|| chosen_source(to))??,
    };
    let ports = (options.from_port, options.to_port);
    Stream::new((uplink.mac()?, to_mac), (from, to), ports, options.size)
}

/// The address that the kernel would send from; nothing is sent to find out.
fn chosen_source(to: IpAddr) -> Result<IpAddr> {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(SocketAddr::new(to, 9))?;
        socket.local_addr()
    });
    Ok(source.with_context(|| format!("no source address for {to} (say --from)"))?.ip())
}

/// Set by SIGINT and its like. A second one ends the process at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(stop)
}
