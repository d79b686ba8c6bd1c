//! Devices that go down, go away, or move, under a socket that is bound.

use crate::lab::{
    FAR, Lab, NEAR, Wire, completed, duplex, flush, packets, queue, quiet, reclaimed, send,
    settled, take, umem,
};
use crate::support::lab::{ip, soon};
use anyhow::{Result, ensure};
use oxdp::xsk::{Bound, Prefill};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Duration;

fn polled(bound: &Bound) -> Result<PollFlags> {
    let events = PollFlags::IN | PollFlags::OUT;
    let mut polled = [PollFd::new(&bound.socket, events)];
    poll(&mut polled, Some(&Timespec::try_from(Duration::from_millis(100))?))?;
    Ok(polled[0].revents())
}

/// Calls fail while it is down, `check` does not; then all goes on, with what was in the ring.
#[test]
fn a_device_that_is_down_comes_up_again() -> Result<()> {
    let mut wire = Wire::new()?;
    wire.works(&packets(5, 60))?;
    let far = &wire.lab.spaces.1.name.clone();
    ip(&format!("-n {far} link set {FAR} down"))?;
    queue(&mut wire.far, &packets(3, 60))?;
    let error = wire.far.tx.wake().unwrap_err();
    ensure!(error.errno() == Some(libc::ENETDOWN), "{error}");
    wire.far.socket.check()?;
    polled(&wire.far)?;
    ensure!(wire.far.tx.pending() == 3 && wire.far.rx.is_empty()?);
    ip(&format!("-n {far} link set {FAR} up"))?;
    // Until its carrier is there packets are dropped on the way, and come back all the same.
    flush(&wire.far)?;
    completed(&mut wire.far, 3)?;
    ensure!(soon(|| {
        send(&mut wire.far, &packets(1, 60))?;
        completed(&mut wire.far, 1)?;
        quiet();
        Ok(!take(&mut wire.near)?.is_empty())
    })?);
    take(&mut wire.near)?;
    wire.works(&packets(50, 60))?;
    wire.end()
}

/// poll(2) tells nothing, so `check` must; then it says so always. The frames come back with the socket's end.
#[test]
fn a_device_that_is_gone_is_told_by_check() -> Result<()> {
    let mut wire = Wire::new()?;
    wire.works(&packets(5, 60))?;
    queue(&mut wire.near, &packets(3, 60))?;
    wire.near.socket.check()?;
    wire.lab.cut()?;
    for bound in [&wire.near, &wire.far] {
        ensure!(soon(|| Ok(bound.socket.check().is_err()))?);
        for _ in 0..3 {
            let error = bound.socket.check().unwrap_err();
            ensure!(error.errno() == Some(libc::ENETDOWN), "{error}");
        }
        let told = polled(bound)?;
        ensure!(told.is_empty(), "{told:?}");
        let error = bound.tx.wake().unwrap_err();
        ensure!(error.errno() == Some(libc::ENXIO), "{error}");
        bound.socket.statistics()?;
    }
    ensure!(wire.near.tx.pending() == 3);
    ensure!(take(&mut wire.near)?.is_empty());
    settled(&wire.umem)?;
    let Wire { near, far, umem, lab } = wire;
    let error = duplex(&umem, &lab.near, 0).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::ENODEV), "{error}");
    ensure!(error.to_string().contains("the interface is gone"), "{error}");
    // A socket whose device is gone lends no memory: the next one registers it again.
    let other = Lab::new()?;
    let second = duplex(&umem, &other.far, 0).prefill(Prefill::Frames(8)).bind()?;
    second.socket.check()?;
    let error = near.socket.share().tx(64).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::ENODEV), "{error}");
    drop((near, far, second));
    reclaimed(&umem)
}

/// Packets that are under way when the sockets are closed hurt nobody.
#[test]
fn a_socket_is_closed_under_fire() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    for _ in 0..10 {
        let start = std::time::Instant::now();
        let near = duplex(&umem, &lab.near, 0).bind()?;
        let mut far = duplex(&umem, &lab.far, 0).bind()?;
        println!("bound after {:?}", start.elapsed());
        lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
        queue(&mut far, &packets(200, 60))?;
        far.tx.wake()?;
        drop(near);
        far.tx.wake()?;
        drop(far);
        reclaimed(&umem)?;
    }
    Ok(())
}

/// A device that moves to another namespace leaves its sockets, as one that goes.
#[test]
fn a_device_that_moves_leaves_its_sockets() -> Result<()> {
    let wire = Wire::new()?;
    let (from, to) = (&wire.lab.spaces.0.name, &wire.lab.spaces.1.name);
    ip(&format!("-n {from} link set {NEAR} netns {to}"))?;
    ensure!(soon(|| Ok(wire.near.socket.check().is_err()))?);
    ensure!(wire.near.tx.wake().unwrap_err().errno() == Some(libc::ENXIO));
    wire.end()
}
