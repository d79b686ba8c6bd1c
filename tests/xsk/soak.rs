//! Every frame is accounted for while sockets come and go, batches are dropped and forgotten, and processes at the other
//! end are killed. For some seconds, or `OXDP_SOAK_SECONDS`.

use crate::lab::{Lab, duplex, packet, umem};
use crate::support::child;
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Bound, Packet, Prefill, Umem};
use oxdp::{Interface, Netns};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NETNS: &str = "OXDP_TEST_NETNS";
const SECONDS: &str = "OXDP_SOAK_SECONDS";
/// Rounds in which batches are forgotten, each of which costs a UMEM for ever.
const FORGETFUL: usize = 30;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

/// A process at the far end that sends and receives until it is killed.
struct Victim(Child);

impl Victim {
    fn start(lab: &Lab) -> Result<Self> {
        let mut command = child("soak::child_that_is_killed");
        command.env(NETNS, &lab.spaces.1.name).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "run by every_frame_is_accounted_for, and killed"]
fn child_that_is_killed() -> Result<()> {
    let netns = std::env::var(NETNS).context("run by another test")?;
    let far = Interface::by_name(&Netns::by_name(&netns)?, crate::lab::FAR)?;
    let umem = umem(512)?;
    let mut bound = duplex(&umem, &far, 0).bind()?;
    let mut number = 0;
    loop {
        drop(bound.rx.peek(64)?.collect::<Vec<_>>());
        bound.completion.drain(&mut umem.cache())?;
        bound.fill.fill(&mut umem.cache(), 64)?;
        let mut batch = bound.tx.reserve(16)?;
        while batch.left() > 0
            && let Some(frame) = umem.frame()
        {
            number += 1;
            batch.push(frame.into_packet_of(&packet(number, 60 + number % 200))?)?;
        }
        batch.commit();
        bound.tx.wake()?;
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// One round of traffic at the near end, with what a program may do with batches. How many frames it has forgotten.
fn play(near: &mut Bound, random: &mut Random, forgetful: bool) -> Result<u64> {
    let umem = near.socket.umem().clone();
    let before = umem.census().held;
    let mut kept: Vec<Packet> = Vec::new();
    for _ in 0..random.below(60) {
        match random.below(10) {
            0 => drop(near.rx.peek(random.below(20))?.next()),
            1 => kept.extend(near.rx.peek(8)?),
            2 => {
                let (mut fill, mut rx) = (near.fill.reserve(16)?, near.rx.peek(16)?);
                rx.recycle(&mut fill, |_| ());
                drop(rx);
                if random.below(2) == 0 {
                    fill.commit();
                }
            }
            3 => {
                let mut fill = near.fill.reserve(16)?;
                near.completion.peek(16)?.recycle(&mut fill);
                fill.commit();
            }
            4 => drop(near.completion.peek(3)?),
            5 => {
                near.completion.drain(&mut umem.cache())?;
            }
            6 => {
                near.fill.fill(&mut umem.cache(), 32)?;
            }
            7 => kept.truncate(kept.len() / 2),
            8 if forgetful => std::mem::forget(near.rx.peek(2)?),
            _ => echo(near, &mut kept, random.below(2) == 0)?,
        }
        near.tx.wake()?;
        near.fill.wake()?;
        std::thread::sleep(Duration::from_micros(200));
    }
    let census = umem.census();
    let forgotten = census.held - before - kept.len() as u64;
    ensure!(forgetful || forgotten == 0, "{census:?} with {} packets", kept.len());
    Ok(forgotten)
}

/// Sends what was kept, and a packet of its own; or nearly does.
fn echo(near: &mut Bound, kept: &mut Vec<Packet>, commit: bool) -> Result<()> {
    let own = near.socket.umem().frame().map(|frame| frame.into_packet(60)).transpose()?;
    let mut batch = near.tx.reserve(16)?;
    for packet in kept.drain(..).chain(own) {
        if batch.left() > 0 {
            batch.push(packet)?;
        }
    }
    if commit {
        batch.commit();
    }
    Ok(())
}

/// Bytes of this process in memory, and its open files.
fn footprint() -> Result<(u64, usize)> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let resident: u64 = statm.split(' ').nth(1).context("statm")?.parse()?;
    Ok((resident * 4096, std::fs::read_dir("/proc/self/fd")?.count()))
}

/// Sockets at the near end come and go on one UMEM; when there is none, all frames are free but those that were forgotten.
fn round(lab: &Lab, umem: &Umem, random: &mut Random, forgetful: bool) -> Result<()> {
    let mut forgotten = 0;
    for _ in 0..=random.below(4) {
        let prefill = Prefill::Frames(random.below(128));
        let mut near = duplex(umem, &lab.near, 0).prefill(prefill).bind()?;
        lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
        forgotten += play(&mut near, random, forgetful)?;
        let census = umem.census();
        ensure!(census.held == forgotten && census.written_off == 0, "{forgotten}, {census:?}");
    }
    let census = umem.census();
    let back = umem.reclaim();
    if forgotten > 0 {
        ensure!(back == 0 && umem.census().held == forgotten, "{forgotten}, {census:?}");
    } else {
        ensure!(back == census.in_kernel && umem.census().free == census.total, "{census:?}");
    }
    Ok(())
}

#[test]
fn every_frame_is_accounted_for() -> Result<()> {
    let seconds = std::env::var(SECONDS).map_or(Ok(4), |text| text.parse())?;
    let (start, lab, lasting) = (Instant::now(), Lab::new()?, umem(512)?);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    let (mut rounds, mut forgetful, mut killed) = (0_usize, 0, 0);
    let mut footprints = Vec::new();
    let mut victim = Some(Victim::start(&lab)?);
    while start.elapsed() < Duration::from_secs(seconds) {
        rounds += 1;
        round(&lab, &lasting, &mut random, false)?;
        if rounds % 4 == 0 && forgetful < FORGETFUL {
            forgetful += 1;
            round(&lab, &umem(256)?, &mut random, true)?;
        }
        if random.below(5) == 0 {
            killed += 1;
            drop(victim.take());
            footprints.push(footprint()?);
            victim = Some(Victim::start(&lab)?);
        }
    }
    drop(victim);
    println!("{rounds} rounds, {forgetful} forgetful ones, {killed} processes killed");
    steady(&footprints)?;
    // Both queues can be had again.
    drop(duplex(&lasting, &lab.near, 0).prefill(Prefill::Frames(1)).bind()?);
    drop(duplex(&lasting, &lab.far, 0).prefill(Prefill::Frames(1)).bind()?);
    ensure!(soon(|| Ok(lasting.reclaim() == 2))?, "{:?}", lasting.census());
    Ok(())
}

/// Nothing has grown since the first quarter but by what was forgotten.
fn steady(footprints: &[(u64, usize)]) -> Result<()> {
    let (Some(first), Some(last)) = (footprints.get(footprints.len() / 4), footprints.last())
    else {
        return Ok(());
    };
    let forgotten = FORGETFUL as u64 * 256 * 4096;
    ensure!(last.0 < first.0 + forgotten + (8 << 20), "memory: {footprints:?}");
    ensure!(last.1 == first.1, "descriptors: {footprints:?}");
    Ok(())
}
