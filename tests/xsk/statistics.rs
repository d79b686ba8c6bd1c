//! What the kernel counts, and where what it loses goes.

use crate::lab::{
    Duplex, Lab, Wire, completed, duplex, packets, quiet, reclaimed, refill, send, settled, take,
    umem,
};
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Prefill, Statistics, Umem};

fn near(wire: &Wire) -> Result<Statistics> {
    Ok(wire.near.socket.statistics()?)
}

/// All kernels that are supported have what came with 5.9.
#[test]
fn a_fresh_socket_has_counted_nothing() -> Result<()> {
    let wire = Wire::new()?;
    let zero = Some(0);
    let counted = near(&wire)?;
    ensure!(counted.rx_dropped == 0 && counted.rx_invalid_descriptors == 0);
    ensure!(counted.tx_invalid_descriptors == 0 && counted.tx_ring_empty == zero);
    ensure!(counted.rx_ring_full == zero && counted.rx_fill_ring_empty == zero);
    wire.end()
}

/// Behind a headroom that leaves little of each frame.
#[test]
fn what_does_not_fit_behind_the_headroom_is_dropped_and_counted() -> Result<()> {
    let umem = Umem::builder().frames(1024).headroom(4096 - 256 - 448).build()?;
    let (lab, sender) = (Lab::new()?, crate::lab::umem(1024)?);
    let mut receiver = duplex(&umem, &lab.near, 0).bind()?;
    let mut far = duplex(&sender, &lab.far, 0).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &receiver.socket)?;
    let mixed: Vec<_> = packets(10, 448).into_iter().chain(packets(10, 449)).collect();
    send(&mut far, &mixed)?;
    completed(&mut far, 20)?;
    ensure!(soon(|| Ok(receiver.socket.statistics()?.rx_dropped == 10))?);
    quiet();
    ensure!(take(&mut receiver)? == packets(10, 448));
    settled(&umem)?;
    drop((receiver, far));
    reclaimed(&umem)?;
    reclaimed(&sender)
}

#[test]
fn a_full_rx_ring_is_counted() -> Result<()> {
    let mut wire = Wire::over(Lab::new()?, umem(1024)?, |builder| builder.rx(16))?;
    send(&mut wire.far, &packets(40, 64))?;
    completed(&mut wire.far, 40)?;
    ensure!(soon(|| Ok(near(&wire)?.rx_ring_full == Some(24)))?, "{:?}", near(&wire)?);
    ensure!(near(&wire)?.rx_dropped == 0, "{:?}", near(&wire)?);
    ensure!(take(&mut wire.near)? == packets(16, 64));
    wire.works(&packets(16, 64)[..10])?;
    wire.end()
}

#[test]
fn an_empty_fill_ring_is_counted() -> Result<()> {
    let shape = |builder: Duplex| builder.prefill(Prefill::Frames(0));
    let mut wire = Wire::over(Lab::new()?, umem(1024)?, shape)?;
    ensure!(wire.near.socket.granted().prefilled == 0);
    send(&mut wire.far, &packets(10, 64))?;
    completed(&mut wire.far, 10)?;
    ensure!(soon(|| Ok(near(&wire)?.rx_fill_ring_empty == Some(10)))?, "{:?}", near(&wire)?);
    ensure!(near(&wire)?.rx_dropped == 10, "{:?}", near(&wire)?);
    refill(&mut wire.near, 20)?;
    wire.works(&packets(10, 64))?;
    wire.end()
}

#[test]
fn an_empty_tx_ring_is_counted() -> Result<()> {
    let wire = Wire::new()?;
    wire.far.tx.wake()?;
    let counted = wire.far.socket.statistics()?.tx_ring_empty.context("a newer kernel")?;
    wire.far.tx.wake()?;
    ensure!(wire.far.socket.statistics()?.tx_ring_empty == Some(counted + 1));
    wire.end()
}

/// Statistics are of a socket, not of the queue.
#[test]
fn the_next_socket_counts_anew() -> Result<()> {
    let wire = Wire::new()?;
    wire.far.tx.wake()?;
    let Wire { near, far, umem, lab } = wire;
    ensure!(far.socket.statistics()?.tx_ring_empty > Some(0));
    drop((near, far));
    let again = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(1)).bind()?;
    ensure!(again.socket.statistics()?.tx_ring_empty == Some(0));
    drop(again);
    reclaimed(&umem)
}
