//! AF_XDP sockets on veth, in copy mode, on whatever kernel this is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::xsk::{BindMode, Bound, Socket, Umem};
use oxdp::{Interface, Mode, Policy, Program, Select, Xdp};
use support::lab::{Pair, UPLINK, WIRE, soon};
use support::object;

/// Two ends with a socket at each, and at the near one a program that hands it what comes.
struct Lab {
    near: Interface,
    far: Interface,
    _pair: Pair,
}

impl Lab {
    fn new(program: &str) -> Result<(Self, Program)> {
        let pair = Pair::new("xsk", 10)?;
        let xdp = Xdp::builder().policy(Policy::Single).build()?;
        let near = Interface::by_name(&pair.near.netns, UPLINK)?;
        let far = Interface::by_name(&pair.far.netns, WIRE)?;
        let mut program = Program::from_file(object("xsk_redirect.o"), Select::Function(program))?;
        xdp.attach(&near, &mut program, Mode::Native)?;
        Ok((Self { near, far, _pair: pair }, program))
    }
}

fn bind(umem: &Umem, interface: &Interface) -> Result<Bound> {
    let builder = Socket::builder(umem, interface, 0).rx(256).tx(256).fill(256).completion(256);
    Ok(builder.mode(BindMode::Copy).bind()?)
}

#[test]
fn what_is_sent_is_received() -> Result<()> {
    let (lab, program) = Lab::new("xsk_redirect")?;
    let umem = Umem::builder().frames(1024).build()?;
    let mut near = bind(&umem, &lab.near)?;
    let mut far = bind(&umem, &lab.far)?;
    program.map("xsks")?.set_socket(0, &near.socket)?;
    let mut batch = far.tx.reserve(10)?;
    for length in 60..70_u8 {
        let frame = umem.frame().context("a frame")?;
        batch.push(frame.into_packet_of(&vec![length; usize::from(length)])?)?;
    }
    ensure!(batch.commit() == 10);
    far.tx.wake()?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        for packet in near.rx.peek(64)? {
            got.push(packet.data()?.to_vec());
        }
        Ok(got.len() >= 10)
    })?);
    for (length, bytes) in (60..70_u8).zip(&got) {
        ensure!(*bytes == vec![length; usize::from(length)]);
    }
    let mut cache = umem.cache();
    let mut completed = 0;
    ensure!(soon(|| {
        completed += far.completion.drain(&mut cache)?;
        Ok(completed == 10)
    })?);
    drop(cache);
    ensure!(umem.census().held == 0, "{:?}", umem.census());
    let in_kernel = umem.census().in_kernel;
    drop((near, far));
    ensure!(umem.reclaim() == in_kernel && umem.census().free == 1024, "{:?}", umem.census());
    Ok(())
}
