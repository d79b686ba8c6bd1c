//! Packets go from one end to the other, all of them and unchanged.

use crate::lab::{
    Lab, Plan, WINDOW, Wire, carry, completed, duplex, packet, packets, program, quiet, reclaimed,
    refill, send, settled, take, umem,
};
use crate::support::id;
use crate::support::lab::soon;
use anyhow::{Result, ensure};
use oxdp::Mode;
use oxdp::xsk::{Prefill, Umem, XDP_PACKET_HEADROOM};

/// From a bare Ethernet header to what the interface takes, with a VLAN tag.
#[test]
fn packets_of_every_size_arrive() -> Result<()> {
    let mut wire = Wire::new()?;
    for length in [14, 15, 59, 60, 61, 64, 65, 127, 128, 511, 1024, 1500, 1514, 1518] {
        wire.works(&packets(5, length))?;
    }
    wire.end()
}

/// What fits into a frame behind the kernel's headroom is received, and one byte more is not.
#[test]
fn a_packet_fills_a_frame() -> Result<()> {
    let lab = Lab::with(Plan { mtu: 3000, ..Plan::default() })?;
    let umem = Umem::builder().frames(1024).chunk_size(2048).build()?;
    let mut wire = Wire::over(lab, umem, |builder| builder)?;
    let most = 2048 - XDP_PACKET_HEADROOM as usize;
    wire.works(&packets(3, most))?;
    for length in [most + 1, 2048] {
        let before = wire.near.socket.statistics()?.rx_dropped;
        send(&mut wire.far, &packets(2, length))?;
        ensure!(soon(|| Ok(wire.near.socket.statistics()?.rx_dropped == before + 2))?);
        completed(&mut wire.far, 2)?;
    }
    ensure!(take(&mut wire.near)?.is_empty());
    wire.works(&packets(3, most))?;
    wire.end()
}

/// Every slot of every ring is used many times over.
#[test]
fn bursts_go_round_the_rings() -> Result<()> {
    let shape = |builder: crate::lab::Duplex| builder.rx(64).tx(32).fill(64).completion(32);
    let mut wire = Wire::over(Lab::new()?, umem(256)?, shape)?;
    wire.works(&packets(2000, 64))?;
    wire.end()
}

#[test]
fn packets_go_both_ways() -> Result<()> {
    let mut wire = Wire::new()?;
    let (there, back) = (packets(WINDOW, 100), packets(WINDOW, 200));
    for _ in 0..10 {
        send(&mut wire.far, &there)?;
        send(&mut wire.near, &back)?;
        let (mut near, mut far) = (Vec::new(), Vec::new());
        ensure!(soon(|| {
            near.extend(take(&mut wire.near)?);
            far.extend(take(&mut wire.far)?);
            Ok(near.len() == WINDOW && far.len() == WINDOW)
        })?);
        ensure!(near == there && far == back);
        completed(&mut wire.far, WINDOW)?;
        completed(&mut wire.near, WINDOW)?;
    }
    wire.end()
}

/// A received packet goes out again in the frame that it came in, and is read there: nothing is copied.
#[test]
fn a_received_packet_is_sent_back_as_it_is() -> Result<()> {
    let mut wire = Wire::new()?;
    let sent = packets(20, 300);
    send(&mut wire.far, &sent)?;
    let mut echoed = 0;
    ensure!(soon(|| {
        let mut batch = wire.near.tx.reserve(64)?;
        for mut packet in wire.near.rx.peek(64)? {
            packet.trim_front(2)?;
            packet.extend_front(4)?;
            packet.data_mut()?[..4].copy_from_slice(&[2, 4, 6, 8]);
            batch.push(packet)?;
        }
        echoed += batch.commit();
        Ok(echoed == 20)
    })?);
    crate::lab::flush(&wire.near)?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(take(&mut wire.far)?);
        Ok(got.len() == 20)
    })?);
    for (sent, got) in sent.iter().zip(&got) {
        ensure!(got[..4] == [2, 4, 6, 8] && got[4..] == sent[2..]);
    }
    completed(&mut wire.near, 20)?;
    completed(&mut wire.far, 20)?;
    refill(&mut wire.near, 20)?;
    wire.end()
}

/// The frames of what was received go back to the fill ring, and those of what was sent too, without a token.
#[test]
fn recycled_frames_receive_again() -> Result<()> {
    let shape = |builder: crate::lab::Duplex| builder.fill(64).prefill(Prefill::Frames(32));
    let mut wire = Wire::over(Lab::new()?, umem(256)?, shape)?;
    let sent = packets(WINDOW, 80);
    for _ in 0..20 {
        send(&mut wire.far, &sent)?;
        let mut got = Vec::new();
        ensure!(soon(|| {
            let mut fill = wire.near.fill.reserve(64)?;
            let mut batch = wire.near.rx.peek(64)?;
            batch.recycle(&mut fill, |packet| got.push(packet.data().map(<[u8]>::to_vec)));
            drop(batch);
            fill.commit();
            Ok(got.len() == WINDOW)
        })?);
        ensure!(got.into_iter().collect::<Result<Vec<_>, _>>()? == sent);
        // They go to the far end's fill ring until that is full.
        let mut back = 0;
        ensure!(soon(|| {
            let mut fill = wire.far.fill.reserve(64)?;
            back += wire.far.completion.peek(64)?.recycle(&mut fill);
            fill.commit();
            if wire.far.fill.reserve(1)?.left() == 0 {
                back += wire.far.completion.drain(&mut wire.umem.cache())?;
            }
            Ok(back as usize == WINDOW)
        })?);
        settled(&wire.umem)?;
    }
    wire.end()
}

/// The kernel's 256 bytes and the UMEM's own are before each packet.
#[test]
fn headroom_is_before_each_packet() -> Result<()> {
    let headroom = 128;
    let umem = Umem::builder().frames(1024).headroom(headroom).build()?;
    let mut wire = Wire::over(Lab::new()?, umem, |builder| builder)?;
    send(&mut wire.far, &packets(5, 100))?;
    let mut got = 0;
    ensure!(soon(|| {
        for mut packet in wire.near.rx.peek(64)? {
            let front = XDP_PACKET_HEADROOM + headroom;
            ensure!(packet.headroom()? == front, "{}", packet.headroom()?);
            ensure!(packet.tailroom()? == 4096 - front - 100);
            ensure!(packet.data()? == crate::lab::packet(got, 100));
            packet.extend_front(front)?;
            ensure!(packet.extend_front(1).is_err() && packet.len() == front + 100);
            got += 1;
        }
        Ok(got == 5)
    })?);
    completed(&mut wire.far, 5)?;
    wire.end()
}

#[test]
fn sockets_are_bound_and_closed_again_and_again() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    for round in 0..20 {
        let mut near = duplex(&umem, &lab.near, 0).bind()?;
        let mut far = duplex(&umem, &lab.far, 0).bind()?;
        lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
        let sent = packets(5, 60 + round);
        ensure!(carry(&mut far, &mut near, &sent)? == sent);
        settled(&umem)?;
        drop((near, far));
        reclaimed(&umem)?;
    }
    ensure!(std::fs::read_dir("/proc/self/fd")?.count() == descriptors);
    Ok(())
}

/// Sockets outlive the programs that feed them: they get nothing without one, and everything from the next.
#[test]
fn another_program_feeds_the_same_sockets() -> Result<()> {
    let mut wire = Wire::new()?;
    wire.works(&packets(10, 70))?;
    wire.lab.xdp.detach(&wire.lab.near, id(&wire.lab.near_program))?;
    send(&mut wire.far, &packets(10, 70))?;
    completed(&mut wire.far, 10)?;
    quiet();
    ensure!(take(&mut wire.near)?.is_empty());
    for function in ["xsk_redirect", "xsk_half"] {
        let mut next = program("xsk_redirect.o", function)?;
        wire.lab.xdp.attach(&wire.lab.near, &mut next, Mode::Native)?;
        next.map("xsks")?.set_socket(0, &wire.near.socket)?;
        match function {
            "xsk_half" => half_comes(&mut wire, 20)?,
            _ => wire.works(&packets(10, 70))?,
        }
        wire.lab.xdp.detach(&wire.lab.near, id(&next))?;
    }
    wire.end()
}

#[test]
fn half_is_dropped_by_the_program() -> Result<()> {
    let lab = Lab::with(Plan { program: "xsk_half", ..Plan::default() })?;
    let mut wire = Wire::over(lab, umem(1024)?, |builder| builder)?;
    half_comes(&mut wire, WINDOW)?;
    wire.end()
}

/// The first, the third, and so on.
fn half_comes(wire: &mut Wire, count: usize) -> Result<()> {
    let sent = packets(count, 90);
    send(&mut wire.far, &sent)?;
    let mut got = Vec::new();
    completed(&mut wire.far, count)?;
    ensure!(soon(|| {
        got.extend(take(&mut wire.near)?);
        Ok(got.len() >= count / 2)
    })?);
    quiet();
    got.extend(take(&mut wire.near)?);
    let half: Vec<_> = sent.into_iter().step_by(2).collect();
    ensure!(got == half, "{} packets of {count}", got.len());
    Ok(())
}

/// What the program takes away is not seen. (How much it could add is the driver's affair: veth has room by chance.)
#[test]
fn packets_are_as_long_as_the_program_leaves_them() -> Result<()> {
    for change in [-30, -70] {
        let plan = Plan {
            object: "xsk_change.o",
            program: "xsk_tail",
            global: Some(("tail", change)),
            ..Plan::default()
        };
        let mut wire = Wire::over(Lab::with(plan)?, umem(1024)?, |builder| builder)?;
        let got = wire.receive(&packets(10, 100))?;
        for (number, got) in got.iter().enumerate() {
            let mut expected = packet(number, 100);
            expected.truncate(100_usize.saturating_add_signed(change as isize));
            ensure!(*got == expected, "{change}: {got:?}");
        }
        wire.end()?;
    }
    Ok(())
}
