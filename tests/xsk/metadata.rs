//! What stands before packets: from the XDP program for who receives, and from who sends for the device.

use crate::lab::{
    Lab, Plan, Wire, completed, duplex, flush, packets, reclaimed, send, take, too_old, umem,
};
use crate::raw::{Descriptor, Raw, Register, bind};
use crate::support::kernel;
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Fragments, Packet, Refusal, RxMetadata, TxMetadata, Umem};
use rustix::io::Errno;
use rustix::net::xdp::SocketAddrXdpFlags;

/// As tests/bpf/xsk_redirect.c has it.
#[derive(Debug, PartialEq)]
struct Mark {
    length: u32,
}

impl RxMetadata for Mark {
    const LENGTH: u32 = 8;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        (word(4)? == 0x6f78_6470).then_some(Self { length: word(0)? })
    }
}

fn one(wire: &mut Wire) -> Result<Packet> {
    let mut got = None;
    ensure!(soon(|| {
        got = wire.near.rx.peek(1)?.next();
        Ok(got.is_some())
    })?);
    got.context("a packet")
}

#[test]
fn what_the_program_writes_is_before_the_packet() -> Result<()> {
    let lab = Lab::with(Plan { program: "xsk_mark", ..Plan::default() })?;
    let mut wire = Wire::over(lab, umem(1024)?, |builder| builder)?;
    for length in [60, 61, 1000] {
        send(&mut wire.far, &packets(1, length))?;
        let packet = one(&mut wire)?;
        ensure!(packet.data()? == packets(1, length)[0]);
        let mark = packet.rx_metadata::<Mark>()?;
        ensure!(mark == Some(Mark { length: u32::try_from(length)? }), "{mark:?}");
        completed(&mut wire.far, 1)?;
    }
    wire.end()
}

/// Whatever else is there is not taken for it.
#[test]
fn metadata_that_nobody_wrote_is_none() -> Result<()> {
    let mut wire = Wire::new()?;
    send(&mut wire.far, &packets(1, 60))?;
    let mut packet = one(&mut wire)?;
    ensure!(packet.rx_metadata::<Mark>()?.is_none());
    // No room.
    let front = packet.headroom()?;
    packet.extend_front(front - 7)?;
    ensure!(packet.rx_metadata::<Mark>()?.is_none());
    drop(packet);
    completed(&mut wire.far, 1)?;
    wire.end()
}

/// Before the first fragment.
#[test]
fn packets_of_fragments_have_metadata_too() -> Result<()> {
    if kernel()? < (6, 6) {
        let (lab, umem) = (Lab::new()?, umem(256)?);
        let error = duplex(&umem, &lab.near, 0).multi_buffer(true).bind().unwrap_err();
        ensure!(too_old(error.kind()) == Some("6.6"), "{error}");
        return Ok(());
    }
    let plan = Plan { object: "xsk_change.o", program: "xsk_mark_frags", ..Plan::fragments() };
    let mut wire = Wire::over(Lab::with(plan)?, umem(1024)?, |builder| builder.multi_buffer(true))?;
    let mut fragments = Vec::new();
    for bytes in packets(3, 3000) {
        fragments.push(wire.umem.frame().context("a frame")?.into_packet_of(&bytes)?);
    }
    let mut batch = wire.far.tx.reserve(3)?;
    batch.push_fragments(Fragments::of(fragments).context("no fragment")?)?;
    batch.commit();
    flush(&wire.far)?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(wire.near.rx.packets(1)?);
        Ok(!got.is_empty())
    })?);
    let first = got[0].first();
    let mark = first.rx_metadata::<Mark>()?.context("a mark")?;
    // What was linear when the program ran; the kernel cuts it to frames as it likes.
    ensure!(mark.length >= 14 && got[0].len() == 9000, "{mark:?}");
    ensure!(got[0].count() >= 3 && first.headroom()? == 256);
    drop(got);
    completed(&mut wire.far, 3)?;
    wire.end()
}

/// A lab whose UMEM has room for TX metadata; `None` on a kernel that is too old, which has said so.
fn sending() -> Result<Option<Wire>> {
    let umem = Umem::builder().frames(1024).tx_metadata(24).build()?;
    ensure!(umem.tx_metadata_length() == 24);
    let lab = Lab::new()?;
    if kernel()? < (6, 8) {
        let error = duplex(&umem, &lab.far, 0).bind().unwrap_err();
        ensure!(too_old(error.kind()) == Some("6.8"), "{error}");
        let plain = crate::lab::umem(256)?;
        let error = duplex(&plain, &lab.far, 0).software_checksum(true).bind().unwrap_err();
        ensure!(too_old(error.kind()) == Some("6.8"), "{error}");
        return Ok(None);
    }
    Ok(Some(Wire::over(lab, umem, |builder| builder.software_checksum(true))?))
}

fn push(wire: &mut Wire, packet: Packet) -> Result<()> {
    let mut batch = wire.far.tx.reserve(1)?;
    batch.push(packet)?;
    ensure!(batch.commit() == 1);
    flush(&wire.far)
}

/// Sixteen-bit words, added in ones' complement.
fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum: u16, word| {
        let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[test]
fn the_kernel_computes_checksums_in_software() -> Result<()> {
    let Some(mut wire) = sending()? else { return Ok(()) };
    for length in [60, 61, 1400] {
        let mut bytes = packets(1, length).remove(0);
        // Where UDP has its checksum; the sum of a pseudo header stands there.
        let (start, offset, at) = (34, 6, 40..42);
        bytes[at.clone()].copy_from_slice(&[0x12, 0x34]);
        let mut packet = wire.umem.frame().context("a frame")?.into_packet_of(&bytes)?;
        ensure!(packet.headroom()? == 24);
        packet.set_tx_metadata(&TxMetadata::new().checksum(start, offset))?;
        push(&mut wire, packet)?;
        let mut expected = bytes.clone();
        let checksum = !sum(&bytes[start.into()..]);
        expected[at].copy_from_slice(&checksum.to_be_bytes());
        let got = one(&mut wire)?;
        ensure!(got.data()? == expected, "{length}: {:?}, not {expected:?}", got.data()?);
        completed(&mut wire.far, 1)?;
    }
    // What asks for nothing is not touched.
    wire.works(&packets(10, 100))?;
    wire.end()
}

#[test]
fn the_kernel_tells_when_a_packet_was_sent() -> Result<()> {
    let Some(mut wire) = sending()? else { return Ok(()) };
    let mut before = 0;
    for _ in 0..3 {
        let mut packet =
            wire.umem.frame().context("a frame")?.into_packet_of(&packets(1, 60)[0])?;
        packet.set_tx_metadata(&TxMetadata::new().timestamp())?;
        push(&mut wire, packet)?;
        drop(one(&mut wire)?);
        let mut stamp = 0;
        ensure!(soon(|| {
            let Some(completed) = wire.far.completion.peek(1)?.next() else { return Ok(false) };
            stamp = completed.tx_timestamp()?;
            Ok(true)
        })?);
        ensure!(stamp > before, "{stamp} after {before}");
        before = stamp;
    }
    wire.end()
}

/// Without a place for it, or before a packet that begins too early or at an odd address.
#[test]
fn metadata_needs_its_place() -> Result<()> {
    let Some(mut wire) = sending()? else { return Ok(()) };
    let no_room = Err(Refusal::NoRoomForMetadata);
    let metadata = TxMetadata::new().timestamp();
    let frame = || wire.umem.frame().context("a frame");
    let mut early = frame()?.into_packet_at(16, 60)?;
    ensure!(early.set_tx_metadata(&metadata) == no_room);
    let mut batch = wire.far.tx.reserve(1)?;
    // Every packet must leave the place free.
    let rejected = batch.push(early).unwrap_err();
    ensure!(Err(rejected.refusal) == no_room);
    drop((batch, rejected));
    let mut odd = frame()?.into_packet_at(25, 60)?;
    ensure!(odd.set_tx_metadata(&metadata) == Err(Refusal::OddAddress));
    drop(odd);
    let plain = umem(16)?;
    let mut packet = plain.frame().context("a frame")?.into_packet_at(100, 60)?;
    ensure!(packet.set_tx_metadata(&metadata) == no_room);
    drop(packet);
    wire.works(&packets(3, 60))?;
    wire.end()
}

/// Since 6.15; veth has none, and sends at once.
#[test]
fn a_launch_time_is_for_devices_that_have_it() -> Result<()> {
    let Some(mut wire) = sending()? else { return Ok(()) };
    let mut packet = wire.umem.frame().context("a frame")?.into_packet_of(&packets(1, 60)[0])?;
    let set = packet.set_tx_metadata(&TxMetadata::new().launch_time(1));
    if kernel()? < (6, 15) {
        ensure!(set == Err(Refusal::NoLaunchTime));
        drop(packet);
        return wire.end();
    }
    set?;
    push(&mut wire, packet)?;
    ensure!(soon(|| Ok(take(&mut wire.near)? == packets(1, 60)))?);
    completed(&mut wire.far, 1)?;
    wire.end()
}

/// It would block the ring, so it is refused; and a packet that is shortened forgets it.
#[test]
fn a_checksum_is_within_the_packet() -> Result<()> {
    let Some(mut wire) = sending()? else { return Ok(()) };
    let mut packet = wire.umem.frame().context("a frame")?.into_packet_of(&packets(1, 60)[0])?;
    for (start, offset) in [(58, 1), (0, 59), (60, 0), (u16::MAX, u16::MAX)] {
        let set = packet.set_tx_metadata(&TxMetadata::new().checksum(start, offset));
        ensure!(set == Err(Refusal::ChecksumOutside), "{start} {offset}");
    }
    packet.set_tx_metadata(&TxMetadata::new().checksum(50, 8))?;
    packet.set_len(20)?;
    push(&mut wire, packet)?;
    ensure!(soon(|| Ok(take(&mut wire.near)? == [packets(1, 60)[0][..20].to_vec()]))?);
    completed(&mut wire.far, 1)?;
    wire.works(&packets(10, 100))?;
    wire.end()
}

/// Why that must be refused: the kernel neither takes the packet nor goes on, and 6.18 gives its frame back each time.
#[test]
fn bad_metadata_blocks_the_ring() -> Result<()> {
    let Some(wire) = sending()? else { return Ok(()) };
    let Wire { near, far, lab, .. } = wire;
    drop((near, far));
    let flags = 1 << 1 | if kernel()? < (6, 11) { 0 } else { 1 << 2 };
    let register = Register { tx_metadata: 24, flags, ..Register::default() };
    let raw = Raw::new(&lab.far, &register)?;
    ensure!(soon(|| Ok(bind(&raw.fd, &lab.far, 0, SocketAddrXdpFlags::XDP_COPY).is_ok()))?);
    let (checksum, start, behind) = (1_u64 << 1, 50_u16, 20_u16);
    raw.memory.write(4096, checksum);
    raw.memory.write(4096 + 8, start);
    raw.memory.write(4096 + 10, behind);
    raw.tx.push(Descriptor { address: 4096 + 24, length: 60, options: 1 << 1 });
    raw.tx.push(Descriptor { address: 8192 + 24, length: 60, options: 0 });
    for _ in 0..3 {
        ensure!(raw.kick() == Err(Errno::INVAL) && raw.tx.consumer() == 0);
    }
    println!("came back: {:?}", raw.completions());
    Ok(())
}

/// Sockets that compute checksums and those that do not have the same memory.
#[test]
fn sockets_with_and_without_checksums_share_a_umem() -> Result<()> {
    let Some(wire) = sending()? else { return Ok(()) };
    let Wire { near, far, umem, lab } = wire;
    drop((near, far));
    reclaimed(&umem)?;
    let near = duplex(&umem, &lab.near, 0).bind()?;
    let far = duplex(&umem, &lab.far, 0).software_checksum(true).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    lab.far_program.map("xsks")?.set_socket(0, &far.socket)?;
    let mut wire = Wire { near, far, umem, lab };
    wire.works(&packets(10, 60))?;
    wire.end()
}

#[test]
fn a_umem_that_is_too_old_is_free_again() -> Result<()> {
    let umem = Umem::builder().frames(64).tx_metadata(24).build()?;
    let lab = Lab::new()?;
    drop(duplex(&umem, &lab.far, 0).bind());
    reclaimed(&umem)
}
