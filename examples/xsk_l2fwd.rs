//! Sends the packets of a queue back to where they came from, or on to another interface, by AF_XDP sockets.
//!
//! ```sh
//! cargo run --release --example xsk_l2fwd -- eth0
//! cargo run --release --example xsk_l2fwd -- eth0 --to eth1
//! ```

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other examples")]
mod support;

use anyhow::{Context, Result};
use clap::Parser;
use oxdp::Interface;
use oxdp::xsk::{Bound, CompletionRing, FillRing, Prefill, RxRing, Socket, TxRing, Umem};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use support::open::{SocketOptions, describe};
use support::packet::swap_macs;
use support::run::{Limits, Run};
use support::wait::Sleeper;

/// How long the last packets may take to leave.
const LAST: Duration = Duration::from_millis(200);

/// Sends the packets of a queue back to where they came from, or on to another interface, by AF_XDP sockets.
///
/// What is sent back has its two MAC addresses swapped; what goes on is not changed, and what comes in at the other
/// interface goes out of the first. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. Ends with Ctrl-C, or after
/// --seconds or --count.
#[derive(Parser, Debug)]
#[command(name = "xsk_l2fwd")]
struct Options {
    /// The interface
    interface: String,
    /// The other interface, in the same namespace
    #[arg(long, value_name = "INTERFACE")]
    to: Option<String>,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    limits: Limits,
}

fn main() -> ExitCode {
    env_logger::init();
    support::finish("xsk_l2fwd", forward(&Options::parse()))
}

fn forward(options: &Options) -> Result<()> {
    let opened = Instant::now();
    let interface = options.socket.interface(&options.interface)?;
    let to = options.to.as_ref().map(|name| options.socket.interface(name)).transpose()?;
    let umem = options.socket.umem(if to.is_some() { 2 } else { 1 })?;
    let (port, here) = open(options, &umem, &interface)?;
    let Some(to) = to else {
        return run(options, opened, &[port], vec![Lane::back(here)]);
    };
    let (other, there) = open(options, &umem, &to)?;
    run(options, opened, &[port, other], Lane::across(here, there))
}

/// The rings of a socket.
struct Rings {
    rx: RxRing,
    tx: TxRing,
    fill: FillRing,
    completion: CompletionRing,
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn open(options: &Options, umem: &Umem, interface: &Interface) -> Result<(Socket, Rings)> {
    let size = options.socket.ring_size;
    // All frames are for what is received, and come back when it has been sent.
    let prefill = Prefill::Frames(2 * size);
    let builder = options.socket.receiver(umem, interface)?.prefill(prefill);
    let Bound { rx, tx, fill, completion, socket } = builder.rx(size).tx(size).bind()?;
    println!("{}", describe(&socket));
    Ok((socket, Rings { rx, tx, fill, completion }))
}

fn run(options: &Options, opened: Instant, ports: &[Socket], lanes: Vec<Lane>) -> Result<()> {
    let run = Run::start("forwarded", &options.limits, opened)?;
    let work = &|mut lane: Lane| {
        let ended = lane.work(&options.socket, &run);
        run.stop();
        ended
    };
    thread::scope(|scope| {
        let start = |lane| scope.spawn(move || work(lane));
        let threads: Vec<_> = lanes.into_iter().map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All are joined before the first error counts.
        let ended: Vec<_> = threads.into_iter().map(join).collect();
        ended.into_iter().collect::<Result<()>>()
    })?;
    let statistics = ports.iter().map(Socket::statistics);
    run.finish(&statistics.collect::<oxdp::Result<Vec<_>>>()?)
}

/// One direction: from where packets come to where they go, and their frames back.
struct Lane {
    rx: RxRing,
    tx: TxRing,
    fill: FillRing,
    completion: CompletionRing,
    /// Whether packets go back to where they came from.
    is_back: bool,
    /// Packets that are being sent.
    under_way: u32,
}

impl Lane {
    fn back(rings: Rings) -> Self {
        let Rings { rx, tx, fill, completion } = rings;
        Self { rx, tx, fill, completion, is_back: true, under_way: 0 }
    }

    /// Both directions between two sockets.
    fn across(here: Rings, there: Rings) -> Vec<Self> {
        let lane = |rx, fill, tx, completion| Self {
            rx,
            tx,
            fill,
            completion,
            is_back: false,
            under_way: 0,
        };
        vec![
            lane(here.rx, here.fill, there.tx, there.completion),
            lane(there.rx, there.fill, here.tx, here.completion),
        ]
    }

    fn work(&mut self, options: &SocketOptions, run: &Run) -> Result<()> {
        let mut sleeper = Sleeper::new(options.batch);
        while run.goes_on() {
            self.take_back(options.batch)?;
            let (packets, bytes) = self.pass_on(options.batch)?;
            if packets > 0 {
                run.count(packets, bytes);
                sleeper.count(packets);
            }
            if self.under_way > 0 {
                self.tx.wake()?;
            }
            if packets > 0 {
                continue;
            }
            if options.spin {
                self.fill.wake()?;
            } else {
                sleeper.sleep(&self.rx, self.under_way > 0)?;
            }
        }
        // What has been counted is to leave.
        self.tx.flush(LAST)?;
        Ok(())
    }

    /// Frames whose packets have left are for others to come.
    fn take_back(&mut self, batch: u32) -> Result<()> {
        let mut frames = self.fill.reserve(batch)?;
        let left = self.completion.peek(batch)?.recycle(&mut frames);
        frames.commit();
        self.under_way = self.under_way.checked_sub(left).context("more came back than went")?;
        Ok(())
    }

    /// What has come goes; how many packets and bytes.
    fn pass_on(&mut self, batch: u32) -> Result<(u32, u64)> {
        let mut bytes = 0;
        let mut room = self.tx.reserve(batch)?;
        for mut packet in self.rx.peek(room.left())? {
            bytes += u64::from(packet.len());
            if self.is_back {
                swap_macs(packet.data_mut()?);
            }
            room.push(packet)?;
        }
        let packets = room.commit();
        self.under_way += packets;
        Ok((packets, bytes))
    }
}
