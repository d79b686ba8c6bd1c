//! One UMEM for several sockets: on the same queue, on another, on another device, in another namespace.

use crate::lab::{
    Duplex, FAR, Lab, NEAR, Plan, WINDOW, Wire, carry, completed, duplex, packets, program, quiet,
    reclaimed, send, settled, take, umem, wire,
};
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Packet, Prefill, Socket};
use oxdp::{Interface, Mode};

/// Two sockets on one queue, each with what the program gives it; the frames of both come from one fill ring.
#[test]
fn two_sockets_share_a_queue_and_its_frames() -> Result<()> {
    let lab = Lab::with(Plan { program: "xsk_spread", ..Plan::default() })?;
    let mut wire = Wire::over(lab, umem(1024)?, |builder| builder)?;
    let mut second = wire.near.socket.share().rx(64).tx(64).bind()?;
    wire.lab.near_program.map("xsks")?.set_socket(1, &second.socket)?;
    ensure!(second.socket.queue() == 0 && second.socket.granted().prefilled == 0);
    for _ in 0..20 {
        let sent = packets(WINDOW, 64);
        send(&mut wire.far, &sent)?;
        completed(&mut wire.far, WINDOW)?;
        let (mut even, mut odd) = (Vec::new(), Vec::new());
        ensure!(soon(|| {
            even.extend(take(&mut wire.near)?);
            for packet in second.rx.peek(64)? {
                odd.push(packet.data()?.to_vec());
            }
            Ok(even.len() + odd.len() == WINDOW)
        })?);
        let half = |first: usize| sent.iter().skip(first).step_by(2).cloned().collect::<Vec<_>>();
        ensure!(even == half(0) && odd == half(1));
        crate::lab::refill(&mut wire.near, WINDOW / 2)?;
    }
    drop(second);
    wire.end()
}

/// What the second socket sends comes back in the first one's completion ring, and nowhere else.
#[test]
fn completions_come_to_who_has_the_ring() -> Result<()> {
    let mut wire = Wire::new()?;
    let mut second = wire.near.socket.share().tx(64).bind()?;
    let sent = packets(20, 64);
    let mut batch = second.tx.reserve(20)?;
    for bytes in &sent {
        batch.push(wire.umem.frame().context("a frame")?.into_packet_of(bytes)?)?;
    }
    batch.commit();
    ensure!(soon(|| {
        second.tx.wake()?;
        Ok(second.tx.pending() == 0)
    })?);
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(take(&mut wire.far)?);
        Ok(got.len() == 20)
    })?);
    ensure!(got == sent);
    completed(&mut wire.near, 20)?;
    // The first one sends all the same.
    send(&mut wire.near, &sent)?;
    completed(&mut wire.near, 20)?;
    drop(second);
    quiet();
    ensure!(take(&mut wire.far)?.len() == 20);
    wire.end()
}

/// The queue stays in use until the last of them has gone; then it can be had at once.
#[test]
fn a_shared_queue_is_free_when_the_last_socket_goes() -> Result<()> {
    let mut wire = Wire::new()?;
    let second = wire.near.socket.share().rx(64).bind()?;
    wire.works(&packets(5, 64))?;
    let Wire { near, mut far, umem, lab } = wire;
    drop(near);
    let again = duplex(&umem, &lab.near, 0).bind_retry(std::time::Duration::ZERO);
    let error = again.prefill(Prefill::Frames(0)).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::EBUSY) && error.to_string().contains("another socket"));
    drop(second);
    let mut near = duplex(&umem, &lab.near, 0).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    let sent = packets(50, 64);
    ensure!(carry(&mut far, &mut near, &sent)? == sent);
    drop((near, far));
    reclaimed(&umem)
}

/// Each queue has its own rings, and only the frames are shared.
#[test]
fn sockets_on_two_queues_share_frames() -> Result<()> {
    let lab = Lab::with(Plan { queues: 2, ..Plan::default() })?;
    let mut wire = Wire::over(lab, umem(2048)?, |builder| builder)?;
    let mut near = duplex(&wire.umem, &wire.lab.near, 1).bind()?;
    let mut far = duplex(&wire.umem, &wire.lab.far, 1).bind()?;
    wire.lab.near_program.map("xsks")?.set_socket(1, &near.socket)?;
    for _ in 0..5 {
        let sent = packets(WINDOW, 100);
        ensure!(carry(&mut far, &mut near, &sent)? == sent);
        wire.works(&packets(WINDOW, 200))?;
        settled(&wire.umem)?;
    }
    drop((near, far));
    wire.end()
}

/// A packet goes from one device to another in the frame that it came in.
#[test]
fn sockets_on_two_devices_pass_frames_on() -> Result<()> {
    let mut first = Wire::over(Lab::new()?, umem(2048)?, |builder| builder)?;
    let spaces = &first.lab.spaces;
    wire(spaces, ("near2", "far2"), 1)?;
    let near2 = Interface::by_name(&spaces.0.netns, "near2")?;
    let far2 = Interface::by_name(&spaces.1.netns, "far2")?;
    let mut redirect = program("xsk_redirect.o", "xsk_redirect")?;
    first.lab.xdp.attach(&far2, &mut redirect, Mode::Native)?;
    let mut near = duplex(&first.umem, &near2, 0).bind()?;
    let mut far = duplex(&first.umem, &far2, 0).bind()?;
    redirect.map("xsks")?.set_socket(0, &far.socket)?;
    let sent = packets(20, 64);
    send(&mut first.far, &sent)?;
    let mut passed = 0;
    ensure!(soon(|| {
        let mut batch = near.tx.reserve(64)?;
        for packet in first.near.rx.peek(64)? {
            batch.push(packet)?;
        }
        passed += batch.commit();
        Ok(passed == 20)
    })?);
    crate::lab::flush(&near)?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(take(&mut far)?);
        Ok(got.len() == 20)
    })?);
    ensure!(got == sent);
    completed(&mut near, 20)?;
    completed(&mut first.far, 20)?;
    drop((near, far));
    first.end()
}

/// The socket that came first can go like any other: the next one shares through one that is left, or registers anew.
#[test]
fn the_first_socket_can_go_first() -> Result<()> {
    let lab = Lab::with(Plan { queues: 3, ..Plan::default() })?;
    let umem = umem(2048)?;
    let first = duplex(&umem, &lab.near, 0).prefill(Prefill::Frames(64)).bind()?;
    let second = duplex(&umem, &lab.near, 1).prefill(Prefill::Frames(64)).bind()?;
    drop(first);
    // Through the second one.
    let mut third = duplex(&umem, &lab.near, 0).prefill(Prefill::Frames(64)).bind()?;
    drop(second);
    // Through the third one, which has registered nothing itself.
    let mut fourth = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(64)).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &third.socket)?;
    lab.far_program.map("xsks")?.set_socket(0, &fourth.socket)?;
    let sent = packets(100, 64);
    ensure!(carry(&mut fourth, &mut third, &sent)? == sent);
    ensure!(carry(&mut third, &mut fourth, &sent)? == sent);
    settled(&umem)?;
    drop((third, fourth));
    reclaimed(&umem)?;
    // Nobody is left.
    drop(duplex(&umem, &lab.near, 2).bind()?);
    reclaimed(&umem)
}

/// Sockets that want something else than those there are register the memory for themselves.
#[test]
fn sockets_of_other_settings_use_the_same_memory() -> Result<()> {
    let lab = Lab::with(Plan { queues: 2, ..Plan::default() })?;
    let umem = umem(2048)?;
    let mut near = duplex(&umem, &lab.near, 0).bind()?;
    let mut far = duplex(&umem, &lab.far, 0).need_wakeup(false).bind()?;
    // In copy mode the kernel must be called all the same, and says so.
    ensure!(near.tx.needs_wakeup() && far.tx.needs_wakeup());
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    let mut batch = far.tx.reserve(3)?;
    for bytes in packets(3, 64) {
        batch.push(umem.frame().context("a frame")?.into_packet_of(&bytes)?)?;
    }
    batch.commit();
    let mut got = Vec::new();
    ensure!(soon(|| {
        far.tx.wake()?;
        got.extend(take(&mut near)?);
        Ok(got.len() == 3)
    })?);
    ensure!(got == packets(3, 64));
    completed(&mut far, 3)?;
    drop((near, far));
    reclaimed(&umem)
}

/// A socket only sends, or only receives; its rings are what it has.
#[test]
fn a_socket_can_have_one_end() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    let mut near = Socket::builder(&umem, &lab.near, 0).rx(64).fill(64).bind()?;
    let mut far = Socket::builder(&umem, &lab.far, 0).tx(64).completion(64).bind()?;
    let ((), ()) = (near.tx, far.rx);
    ensure!(far.socket.granted().prefilled <= 64);
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    let mut batch = far.tx.reserve(5)?;
    for bytes in packets(5, 64) {
        batch.push(umem.frame().context("a frame")?.into_packet_of(&bytes)?)?;
    }
    batch.commit();
    far.tx.wake()?;
    let mut got: Vec<Packet> = Vec::new();
    ensure!(soon(|| {
        got.extend(near.rx.peek(64)?);
        Ok(got.len() == 5)
    })?);
    let mut fill = near.fill.reserve(64)?;
    for (packet, sent) in got.into_iter().zip(packets(5, 64)) {
        ensure!(packet.data()? == sent);
        fill.push(packet)?;
    }
    ensure!(fill.commit() == 5);
    ensure!(soon(|| Ok(far.completion.peek(64)?.len() == 5))?);
    ensure!(far.completion.drain(&mut umem.cache())? == 5);
    settled(&umem)?;
    drop((near.rx, near.fill, near.completion, near.socket));
    drop((far.tx, far.fill, far.completion, far.socket));
    reclaimed(&umem)
}

/// Frames of one UMEM are not taken by the rings of another.
#[test]
fn frames_stay_with_their_umem() -> Result<()> {
    let mut wire = Wire::new()?;
    let other = umem(16)?;
    let frame = || other.frame().context("a frame");
    let refusal = oxdp::xsk::Refusal::OtherUmem;
    let rejected = wire.near.fill.reserve(1)?.push(frame()?).unwrap_err();
    ensure!(rejected.refusal == refusal);
    let packet = rejected.item.into_packet(60)?;
    let rejected = wire.near.tx.reserve(1)?.push(packet).unwrap_err();
    ensure!(rejected.refusal == refusal);
    ensure!(wire.near.fill.reserve(1)?.push(rejected.item).unwrap_err().refusal == refusal);
    wire.umem.cache().put(frame()?);
    ensure!(other.census().free == 16, "{:?}", other.census());
    let shape = |builder: Duplex| builder.rx(16).tx(16).fill(16).completion(16);
    let mut apart = Wire::over(Lab::new()?, umem(64)?, shape)?;
    send(&mut apart.far, &packets(3, 64))?;
    ensure!(soon(|| Ok(apart.near.rx.peek(3)?.len() == 3))?);
    let mut fill = wire.near.fill.reserve(8)?;
    ensure!(apart.near.rx.peek(3)?.recycle(&mut fill, |_| ()) == 0);
    ensure!(soon(|| Ok(apart.far.completion.peek(3)?.len() == 3))?);
    ensure!(apart.far.completion.peek(3)?.recycle(&mut fill) == 0);
    drop(fill);
    ensure!(take(&mut apart.near)? == packets(3, 64));
    completed(&mut apart.far, 3)?;
    apart.end()?;
    wire.end()
}

/// Interfaces of the same number and name in two namespaces are two.
#[test]
fn the_namespace_of_the_interface_decides() -> Result<()> {
    let (one, two) = (Lab::new()?, Lab::new()?);
    ensure!(one.near.index() == two.near.index() && NEAR != FAR);
    let mut one = Wire::over(one, umem(2048)?, |builder| builder)?;
    let shared = one.umem.clone();
    let mut two = Wire::over(two, shared, |builder| builder)?;
    one.works(&packets(10, 64))?;
    two.works(&packets(20, 64))?;
    settled(&one.umem)?;
    let Wire { near, far, .. } = two;
    drop((near, far));
    one.end()
}
