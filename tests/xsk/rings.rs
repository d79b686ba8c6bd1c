//! Rings of every size that the kernel makes, and batches that end in every way.

use crate::lab::{
    Duplex, Lab, Wire, carry, completed, duplex, packet, packets, reclaimed, refill, send, umem,
};
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::ErrorKind;
use oxdp::xsk::{Prefill, Refusal, Socket, Umem, Wake};

/// With a single slot each.
#[test]
fn the_smallest_rings_carry_packets_one_by_one() -> Result<()> {
    for size in [1, 2, 4] {
        let shape = |builder: Duplex| builder.rx(size).tx(size).fill(size).completion(size);
        let mut wire = Wire::over(Lab::new()?, umem(32)?, shape)?;
        ensure!(wire.near.rx.size() == size && wire.near.fill.size() == size);
        ensure!(wire.far.tx.size() == size && wire.far.completion.size() == size);
        wire.works(&packets(50, 64))?;
        wire.end()?;
    }
    Ok(())
}

/// Frames of a cache go at once, and come back with what they hold; what cannot be sent leaves the cache as it is.
#[test]
fn frames_of_a_cache_are_sent_as_they_are() -> Result<()> {
    let mut wire = Wire::new()?;
    let (near, far) = (&mut wire.near, &mut wire.far);
    let mut frames: Vec<_> = std::iter::from_fn(|| wire.umem.frame()).take(100).collect();
    for frame in &mut frames {
        frame.bytes_mut()[..64].copy_from_slice(&packet(7, 64));
    }
    let mut cache = wire.umem.cache();
    for frame in frames {
        cache.put(frame);
    }
    let (free, other) = (wire.umem.census().free, umem(16)?);
    let mut batch = far.tx.reserve(70)?;
    ensure!(batch.push_frames(&mut other.cache(), 64) == Err(Refusal::OtherUmem));
    ensure!(batch.push_frames(&mut cache, 0) == Err(Refusal::Empty));
    ensure!(batch.push_frames(&mut cache, 4097) == Err(Refusal::TooLong));
    ensure!(batch.push_frames(&mut cache, u32::MAX) == Err(Refusal::TooLong));
    // Uncommitted, they go back.
    ensure!(batch.push_frames(&mut cache, 64)? == 70);
    ensure!(batch.push_frames(&mut cache, 64)? == 0);
    drop(batch);
    ensure!(wire.umem.census().free >= free, "{:?}", wire.umem.census());
    let mut batch = far.tx.reserve(20)?;
    ensure!(batch.push_frames(&mut cache, 64)? == 20);
    ensure!(batch.commit() == 20);
    crate::lab::flush(far)?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(crate::lab::take(near)?);
        Ok(got.len() == 20)
    })?);
    ensure!(got.iter().all(|bytes| *bytes == packet(7, 64)));
    completed(far, 20)?;
    drop(cache);
    // As many as there are.
    let mut held: Vec<_> = std::iter::from_fn(|| wire.umem.frame()).collect();
    let mut cache = wire.umem.cache();
    for frame in held.drain(..5) {
        cache.put(frame);
    }
    let mut batch = far.tx.reserve(20)?;
    ensure!(batch.push_frames(&mut cache, 64)? == 5 && batch.left() == 15);
    drop((batch, held, cache));
    wire.end()
}

/// As long as pages that lie together are to be had on all kernels.
#[test]
fn long_rings_carry_packets() -> Result<()> {
    let size = 1 << 15;
    let shape = |builder: Duplex| builder.rx(size).tx(size).fill(size).completion(size);
    let umem = Umem::builder().frames(3 * size).chunk_size(2048).build()?;
    let mut wire = Wire::over(Lab::new()?, umem, shape)?;
    ensure!(wire.near.rx.size() == size && wire.near.socket.granted().prefilled == size);
    wire.works(&packets(3000, 64))?;
    wire.end()
}

/// The kernel, or the library before it, says no, and nothing is lost.
#[test]
fn impossible_sizes_are_refused_by_name() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(256)?);
    for size in [0, 3, 100, (1 << 26) + 1, 1 << 27, 1 << 31, u32::MAX] {
        for ring in ["RX", "TX", "fill", "completion"] {
            let builder = duplex(&umem, &lab.near, 0);
            let builder = match ring {
                "RX" => builder.rx(size),
                "TX" => builder.tx(size),
                "fill" => builder.fill(size),
                _ => builder.completion(size),
            };
            let error = builder.bind().unwrap_err();
            let is_told = matches!(
                *error.kind(),
                ErrorKind::RingSize { ring: told, size: of } if told == ring && of == size
            );
            ensure!(is_told && error.to_string().contains(ring), "{error}");
        }
    }
    let census = umem.census();
    ensure!(census.free == 256 && census.in_kernel == 0, "{census:?}");
    let bound = duplex(&umem, &lab.near, 0).bind()?;
    drop(bound);
    reclaimed(&umem)
}

/// A ring that is larger than memory is the kernel's own refusal.
#[test]
fn a_ring_larger_than_memory_is_refused_by_the_kernel() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(64)?);
    let result = Socket::builder(&umem, &lab.near, 0).rx(1 << 26).bind();
    if let Err(error) = result {
        ensure!(matches!(error.kind(), ErrorKind::Os { .. }), "{error}");
        ensure!(error.errno() == Some(libc::ENOMEM), "{error}");
        ensure!(umem.census().free == 64, "{:?}", umem.census());
        return Ok(());
    }
    drop(result);
    reclaimed(&umem)
}

#[test]
fn a_batch_takes_no_more_than_it_has_slots() -> Result<()> {
    let mut wire = Wire::over(Lab::new()?, umem(64)?, |builder| {
        builder.tx(4).fill(4).prefill(Prefill::Frames(2))
    })?;
    let mut batch = wire.far.tx.reserve(100)?;
    ensure!(batch.left() == 4);
    for number in 0..4 {
        let frame = wire.umem.frame().context("a frame")?;
        batch.push(frame.into_packet_of(&packet(number, 64))?)?;
    }
    let fifth = wire.umem.frame().context("a frame")?.into_packet_of(&packet(4, 64))?;
    let rejected = batch.push(fifth).unwrap_err();
    ensure!(rejected.refusal == Refusal::Full);
    ensure!(rejected.item.data()? == packet(4, 64));
    drop(rejected);
    ensure!(batch.commit() == 4 && wire.far.tx.pending() == 4);
    ensure!(wire.far.tx.reserve(1)?.left() == 0);
    let mut batch = wire.far.fill.reserve(100)?;
    ensure!(batch.left() == 2);
    for _ in 0..2 {
        batch.push(wire.umem.frame().context("a frame")?)?;
    }
    ensure!(batch.push(wire.umem.frame().context("a frame")?).is_err());
    ensure!(batch.commit() == 2);
    crate::lab::flush(&wire.far)?;
    completed(&mut wire.far, 4)?;
    ensure!(soon(|| Ok(crate::lab::take(&mut wire.near)?.len() == 2))?);
    wire.end()
}

/// What is not committed was never sent, and is free again; what is not read is read later.
#[test]
fn batches_that_are_dropped_lose_nothing() -> Result<()> {
    let mut wire = Wire::new()?;
    let before = wire.umem.census();
    for _ in 0..3 {
        let mut batch = wire.far.tx.reserve(10)?;
        for number in 0..10 {
            let frame = wire.umem.frame().context("a frame")?;
            batch.push(frame.into_packet_of(&packet(number, 64))?)?;
        }
        drop(batch);
        let mut batch = wire.far.fill.reserve(10)?;
        while batch.left() > 0 {
            batch.push(wire.umem.frame().context("a frame")?)?;
        }
        drop(batch);
        ensure!(wire.umem.census() == before, "{before:?}, then {:?}", wire.umem.census());
    }
    let sent = packets(9, 64);
    send(&mut wire.far, &sent)?;
    ensure!(soon(|| Ok(wire.near.rx.peek(9)?.len() == 9))?);
    let mut got = Vec::new();
    while let Some(packet) = wire.near.rx.peek(9)?.next() {
        got.push(packet.data()?.to_vec());
    }
    ensure!(got == sent);
    let mut back = 0;
    ensure!(soon(|| {
        back += wire.far.completion.peek(9)?.take(2).count();
        Ok(back == 9)
    })?);
    wire.end()
}

/// A batch that is forgotten loses its frames, and only those: they count as held, and no packet comes twice.
#[test]
fn batches_that_are_forgotten_lose_their_own_frames_only() -> Result<()> {
    let mut wire = Wire::new()?;
    send(&mut wire.far, &packets(10, 64))?;
    ensure!(soon(|| Ok(wire.near.rx.peek(10)?.len() == 10))?);
    let mut batch = wire.near.rx.peek(4)?;
    ensure!(batch.next().context("a packet")?.data()? == packet(0, 64));
    std::mem::forget(batch);
    ensure!(wire.umem.census().held == 3, "{:?}", wire.umem.census());
    let rest: Vec<_> = wire.near.rx.peek(64)?.collect();
    ensure!(rest.len() == 6 && rest[0].data()? == packet(4, 64));
    drop(rest);
    let mut batch = wire.far.tx.reserve(2)?;
    batch.push(wire.umem.frame().context("a frame")?.into_packet_of(&packet(0, 64))?)?;
    std::mem::forget(batch);
    let mut batch = wire.far.fill.reserve(2)?;
    while batch.left() > 0 {
        batch.push(wire.umem.frame().context("a frame")?)?;
    }
    drop(batch);
    ensure!(wire.umem.census().held == 4, "{:?}", wire.umem.census());
    ensure!(soon(|| Ok(wire.far.completion.peek(10)?.len() == 10))?);
    std::mem::forget(wire.far.completion.peek(5)?);
    ensure!(wire.umem.census().held == 9, "{:?}", wire.umem.census());
    completed(&mut wire.far, 5)?;
    // The slots of the forgotten ones are used again.
    refill(&mut wire.near, 10)?;
    let sent = packets(600, 64);
    ensure!(carry(&mut wire.far, &mut wire.near, &sent)? == sent);
    ensure!(wire.umem.census().held == 9, "{:?}", wire.umem.census());
    let umem = wire.umem.clone();
    drop(wire);
    ensure!(umem.reclaim() == 0 && umem.census().held == 9, "{:?}", umem.census());
    Ok(())
}

/// A panic while packets are looked at loses none of them.
#[test]
fn a_panic_in_recycle_loses_nothing() -> Result<()> {
    let mut wire =
        Wire::over(Lab::new()?, umem(1024)?, |builder| builder.prefill(Prefill::Frames(64)))?;
    send(&mut wire.far, &packets(10, 64))?;
    completed(&mut wire.far, 10)?;
    ensure!(soon(|| Ok(wire.near.rx.peek(10)?.len() == 10))?);
    let mut looked = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut fill = wire.near.fill.reserve(64).unwrap();
        let mut batch = wire.near.rx.peek(64).unwrap();
        batch.recycle(&mut fill, |_| {
            looked += 1;
            assert!(looked < 4, "on purpose");
        });
    }));
    ensure!(panicked.is_err() && looked == 4);
    ensure!(wire.umem.census().held == 0, "{:?}", wire.umem.census());
    let left: Vec<_> = wire.near.rx.peek(64)?.collect();
    ensure!(left.len() == 7 && left[0].data()? == packet(3, 64));
    drop(left);
    refill(&mut wire.near, 10)?;
    wire.works(&packets(200, 64))?;
    wire.end()
}

/// One call sends 32 packets in copy mode (16 on 5.10), or the budget, which is there since 6.17. So long, it tells what it
/// has taken only once it finds the ring empty.
#[test]
fn the_budget_says_how_many_packets_a_call_sends() -> Result<()> {
    let mut wire = Wire::new()?;
    crate::lab::queue(&mut wire.far, &packets(80, 64))?;
    let (call, tells) = (crate::lab::call()?, crate::support::kernel()? >= (6, 17));
    for left in (1..80).rev().filter(|left| (80 - left) % call == 0) {
        ensure!(wire.far.tx.wake()? == Wake::Again);
        let pending = wire.far.tx.pending();
        ensure!(pending == left || !tells && pending >= left, "{pending} are pending");
    }
    ensure!(wire.far.tx.wake()? == Wake::Done && wire.far.tx.pending() == 0);
    completed(&mut wire.far, 80)?;
    ensure!(soon(|| Ok(wire.near.rx.peek(80)?.len() == 80))?);
    let Wire { near, far, umem, lab } = wire;
    drop((near, far));
    let budget = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0)).tx_budget(64).bind();
    if crate::support::kernel()? < (6, 17) {
        ensure!(crate::lab::too_old(budget.unwrap_err().kind()) == Some("6.17"));
        let builder = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0));
        let mut far = builder.prefer_tx_budget(256).bind()?;
        crate::lab::queue(&mut far, &packets(80, 64))?;
        ensure!(far.tx.wake()? == Wake::Again);
        crate::lab::flush(&far)?;
        completed(&mut far, 80)?;
        drop(far);
        return reclaimed(&umem);
    }
    let mut far = budget?;
    crate::lab::queue(&mut far, &packets(80, 64))?;
    ensure!(far.tx.wake()? == Wake::Again && far.tx.pending() == 16);
    ensure!(far.tx.wake()? == Wake::Done && far.tx.pending() == 0);
    completed(&mut far, 80)?;
    drop(far);
    // Asked for where it may be, it is never too much.
    let builder = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0));
    let mut far = builder.prefer_tx_budget(100_000).bind()?;
    crate::lab::queue(&mut far, &packets(200, 64))?;
    ensure!(far.tx.wake()? == Wake::Done && far.tx.pending() == 0);
    completed(&mut far, 200)?;
    drop(far);
    for wrong in [31, 257, 0] {
        let builder = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0)).tx_budget(wrong);
        let error = builder.bind().unwrap_err();
        ensure!(error.errno() == Some(libc::EACCES), "{error}");
    }
    reclaimed(&umem)
}
