//! A host of its own behind a queue: it answers ARP and ICMP echo, so that an ordinary `ping` works.
//!
//! ```sh
//! cargo run --release --features tokio --example xsk_echo_tokio -- eth0 --address 10.0.0.9
//! ```

#![forbid(unsafe_code)]

mod answer;
#[allow(dead_code, reason = "shared with other examples")]
#[path = "../support/mod.rs"]
mod support;

use answer::Host;
use anyhow::{Context, Result};
use clap::Parser;
use oxdp::xsk::{AsyncRx, CompletionRing, FillRing, FrameCache, Packet, RxRing, TxRing};
use smoltcp::wire::EthernetAddress;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::open::{SocketOptions, describe};
use support::packet::Mac;
use support::run::{Limits, Run};

/// How long is waited for packets before it is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A host of its own behind a queue: it answers ARP and ICMP echo, so that an ordinary `ping` works.
///
/// Everything else that comes to the queue is dropped. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. Ends with Ctrl-C,
/// or after --seconds or --count.
#[derive(Parser, Debug)]
#[command(name = "xsk_echo_tokio")]
struct Options {
    /// The interface
    interface: String,
    /// The IP address that it answers for
    #[arg(long, value_name = "ADDRESS")]
    address: Ipv4Addr,
    /// Its hardware address. One that is not the interface's is seen only if the interface is promiscuous
    #[arg(long, value_name = "MAC")]
    mac: Option<Mac>,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    limits: Limits,
}

/// The rings, and frames for what is sent and received.
struct Echo {
    host: Host,
    rx: AsyncRx,
    tx: TxRing,
    fill: FillRing,
    completion: CompletionRing,
    frames: FrameCache,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    env_logger::init();
    support::finish("xsk_echo_tokio", serve(&Options::parse()).await)
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
async fn serve(options: &Options) -> Result<()> {
    let opened = Instant::now();
    let interface = options.socket.interface(&options.interface)?;
    let own = interface.ethernet_address()?.context("the interface has no Ethernet address")?;
    let mac = EthernetAddress(options.mac.map_or(own, Mac::octets));
    let umem = options.socket.umem(1)?;
    let slots = options.socket.ring_size;
    let bound = options.socket.receiver(&umem, &interface)?.rx(slots).tx(slots).bind()?;
    println!("{}: {mac} has {}", describe(&bound.socket), options.address);
    let mut echo = Echo {
        host: Host { mac, ip: options.address },
        rx: AsyncRx::new(bound.rx)?,
        tx: bound.tx,
        fill: bound.fill,
        completion: bound.completion,
        frames: umem.cache(),
    };
    let run = Run::start("answered", &options.limits, opened)?;
    while run.goes_on() {
        // Dropped in the middle when the time is over: nothing is lost by that.
        if let Ok(ready) = tokio::time::timeout(LOOK, echo.rx.ready()).await {
            let packets: Vec<Packet> = take(ready?, options.socket.batch)?;
            echo.answer(packets, &run)?;
        }
    }
    run.finish(&[bound.socket.statistics()?])
}

fn take(rx: &mut RxRing, batch: u32) -> Result<Vec<Packet>> {
    Ok(rx.peek(batch)?.collect())
}

impl Echo {
    /// Sends the answers, and gives all other frames back to the kernel.
    fn answer(&mut self, packets: Vec<Packet>, run: &Run) -> Result<()> {
        self.completion.drain(&mut self.frames)?;
        let mut replies = self.tx.reserve(u32::try_from(packets.len())?)?;
        let (mut count, mut bytes) = (0, 0);
        for mut packet in packets {
            let length = packet.len();
            if self.host.answer(packet.data_mut()?).is_none() {
                self.frames.put(packet.into_frame()?);
                continue;
            }
            match replies.push(packet) {
                Ok(()) => (count, bytes) = (count + 1, bytes + u64::from(length)),
                Err(full) => self.frames.put(full.item.into_frame()?),
            }
        }
        replies.commit();
        self.tx.wake()?;
        self.fill.fill(&mut self.frames, u32::MAX)?;
        self.fill.wake()?;
        run.count(count, bytes);
        Ok(())
    }
}
