//! Each ring on a thread of its own, and frames that go from one to another.

use crate::lab::{WINDOW, Wire, packet, reclaimed, umem};
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{CompletionRing, FillRing, Packet, RxRing, TxRing, Umem};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const COUNT: usize = 3000;

/// Sends numbered packets, never more than a window ahead of what has come.
fn transmit(mut tx: TxRing, umem: &Umem, come: &AtomicUsize) -> Result<()> {
    let mut cache = umem.cache();
    let mut number = 0;
    ensure!(soon_long(|| {
        let ahead = number - come.load(Ordering::Relaxed);
        let most = (WINDOW - ahead.min(WINDOW)).min(COUNT - number);
        let mut batch = tx.reserve(u32::try_from(most)?)?;
        while batch.left() > 0
            && let Some(frame) = cache.take()
        {
            batch.push(frame.into_packet_of(&packet(number, 64 + number % 100))?)?;
            number += 1;
        }
        batch.commit();
        tx.wake()?;
        Ok(number == COUNT && tx.pending() == 0)
    })?);
    Ok(())
}

fn receive(mut rx: RxRing, to: &Sender<Packet>) -> Result<()> {
    let mut number = 0;
    ensure!(soon_long(|| {
        for packet in rx.peek(64)? {
            to.send(packet).context("the other thread")?;
            number += 1;
        }
        Ok(number == COUNT)
    })?);
    Ok(())
}

/// Looks at each packet, and gives its frame to the fill ring.
fn fill(mut ring: FillRing, from: &Receiver<Packet>, come: &AtomicUsize) -> Result<()> {
    for number in 0..COUNT {
        let got = from.recv_timeout(Duration::from_secs(60))?;
        ensure!(got.data()? == packet(number, 64 + number % 100), "packet {number}");
        come.fetch_add(1, Ordering::Relaxed);
        let mut batch = ring.reserve(1)?;
        batch.push(got)?;
        batch.commit();
        ring.wake()?;
    }
    Ok(())
}

fn complete(mut ring: CompletionRing, umem: &Umem) -> Result<()> {
    let mut cache = umem.cache();
    let mut done = 0;
    ensure!(soon_long(|| {
        done += ring.drain(&mut cache)? as usize;
        Ok(done == COUNT)
    })?);
    Ok(())
}

/// As `soon`, for thousands of packets on a slow machine.
fn soon_long(mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    for _ in 0..12 {
        if soon(&mut condition)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn four_rings_on_four_threads() -> Result<()> {
    let Wire { near, far, umem, lab } = Wire::new()?;
    let come = AtomicUsize::new(0);
    let (to, from) = channel();
    std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| transmit(far.tx, &umem, &come)),
            scope.spawn(|| complete(far.completion, &umem)),
            scope.spawn({
                let rx = near.rx;
                move || receive(rx, &to)
            }),
            scope.spawn({
                let (ring, come) = (near.fill, &come);
                move || fill(ring, &from, come)
            }),
        ];
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    ensure!(umem.census().held == 0, "{:?}", umem.census());
    drop((near.tx, near.completion, near.socket, far.rx, far.fill, far.socket, lab));
    reclaimed(&umem)
}

/// Caches of many threads give each frame to one of them at a time.
#[test]
fn a_frame_is_in_one_cache() -> Result<()> {
    let umem = umem(500)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = |mark: u8| {
            let (umem, stop) = (&umem, &stop);
            move || -> Result<()> {
                let mut cache = umem.cache();
                let mut held = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    while held.len() < 90
                        && let Some(mut frame) = cache.take()
                    {
                        frame.bytes_mut()[..64].fill(mark);
                        held.push(frame);
                    }
                    for (number, frame) in held.drain(..).enumerate() {
                        ensure!(frame.bytes()[..64] == [mark; 64], "somebody else has it");
                        // Back by the cache, or by itself.
                        if number % 3 != 0 {
                            cache.put(frame);
                        }
                    }
                    ensure!(cache.len() <= 128);
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (1..=4).map(|mark| scope.spawn(work(mark))).collect();
        std::thread::sleep(Duration::from_millis(500));
        ensure!(umem.census().total == 500);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    ensure!(umem.census().free == 500, "{:?}", umem.census());
    Ok(())
}

/// Sockets of one UMEM are bound and closed on several threads at once.
#[test]
fn sockets_come_and_go_on_many_threads() -> Result<()> {
    let plan = crate::lab::Plan { queues: 4, ..crate::lab::Plan::default() };
    let (lab, umem) = (crate::lab::Lab::with(plan)?, umem(2048)?);
    std::thread::scope(|scope| {
        let work = |queue: u32| {
            let (lab, umem) = (&lab, &umem);
            move || -> Result<()> {
                for round in 0..5 {
                    let interface = if round % 2 == 0 { &lab.near } else { &lab.far };
                    let builder = crate::lab::duplex(umem, interface, queue);
                    let prefill = oxdp::xsk::Prefill::Frames(20);
                    let patience = Duration::from_secs(20);
                    drop(builder.prefill(prefill).bind_retry(patience).bind()?);
                    umem.reclaim();
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..4).map(|queue| scope.spawn(work(queue))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    let census = umem.census();
    ensure!(census.held == 0 && census.free + census.in_kernel == 2048, "{census:?}");
    umem.reclaim();
    ensure!(umem.census().free == 2048, "{:?}", umem.census());
    Ok(())
}
