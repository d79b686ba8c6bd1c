//! Writes the packets of a queue to a pcapng file, which Wireshark and tcpdump read.
//!
//! ```sh
//! cargo run --release --example xsk_dump -- eth0 --write eth0.pcapng --seconds 10
//! ```

#![forbid(unsafe_code)]

mod capture;
#[allow(dead_code, reason = "shared with other examples")]
#[path = "../support/mod.rs"]
mod support;

use anyhow::{Context, Result};
use capture::Capture;
use clap::Parser;
use oxdp::xsk::{Bound, Exclusive, FragmentsBatch, RxRing};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::open::{SocketOptions, describe};
use support::run::{Limits, Run};

/// How long is waited for packets before it is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Writes the packets of a queue to a pcapng file, which Wireshark and tcpdump read.
///
/// It takes the packets: while it runs, nobody else sees those of that queue. Timestamps are those of their reading. Needs
/// CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. Ends with Ctrl-C, or after --seconds or --count.
#[derive(Parser, Debug)]
#[command(name = "xsk_dump")]
struct Options {
    /// The interface
    interface: String,
    /// The file to write; one that is there is written over
    #[arg(long, short, value_name = "FILE")]
    write: PathBuf,
    /// How many bytes of a packet are kept
    #[arg(long, value_name = "BYTES", default_value_t = 262_144)]
    snapshot: u32,
    /// Take packets of several fragments, as of an interface with a large MTU; since kernel 6.6
    #[arg(long)]
    multi_buffer: bool,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    limits: Limits,
}

type Receiver = Bound<Exclusive, RxRing, ()>;

fn main() -> ExitCode {
    env_logger::init();
    support::finish("xsk_dump", dump(&Options::parse()))
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn dump(options: &Options) -> Result<()> {
    let opened = Instant::now();
    let interface = options.socket.interface(&options.interface)?;
    let file =
        File::create(&options.write).with_context(|| format!("{}", options.write.display()))?;
    let mut capture = Capture::new(BufWriter::new(file), interface.name(), options.snapshot)?;
    let umem = options.socket.umem(1)?;
    let builder = options.socket.receiver(&umem, &interface)?.multi_buffer(options.multi_buffer);
    let mut bound = builder.rx(options.socket.ring_size).bind()?;
    println!("{}", describe(&bound.socket));
    let run = Run::start("wrote", &options.limits, opened)?;
    while run.goes_on() {
        write_some(&mut bound, options, &mut capture, &run)?;
    }
    capture.flush()?;
    run.finish(&[bound.socket.statistics()?])
}

/// What has come; or waits for it.
fn write_some(
    bound: &mut Receiver,
    options: &Options,
    capture: &mut Capture<impl Write>,
    run: &Run,
) -> Result<()> {
    let batch = usize::try_from(options.socket.batch)?;
    if write(bound.rx.packets(batch)?, capture, run)? == 0 {
        bound.fill.wake()?;
        bound.rx.wait(Some(LOOK))?;
    }
    let mut frames = bound.socket.umem().cache();
    bound.fill.fill(&mut frames, u32::MAX)?;
    Ok(())
}

/// How many there were. Their frames are free when they are dropped.
fn write(packets: FragmentsBatch<'_>, capture: &mut Capture<impl Write>, run: &Run) -> Result<u32> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (mut count, mut bytes) = (0, 0);
    for packet in packets {
        capture.packet(now, &packet.to_vec()?)?;
        count += 1;
        bytes += packet.len();
    }
    run.count(count, bytes);
    Ok(count)
}
