//! What poll(2) and epoll(7) tell.

use crate::lab::{
    Duplex, Lab, WINDOW, Wire, completed, packets, queue, quiet, refill, send, take, umem,
};
use crate::support::kernel;
use crate::support::lab::soon;
use anyhow::{Result, ensure};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

fn wait(at: impl AsFd, events: PollFlags, limit: Duration) -> Result<PollFlags> {
    let mut polled = [PollFd::from_borrowed_fd(at.as_fd(), events)];
    poll(&mut polled, Some(&Timespec::try_from(limit)?))?;
    Ok(polled[0].revents())
}

#[test]
fn nothing_to_read_is_a_timeout() -> Result<()> {
    let wire = Wire::new()?;
    let start = Instant::now();
    ensure!(wait(&wire.near.socket, PollFlags::IN, SHORT)?.is_empty());
    ensure!(start.elapsed() >= SHORT);
    wire.end()
}

/// It wakes up for a packet that comes later, and stays readable until all are read.
#[test]
fn a_packet_wakes_who_waits_for_it() -> Result<()> {
    let mut wire = Wire::new()?;
    let (near, far) = (&mut wire.near, &mut wire.far);
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                std::thread::sleep(SHORT);
                send(far, &packets(2, 64))
            });
            ensure!(wait(&near.rx, PollFlags::IN, LONG)? == PollFlags::IN);
            sender.join().unwrap()
        })?;
        ensure!(soon(|| Ok(near.rx.peek(2)?.len() == 2))?);
        ensure!(near.rx.peek(1)?.count() == 1);
        ensure!(wait(&near.rx, PollFlags::IN, SHORT)? == PollFlags::IN);
        ensure!(near.rx.peek(1)?.count() == 1);
        ensure!(wait(&near.rx, PollFlags::IN, SHORT)?.is_empty());
        refill(near, 2)?;
        completed(far, 2)?;
    }
    wire.end()
}

/// In copy mode poll(2) itself lets the kernel send, so nobody needs to be woken.
#[test]
fn who_waits_to_send_makes_the_kernel_send() -> Result<()> {
    let mut wire = Wire::new()?;
    let sent = packets(16, 64);
    queue(&mut wire.far, &sent)?;
    ensure!(wait(&wire.far.tx, PollFlags::OUT, LONG)? == PollFlags::OUT);
    ensure!(wire.far.tx.pending() == 0, "{} are pending", wire.far.tx.pending());
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(take(&mut wire.near)?);
        Ok(got.len() == 16)
    })?);
    ensure!(got == sent);
    completed(&mut wire.far, 16)?;
    wire.end()
}

/// A socket without need-wakeup never says that the kernel sleeps; in copy mode it does, and poll(2) of kernels before 5.11
/// wakes it for those only that say so.
#[test]
fn without_need_wakeup_the_kernel_is_always_called() -> Result<()> {
    let mut wire = Wire::over(Lab::new()?, umem(1024)?, |builder| builder.need_wakeup(false))?;
    ensure!(wire.far.tx.needs_wakeup() && !wire.far.fill.needs_wakeup());
    let sent = packets(200, 64);
    for some in sent.chunks(WINDOW) {
        queue(&mut wire.far, some)?;
        ensure!(wire.far.tx.flush(LONG)?);
        let mut got = Vec::new();
        ensure!(soon(|| {
            got.extend(take(&mut wire.near)?);
            Ok(got.len() == some.len())
        })?);
        ensure!(got == some);
        completed(&mut wire.far, some.len())?;
    }
    wire.end()
}

/// A TX ring that is more than half full is not writable. It is kept so by a completion ring that nobody reads. Kernels
/// before 6.0 are not asked then: poll(2) for writing would spin there, past its timeout, until somebody reads that ring.
#[test]
fn a_full_ring_is_not_writable() -> Result<()> {
    let shape = |builder: Duplex| builder.tx(64).completion(32);
    let mut wire = Wire::over(Lab::new()?, umem(1024)?, shape)?;
    send(&mut wire.far, &packets(32, 64))?;
    queue(&mut wire.far, &packets(64, 64))?;
    let kernel = kernel()?;
    if kernel >= (6, 0) {
        ensure!(wait(&wire.far.tx, PollFlags::OUT, SHORT)?.is_empty());
    } else {
        wire.far.tx.wake()?;
    }
    ensure!(wire.far.tx.pending() == 64, "{} are pending", wire.far.tx.pending());
    completed(&mut wire.far, 32)?;
    // 32 more go to the completion ring. Before 6.17 it is told later.
    if kernel >= (6, 17) {
        ensure!(wait(&wire.far.tx, PollFlags::OUT, LONG)? == PollFlags::OUT);
        ensure!(wire.far.tx.pending() == 32, "{} are pending", wire.far.tx.pending());
    } else {
        wire.far.tx.wake()?;
        wire.far.tx.wake()?;
    }
    completed(&mut wire.far, 32)?;
    crate::lab::flush(&wire.far)?;
    completed(&mut wire.far, 32)?;
    ensure!(wait(&wire.far.tx, PollFlags::OUT, LONG)? == PollFlags::OUT);
    quiet();
    take(&mut wire.near)?;
    wire.end()
}

/// Nothing tells that a frame has come back.
#[test]
fn completions_wake_nobody() -> Result<()> {
    let mut wire = Wire::new()?;
    send(&mut wire.far, &packets(1, 64))?;
    ensure!(soon(|| Ok(wire.near.rx.peek(1)?.count() == 1))?);
    quiet();
    ensure!(wait(&wire.far.socket, PollFlags::IN, SHORT)?.is_empty());
    completed(&mut wire.far, 1)?;
    wire.end()
}

/// An edge for each packet that comes, as asynchronous runtimes need it.
#[test]
fn epoll_tells_of_each_arrival() -> Result<()> {
    let mut wire = Wire::new()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let (data, flags) = (EventData::new_u64(7), EventFlags::IN | EventFlags::ET);
    epoll::add(&epoll, &wire.near.socket, data, flags)?;
    for _ in 0..5 {
        send(&mut wire.far, &packets(1, 64))?;
        let mut events = Vec::with_capacity(4);
        epoll::wait(&epoll, spare(&mut events), Some(&Timespec::try_from(LONG)?))?;
        ensure!(events.len() == 1 && events[0].data.u64() == 7);
        // Not read, and yet no second edge.
        events.clear();
        epoll::wait(&epoll, spare(&mut events), Some(&Timespec::try_from(SHORT)?))?;
        ensure!(events.is_empty());
        completed(&mut wire.far, 1)?;
    }
    ensure!(take(&mut wire.near)?.len() == 5);
    wire.end()
}

fn spare(events: &mut Vec<epoll::Event>) -> rustix::buffer::SpareCapacity<'_, epoll::Event> {
    rustix::buffer::spare_capacity(events)
}
