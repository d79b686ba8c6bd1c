//! Receives the packets of a queue by an AF_XDP socket, and drops them.
//!
//! ```sh
//! cargo run --release --example xsk_drop -- eth0 --queue 0 --seconds 10
//! ```

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other examples")]
mod support;

use anyhow::Result;
use clap::Parser;
use oxdp::xsk::{Bound, RxRing};
use std::process::ExitCode;
use std::time::Instant;
use support::open::{SocketOptions, describe};
use support::run::{Limits, Run};
use support::wait::Sleeper;

/// Receives the packets of a queue by an AF_XDP socket, and drops them.
///
/// While it runs, nobody else sees the packets of that queue. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. Ends with
/// Ctrl-C, or after --seconds or --count.
#[derive(Parser, Debug)]
#[command(name = "xsk_drop")]
struct Options {
    /// The interface
    interface: String,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    limits: Limits,
}

fn main() -> ExitCode {
    env_logger::init();
    support::finish("xsk_drop", receive(&Options::parse()))
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn receive(options: &Options) -> Result<()> {
    let opened = Instant::now();
    let interface = options.socket.interface(&options.interface)?;
    let umem = options.socket.umem(1)?;
    let builder = options.socket.receiver(&umem, &interface)?;
    let mut bound = builder.rx(options.socket.ring_size).bind()?;
    println!("{}", describe(&bound.socket));
    let run = Run::start("received", &options.limits, opened)?;
    let mut sleeper = Sleeper::new(options.socket.batch);
    while run.goes_on() {
        drop_some(&mut bound, &options.socket, &run, &mut sleeper)?;
    }
    run.finish(&[bound.socket.statistics()?])
}

type Receiver = Bound<oxdp::xsk::Exclusive, RxRing, ()>;

/// What has come, or sleeps until something comes.
fn drop_some(
    bound: &mut Receiver,
    options: &SocketOptions,
    run: &Run,
    sleeper: &mut Sleeper,
) -> Result<()> {
    let mut bytes = 0;
    let mut frames = bound.fill.reserve(options.batch)?;
    let packets = bound
        .rx
        .peek(options.batch)?
        .recycle(&mut frames, |packet| bytes += u64::from(packet.len()));
    frames.commit();
    if packets > 0 {
        run.count(packets, bytes);
        sleeper.count(packets);
    } else if options.spin {
        bound.fill.wake()?;
    } else {
        sleeper.sleep(&bound.rx, false)?;
    }
    Ok(())
}
