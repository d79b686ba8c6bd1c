//! Sends UDP packets by an AF_XDP socket.
//!
//! ```sh
//! cargo run --release --example xsk_tx -- eth0 --to 10.0.0.2 --to-mac 02:00:00:00:00:02 --size 1000
//! ```

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other examples")]
mod support;

use anyhow::{Context, Result};
use clap::Parser;
use oxdp::xsk::{Bound, FrameCache, TxRing, Umem};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Instant;
use support::open::{SocketOptions, describe};
use support::packet::{Flow, Mac, udp};
use support::run::{Limits, Run};
use support::wait;

/// Sends UDP packets by an AF_XDP socket, all of them the same.
///
/// Counted is what has left, by the completion ring. Needs CAP_NET_RAW. Ends with Ctrl-C, or after --seconds or
/// --count.
#[derive(Parser, Debug)]
#[command(name = "xsk_tx")]
struct Options {
    /// The interface to send out of
    interface: String,
    /// Bytes of a packet, from the Ethernet header on
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Destination MAC address
    #[arg(long, value_name = "MAC", default_value = "ff:ff:ff:ff:ff:ff")]
    to_mac: Mac,
    /// Source MAC address
    #[arg(long, value_name = "MAC", default_value = "02:00:00:00:00:01")]
    from_mac: Mac,
    /// Where to
    #[arg(long, value_name = "ADDRESS", default_value = "198.18.0.2")]
    to: Ipv4Addr,
    /// Where from
    #[arg(long, value_name = "ADDRESS", default_value = "198.18.0.1")]
    from: Ipv4Addr,
    /// Destination port
    #[arg(long, value_name = "PORT", default_value_t = 9)]
    to_port: u16,
    /// Source port
    #[arg(long, value_name = "PORT", default_value_t = 9)]
    from_port: u16,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    limits: Limits,
}

fn main() -> ExitCode {
    env_logger::init();
    support::finish("xsk_tx", send(&Options::parse()))
}

#[allow(clippy::print_stdout, reason = "this is the program's output")]
fn send(options: &Options) -> Result<()> {
    let opened = Instant::now();
    let flow = Flow {
        macs: (options.from_mac, options.to_mac),
        addresses: (options.from, options.to),
        ports: (options.from_port, options.to_port),
    };
    let packet = udp(&flow, options.size)?;
    let interface = options.socket.interface(&options.interface)?;
    let umem = options.socket.umem(1)?;
    let length = u32::try_from(packet.len())?;
    write_all(&umem, &packet)?;
    let builder = options.socket.socket(&umem, &interface);
    let bound = builder.tx(options.socket.ring_size).bind()?;
    println!("{}", describe(&bound.socket));
    let run = Run::start("sent", &options.limits, opened)?;
    let mut sender = Sender { bound, cache: umem.cache(), length, under_way: 0 };
    while run.goes_on() {
        sender.send_some(&options.socket, &run)?;
    }
    run.finish(&[sender.bound.socket.statistics()?])
}

/// Writes the packet into every frame, where it stays: nobody else writes to them.
fn write_all(umem: &Umem, packet: &[u8]) -> Result<()> {
    let frames: Vec<_> = std::iter::from_fn(|| umem.frame()).collect();
    for frame in frames {
        drop(frame.into_packet_of(packet)?.into_frame()?);
    }
    Ok(())
}

struct Sender {
    bound: Bound<oxdp::xsk::Exclusive, (), TxRing>,
    cache: FrameCache,
    /// Bytes of a packet.
    length: u32,
    /// Packets that have not come back.
    under_way: u32,
}

impl Sender {
    /// As many as there is room for, and counts those that have left.
    fn send_some(&mut self, options: &SocketOptions, run: &Run) -> Result<()> {
        let mut room = self.bound.tx.reserve(options.batch)?;
        room.push_frames(&mut self.cache, self.length)?;
        let sent = room.commit();
        self.under_way += sent;
        self.bound.tx.wake()?;
        if !options.spin && sent == 0 {
            wait::for_room(&self.bound.tx)?;
        }
        let left = self.bound.completion.drain(&mut self.cache)?;
        self.under_way = self.under_way.checked_sub(left).context("more came back than went")?;
        run.count(left, u64::from(left) * u64::from(self.length));
        Ok(())
    }
}
