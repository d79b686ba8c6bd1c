//! Packets of several fragments, since kernel 6.6; older ones refuse by name.

use crate::lab::{Duplex, Lab, Plan, Wire, completed, flush, refill, settled, too_old, umem};
use crate::raw::{Descriptor, Raw, Register, bind};
use crate::support::kernel;
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::ErrorKind;
use oxdp::xsk::{Chunks, Fragments, Packet, Refusal, Umem};
use rustix::net::xdp::SocketAddrXdpFlags;

/// A socket at each end for packets of several fragments; `None` on a kernel that is too old, which has said so.
fn wire_of(plan: Plan, umem: Umem) -> Result<Option<Wire>> {
    if kernel()? >= (6, 6) {
        let lab = Lab::with(plan)?;
        return Ok(Some(Wire::over(lab, umem, |builder| builder.multi_buffer(true))?));
    }
    let wire = Wire::over(Lab::new()?, umem, |builder: Duplex| builder.multi_buffer(true));
    let error = wire.unwrap_err();
    let error = error.downcast_ref::<oxdp::Error>().context("a named refusal")?;
    ensure!(too_old(error.kind()) == Some("6.6"), "{error}");
    Ok(None)
}

fn bytes(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / 256 + at * 3 + number * 7) & 0xfe).to_le_bytes()[0]).collect()
}

/// A packet of fragments of these lengths.
fn packet(umem: &Umem, number: usize, lengths: &[usize]) -> Result<(Fragments, Vec<u8>)> {
    let whole = bytes(number, lengths.iter().sum());
    let (mut fragments, mut rest) = (Vec::new(), &whole[..]);
    for length in lengths {
        let (first, behind) = rest.split_at(*length);
        fragments.push(umem.frame().context("a frame")?.into_packet_of(first)?);
        rest = behind;
    }
    Ok((Fragments::of(fragments).context("no fragment")?, whole))
}

fn send(wire: &mut Wire, packet: Fragments) -> Result<()> {
    let count = packet.count();
    let mut batch = wire.far.tx.reserve(u32::try_from(count)?)?;
    batch.push_fragments(packet)?;
    ensure!(batch.commit() as usize == count);
    flush(&wire.far)
}

/// So many whole packets, and of how many fragments each was.
fn receive(wire: &mut Wire, count: usize) -> Result<Vec<(usize, Vec<u8>)>> {
    let (mut got, mut filled) = (Vec::new(), 0);
    ensure!(soon(|| {
        for packet in wire.near.rx.packets(16)? {
            got.push((packet.count(), packet.to_vec()?));
        }
        let frames = got.iter().map(|(frames, _)| frames).sum::<usize>() - filled;
        filled += frames;
        refill(&mut wire.near, frames)?;
        Ok(got.len() >= count)
    })?);
    Ok(got)
}

fn goes_through(wire: &mut Wire, lengths: &[usize]) -> Result<()> {
    for number in 0..5 {
        let umem = wire.umem.clone();
        let (fragments, whole) = packet(&umem, number, lengths)?;
        send(wire, fragments)?;
        let got = receive(wire, 1)?;
        ensure!(got.len() == 1 && got[0].1 == whole, "{lengths:?}: {} bytes", got[0].1.len());
        completed(&mut wire.far, lengths.len())?;
        settled(&wire.umem)?;
    }
    Ok(())
}

#[test]
fn packets_of_nine_kilobytes_go_through() -> Result<()> {
    let Some(mut wire) = wire_of(Plan::fragments(), umem(2048)?)? else { return Ok(()) };
    ensure!(wire.far.socket.granted().max_fragments == 18);
    for lengths in [&[60][..], &[1514], &[3000, 3000, 3000], &[4096, 4096, 808], &[14, 8986]] {
        if lengths.iter().all(|length| *length <= 4096) {
            goes_through(&mut wire, lengths)?;
        }
    }
    wire.end()
}

/// A fragment can be short or long, also the first one.
#[test]
fn eighteen_fragments_are_the_most() -> Result<()> {
    let Some(mut wire) = wire_of(Plan::fragments(), umem(2048)?)? else { return Ok(()) };
    for count in [2, 3, 17, 18] {
        goes_through(&mut wire, &vec![500; count])?;
        goes_through(&mut wire, &vec![64; count])?;
    }
    let umem = wire.umem.clone();
    let before = umem.census();
    let (fragments, _) = packet(&umem, 0, &[64; 19])?;
    let mut batch = wire.far.tx.reserve(64)?;
    let rejected = batch.push_fragments(fragments).unwrap_err();
    ensure!(rejected.refusal == Refusal::TooManyFragments && rejected.item.count() == 19);
    drop(rejected);
    let (mut fragments, _) = packet(&umem, 0, &[64; 3])?;
    fragments.iter_mut().nth(1).context("a second one")?.set_len(0)?;
    let rejected = batch.push_fragments(fragments).unwrap_err();
    ensure!(rejected.refusal == Refusal::Empty && rejected.item.count() == 3);
    drop((rejected, batch));
    // All of it or nothing.
    let mut batch = wire.far.tx.reserve(2)?;
    let rejected = batch.push_fragments(packet(&umem, 0, &[64; 3])?.0).unwrap_err();
    ensure!(rejected.refusal == Refusal::Full && batch.left() == 2 && rejected.item.count() == 3);
    drop((rejected, batch));
    ensure!(umem.census().free == before.free, "{before:?}, then {:?}", umem.census());
    ensure!(wire.far.socket.statistics()?.tx_invalid_descriptors == 0);
    goes_through(&mut wire, &[500; 18])?;
    wire.end()
}

/// More than the TX ring has slots, and round the rings.
#[test]
fn many_packets_of_fragments_keep_their_order() -> Result<()> {
    let Some(mut wire) = wire_of(Plan::fragments(), umem(2048)?)? else { return Ok(()) };
    let umem = wire.umem.clone();
    for round in 0..30 {
        let mut sent = Vec::new();
        let mut slots = 0;
        for number in 0..8 {
            let lengths = vec![700 + number * 100; 1 + (round + number) % 6];
            let (fragments, whole) = packet(&umem, round * 8 + number, &lengths)?;
            slots += lengths.len();
            send(&mut wire, fragments)?;
            sent.push(whole);
        }
        let got: Vec<_> = receive(&mut wire, 8)?.into_iter().map(|(_, whole)| whole).collect();
        ensure!(got == sent);
        completed(&mut wire.far, slots)?;
    }
    wire.end()
}

#[test]
fn fragments_lie_in_unaligned_chunks_too() -> Result<()> {
    let builder = Umem::builder().frames(2048).chunks(Chunks::Unaligned).chunk_size(3000);
    let Some(mut wire) = wire_of(Plan::fragments(), builder.build()?)? else { return Ok(()) };
    goes_through(&mut wire, &[3000, 3000, 3000])?;
    goes_through(&mut wire, &[100; 18])?;
    wire.end()
}

/// `packets` gives at most as many as are asked for, and the rest later; what is single is a packet of one.
#[test]
fn packets_are_given_whole() -> Result<()> {
    let Some(mut wire) = wire_of(Plan::fragments(), umem(2048)?)? else { return Ok(()) };
    let error = wire.near.rx.peek(1).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::MultiBuffer), "{error}");
    let umem = wire.umem.clone();
    for lengths in [&[4000, 4000][..], &[60], &[3000, 3000, 2000]] {
        send(&mut wire, packet(&umem, 0, lengths)?.0)?;
    }
    completed(&mut wire.far, 6)?;
    ensure!(soon(|| Ok(!wire.near.rx.is_empty()?))?);
    crate::lab::quiet();
    let mut sizes = Vec::new();
    while let Some(packet) = wire.near.rx.packets(1)?.next() {
        sizes.push(packet.len());
    }
    ensure!(sizes == [8000, 60, 8000], "{sizes:?}");
    wire.end()
}

/// A packet with more fragments than the RX ring has slots, or fill ring frames, is dropped as a whole.
#[test]
fn no_part_of_a_packet_is_received() -> Result<()> {
    let umem = umem(2048)?;
    if wire_of(Plan::fragments(), umem.clone())?.is_none() {
        return Ok(());
    }
    let shape = |builder: Duplex| builder.multi_buffer(true).rx(2);
    let mut wire = Wire::over(Lab::with(Plan::fragments())?, umem.clone(), shape)?;
    send(&mut wire, packet(&umem, 0, &[3000, 3000, 3000])?.0)?;
    completed(&mut wire.far, 3)?;
    ensure!(soon(|| Ok(wire.near.socket.statistics()?.rx_ring_full > Some(0)))?);
    ensure!(wire.near.rx.is_empty()?);
    goes_through(&mut wire, &[1000, 1000])?;
    let Wire { near, far, .. } = wire;
    drop((near, far));
    Ok(())
}

/// Without the flag a socket sends packets of one fragment, and receives what fits into one frame.
#[test]
fn without_multi_buffer_a_packet_is_one_frame() -> Result<()> {
    let mut wire = Wire::new()?;
    ensure!(wire.far.socket.granted().max_fragments == 1);
    let umem = wire.umem.clone();
    let (fragments, _) = packet(&umem, 0, &[100, 100])?;
    let mut batch = wire.far.tx.reserve(4)?;
    let rejected = batch.push_fragments(fragments).unwrap_err();
    ensure!(rejected.refusal == Refusal::NoMultiBuffer);
    drop((rejected, batch));
    let (single, whole) = packet(&umem, 1, &[100])?;
    send(&mut wire, single)?;
    ensure!(receive(&mut wire, 1)? == [(1, whole)]);
    completed(&mut wire.far, 1)?;
    wire.end()
}

/// A socket that shares a queue has multi-buffer if the first one has.
#[test]
fn a_sharing_socket_takes_over_multi_buffer() -> Result<()> {
    let Some(wire) = wire_of(Plan::fragments(), umem(2048)?)? else { return Ok(()) };
    let mut second = wire.near.socket.share().rx(64).tx(64).bind()?;
    ensure!(second.socket.granted().max_fragments == 18 && second.rx.peek(1).is_err());
    drop(second);
    wire.end()
}

/// Shortened by the program, by whole fragments too.
#[test]
fn packets_of_fragments_are_as_long_as_the_program_leaves_them() -> Result<()> {
    for less in [100, 5000] {
        let plan = Plan {
            object: "xsk_change.o",
            program: "xsk_tail_frags",
            global: Some(("tail", -less)),
            ..Plan::fragments()
        };
        let Some(mut wire) = wire_of(plan, umem(2048)?)? else { return Ok(()) };
        let umem = wire.umem.clone();
        let (fragments, mut whole) = packet(&umem, 0, &[3000, 3000, 3000])?;
        send(&mut wire, fragments)?;
        let got = receive(&mut wire, 1)?;
        whole.truncate(9000 - less.unsigned_abs() as usize);
        ensure!(got.len() == 1 && got[0].1 == whole, "{less}: {} bytes", got[0].1.len());
        completed(&mut wire.far, 3)?;
        wire.end()?;
    }
    Ok(())
}

/// What the library refuses the kernel drops as a whole, and goes on with the next packet.
#[test]
fn the_kernel_drops_packets_with_a_bad_fragment() -> Result<()> {
    let Some(wire) = wire_of(Plan::fragments(), umem(1024)?)? else { return Ok(()) };
    let Wire { mut near, far, umem, lab } = wire;
    drop(far);
    let raw = Raw::new(&lab.far, &Register::default())?;
    let flags = SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_SG;
    ensure!(soon(|| Ok(bind(&raw.fd, &lab.far, 0, flags).is_ok()))?);
    let fragment = |frame: u64, length, more: bool| Descriptor {
        address: frame * 4096,
        length,
        options: more.into(),
    };
    let bad: [Vec<Descriptor>; 4] = [
        vec![fragment(1, 100, true), fragment(2, 0, false)],
        vec![fragment(1, 100, true), fragment(64, 100, true), fragment(2, 100, false)],
        vec![fragment(1, 100, true), fragment(2, 4097, false)],
        (0..19).map(|number| fragment(number + 1, 60, number < 18)).collect(),
    ];
    let mut invalid = 0;
    for packet in bad {
        let slots = packet.len() + 1;
        for descriptor in packet {
            raw.tx.push(descriptor);
        }
        raw.tx.push(fragment(0, 77, false));
        ensure!(soon(|| {
            let _ = raw.kick();
            Ok(raw.tx.consumer() == raw.tx.producer())
        })?);
        let mut got = Vec::new();
        ensure!(soon(|| {
            got.extend(near.rx.packets(16)?);
            Ok(!got.is_empty())
        })?);
        crate::lab::quiet();
        got.extend(near.rx.packets(16)?);
        let lengths: Vec<Vec<_>> =
            got.iter().map(|packet| packet.iter().map(Packet::len).collect()).collect();
        ensure!(lengths == [[77]], "{lengths:?}");
        // All frames come back since 6.18; before, some of them.
        let back = raw.completions();
        println!("{} of {slots} frames came back: {back:?}", back.len());
        ensure!(back.contains(&0) && (back.len() == slots || kernel()? < (6, 18)), "{back:?}");
        ensure!(raw.statistics()?.tx_invalid_descs > invalid);
        invalid = raw.statistics()?.tx_invalid_descs;
    }
    drop((raw, near));
    drop(umem);
    Ok(())
}
