//! Behaviours of the kernel that the library relies on or guards against, without the library where its API hides them.
//! Where one has changed, the version in which it did is in the test.

use crate::lab::{Lab, Plan, Wire, completed, duplex, packets, quiet, reclaimed, send, take, umem};
use crate::raw::{Descriptor, Kind, Pages, Raw, Register, Ring, bind, bind_shared, socket};
use crate::support::kernel;
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Prefill, Umem, XDP_PACKET_HEADROOM};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size,
    set_xdp_umem_fill_ring_size,
};
use rustix::net::xdp::SocketAddrXdpFlags;
use rustix::net::{RecvFlags, SendFlags};
use std::time::{Duration, Instant};

const COPY: SocketAddrXdpFlags = SocketAddrXdpFlags::XDP_COPY;

/// What is in the completion ring once there are so many entries, and no more.
fn came_back(raw: &Raw, count: usize) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    let came = soon(|| {
        all.extend(raw.completions());
        Ok(all.len() >= count)
    })?;
    quiet();
    all.extend(raw.completions());
    ensure!(came && all.len() == count, "{all:?}, not {count}");
    Ok(all)
}

/// 1: a queue has one socket, and a socket one queue; mapped rings keep a closed socket on its queue.
#[test]
fn rule_1_mapped_rings_keep_the_queue_busy() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::bound(&lab.far, &Register::default())?;
    ensure!(bind(&raw.fd, &lab.far, 0, COPY) == Err(Errno::BUSY));
    let second = Raw::new(&lab.far, &Register::default())?;
    ensure!(bind(&second.fd, &lab.far, 0, COPY) == Err(Errno::BUSY));
    let Raw { rx, tx, fill, completion, fd, memory } = raw;
    drop((fd, memory, tx, fill, completion));
    std::thread::sleep(Duration::from_millis(400));
    ensure!(bind(&second.fd, &lab.far, 0, COPY) == Err(Errno::BUSY));
    drop(rx);
    ensure!(soon(|| Ok(bind(&second.fd, &lab.far, 0, COPY).is_ok()))?);
    Ok(())
}

/// 2: a call sends 32 packets (16 on 5.10) and asks for another; it must not wait, and the socket must be bound. Since 6.17
/// it says how many it has taken.
#[test]
fn rule_2_a_call_sends_32_packets() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::new(&lab.far, &Register::default())?;
    ensure!(raw.kick() == Err(Errno::NXIO));
    bind(&raw.fd, &lab.far, 0, COPY)?;
    ensure!(rustix::net::send(&raw.fd, &[], SendFlags::empty()) == Err(Errno::OPNOTSUPP));
    let call = crate::lab::call()?;
    for frame in 0..u64::from(call) + 8 {
        raw.tx.push(Descriptor { address: frame * 4096, length: 60, options: 0 });
    }
    ensure!(raw.kick() == Err(Errno::AGAIN));
    ensure!(raw.tx.consumer() == if kernel()? < (6, 17) { 0 } else { call });
    came_back(&raw, call as usize)?;
    ensure!(raw.kick().is_ok() && raw.tx.consumer() == call + 8);
    came_back(&raw, 8)?;
    Ok(())
}

/// To have the kernel look at the fill ring is a call of its own since 5.11. (It is needed in zero-copy mode only.)
#[test]
fn the_fill_ring_has_a_call_since_5_11() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::bound(&lab.near, &Register::default())?;
    let called = rustix::net::recv(&raw.fd, &mut [0_u8; 0], RecvFlags::DONTWAIT);
    let expected = if kernel()? < (5, 11) { Err(Errno::OPNOTSUPP) } else { Ok((0, 0)) };
    ensure!(called == expected, "{called:?}");
    Ok(())
}

/// Whether the frames of invalid descriptors come back, as they do since 6.18 and in some older stable kernels (6.12.117 was
/// seen to); else they are lost.
fn invalid_come_back(lab: &Lab) -> Result<bool> {
    let raw = Raw::bound(&lab.near, &Register::default())?;
    raw.send(64 * 4096, 60)?;
    quiet();
    let comes_back = raw.completions() == [64 * 4096];
    ensure!(comes_back || kernel()? < (6, 18));
    Ok(comes_back)
}

/// 3: an invalid descriptor is counted and ends the call without an error.
#[test]
fn rule_3_an_invalid_descriptor_ends_the_call() -> Result<()> {
    let lab = Lab::new()?;
    let comes_back = invalid_come_back(&lab)?;
    let raw = Raw::bound(&lab.far, &Register::default())?;
    let bad = [
        Descriptor { address: 3 * 4096 + 4000, length: 200, options: 0 },
        Descriptor { address: 64 * 4096, length: 60, options: 0 },
        Descriptor { address: 4096, length: 4097, options: 0 },
        Descriptor { address: 4096, length: 60, options: 1 << 15 },
    ];
    for (before, bad) in bad.into_iter().enumerate() {
        raw.tx.push(Descriptor { address: 0, length: 60, options: 0 });
        raw.tx.push(bad);
        raw.tx.push(Descriptor { address: 8192, length: 60, options: 0 });
        ensure!(soon(|| {
            raw.kick()?;
            Ok(raw.tx.consumer() == raw.tx.producer())
        })?);
        let expected = if comes_back { 3 } else { 2 };
        let back = came_back(&raw, expected)?;
        ensure!(back.contains(&0) && back.contains(&8192), "{back:?}");
        ensure!(expected == 2 || back.contains(&(bad.address & !1)), "{back:?}");
        let counted = raw.statistics()?.tx_invalid_descs;
        ensure!(counted == before as u64 + 1, "{counted} are counted");
    }
    Ok(())
}

/// The same in unaligned chunks, whose addresses have the offset in their upper bits.
#[test]
fn rule_3_unaligned_descriptors_are_checked_against_the_memory() -> Result<()> {
    let lab = Lab::new()?;
    let comes_back = invalid_come_back(&lab)?;
    let register = Register { chunk_size: 3000, flags: 1, ..Register::default() };
    let raw = Raw::bound(&lab.far, &register)?;
    let end = register.length() as u64;
    let at = |base: u64, offset: u64| base | (offset << 48);
    raw.send(at(3000, 100), 60)?;
    ensure!(came_back(&raw, 1)? == [at(3000, 100)]);
    let bad = [(end, 60), (end - 30, 60), (at(end - 3000, 2990), 60)];
    for (number, (address, length)) in bad.into_iter().enumerate() {
        raw.send(address, length)?;
        came_back(&raw, usize::from(comes_back))?;
        ensure!(raw.statistics()?.tx_invalid_descs == number as u64 + 1, "{address:#x}");
    }
    // Across two chunks is no matter.
    raw.send(2990, 60)?;
    came_back(&raw, 1)?;
    Ok(())
}

/// 4: a completion has the address that was sent from, with the offset in its frame, but since 6.17 or 6.18 without
/// its lowest bit.
#[test]
fn rule_4_completions_tell_the_address_without_its_lowest_bit() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::bound(&lab.far, &Register::default())?;
    let loses_a_bit = kernel()? >= (6, 18);
    for address in [0, 2, 64, 1, 20780, 20781] {
        raw.send(address, 60)?;
        let expected = if loses_a_bit { address & !1 } else { address };
        let back = came_back(&raw, 1)?;
        ensure!(back == [expected], "{address}, then {back:?}");
    }
    Ok(())
}

/// 5: a fresh TX ring asks to be woken, and the offsets are the kernel's to tell.
#[test]
fn rule_5_a_fresh_tx_ring_asks_to_be_woken() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::bound(&lab.far, &Register::default())?;
    ensure!(raw.tx.needs_wakeup()? && !raw.fill.needs_wakeup()?);
    for ring in [&raw.rx, &raw.tx, &raw.fill, &raw.completion] {
        ensure!(ring.at.producer < ring.at.desc && ring.at.consumer < ring.at.desc);
        ensure!(ring.at.producer.abs_diff(ring.at.consumer) >= 64, "one cache line: {:?}", ring.at);
    }
    Ok(())
}

// 6, what poll(2) tells, is in polling.rs; 7, of devices that go, in gone.rs.

/// 8: memory that is unmapped stays pinned: what is in it is still sent, and it hurts nobody.
#[test]
fn rule_8_memory_stays_pinned_when_it_is_unmapped() -> Result<()> {
    let wire = Wire::new()?;
    let Wire { mut near, far, umem, lab } = wire;
    drop(far);
    let raw = Raw::new(&lab.far, &Register::default())?;
    ensure!(soon(|| Ok(bind(&raw.fd, &lab.far, 0, COPY).is_ok()))?);
    let text = packets(1, 64).pop().context("a packet")?;
    for (address, byte) in (4096..).zip(&text) {
        raw.memory.write(address, *byte);
    }
    let Raw { rx, tx, fill, completion, fd, memory } = raw;
    drop(memory);
    let memory = Pages::new(4096)?;
    let raw = Raw { rx, tx, fill, completion, fd, memory };
    raw.send(4096, 64)?;
    came_back(&raw, 1)?;
    ensure!(take(&mut near)? == [text]);
    drop((raw, near));
    reclaimed(&umem)
}

/// 9: the kernel takes a frame twice, and drops a bad address of the fill ring without telling anybody.
#[test]
fn rule_9_nobody_is_told_of_bad_addresses_in_the_fill_ring() -> Result<()> {
    let lab = Lab::new()?;
    let raw = Raw::bound(&lab.near, &Register::default())?;
    lab.near_program.map("xsks")?.set_socket(0, &raw.fd)?;
    let umem = umem(256)?;
    let mut far = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0)).bind()?;
    for address in [1 << 40, 64 * 4096, 8192, 8192] {
        raw.fill.push::<u64>(address);
    }
    send(&mut far, &packets(2, 64))?;
    completed(&mut far, 2)?;
    let next = || -> Result<Descriptor> {
        let mut next = None;
        soon(|| {
            Ok({
                next = raw.rx.pop::<Descriptor>();
                next.is_some()
            })
        })?;
        next.context("a packet")
    };
    let (first, second) = (next()?, next()?);
    ensure!(first.address == 8192 + 256 && second.address == 8192 + 256);
    // The second packet has overwritten the first.
    let bytes: [u8; 32] = raw.memory.read(8192 + 256);
    ensure!(bytes == packets(2, 64)[1][..32]);
    ensure!(raw.statistics()?.rx_invalid_descs == 0 && raw.statistics()?.rx_dropped == 0);
    Ok(())
}

/// 10: with a place for TX metadata every packet must begin behind it, whether it has any or not.
#[test]
fn rule_10_packets_begin_behind_the_place_for_metadata() -> Result<()> {
    if kernel()? < (6, 8) {
        let error = tx_metadata_socket().unwrap_err();
        let oxdp = error.downcast_ref::<oxdp::Error>().context("a named refusal")?;
        ensure!(crate::lab::too_old(oxdp.kind()) == Some("6.8"), "{oxdp}");
        return Ok(());
    }
    tx_metadata_socket()?;
    let lab = Lab::new()?;
    let flags = if kernel()? < (6, 11) { 0 } else { 1 << 2 };
    let raw = Raw::bound(&lab.far, &Register { tx_metadata: 24, flags, ..Register::default() })?;
    raw.send(4096 + 24, 60)?;
    came_back(&raw, 1)?;
    raw.send(4096 + 16, 60)?;
    came_back(&raw, usize::from(invalid_come_back(&lab)?))?;
    ensure!(raw.statistics()?.tx_invalid_descs == 1);
    Ok(())
}

fn tx_metadata_socket() -> Result<()> {
    let lab = Lab::new()?;
    let umem = Umem::builder().frames(64).tx_metadata(24).build()?;
    let bound = duplex(&umem, &lab.far, 0).bind()?;
    drop(bound);
    reclaimed(&umem)
}

/// 11: memory is registered once, each ring is made once, and sizes are powers of two.
#[test]
fn rule_11_everything_is_made_once() -> Result<()> {
    let lab = Lab::new()?;
    let fd = socket(&lab.near)?;
    let makers = [
        set_xdp_rx_ring_size,
        set_xdp_tx_ring_size,
        set_xdp_umem_fill_ring_size,
        set_xdp_umem_completion_ring_size,
    ];
    for make in makers {
        for size in [0, 3, 100] {
            ensure!(make(&fd, size) == Err(Errno::INVAL));
        }
        make(&fd, 64)?;
        ensure!(make(&fd, 64) == Err(Errno::INVAL) && make(&fd, 128) == Err(Errno::INVAL));
    }
    let register = Register::default();
    let memory = Pages::new(register.length())?;
    register.register(&fd, &memory)?;
    ensure!(register.register(&fd, &memory) == Err(Errno::BUSY));
    bind(&fd, &lab.near, 0, COPY)?;
    ensure!(set_xdp_rx_ring_size(&fd, 64) == Err(Errno::BUSY));
    Ok(())
}

/// 12: any socket that is bound with a UMEM can lend it, also one that has borrowed it; what was lent outlives the
/// lender.
#[test]
fn rule_12_whoever_is_bound_can_lend_the_memory() -> Result<()> {
    let lab = Lab::with(Plan { queues: 3, ..Plan::default() })?;
    let first = Raw::new(&lab.far, &Register::default())?;
    let borrower = |queue: u32, from: &std::os::fd::OwnedFd| -> Result<Ends> {
        let ends = Ends::new(&lab)?;
        ensure!(soon(|| Ok(bind_shared(&ends.fd, &lab.far, queue, from).is_ok()))?);
        Ok(ends)
    };
    let early = Ends::new(&lab)?;
    ensure!(bind_shared(&early.fd, &lab.far, 1, &first.fd) == Err(Errno::BADF));
    bind(&first.fd, &lab.far, 0, COPY)?;
    // With rings of its own on the same queue, or without on another.
    ensure!(bind_shared(&early.fd, &lab.far, 0, &first.fd) == Err(Errno::INVAL));
    let bare = socket(&lab.far)?;
    set_xdp_tx_ring_size(&bare, 64)?;
    ensure!(bind_shared(&bare, &lab.far, 1, &first.fd) == Err(Errno::INVAL));
    let second = borrower(1, &first.fd)?;
    drop(first);
    let third = borrower(0, &second.fd)?;
    third.tx.push(Descriptor { address: 4096, length: 60, options: 0 });
    rustix::net::send(&third.fd, &[], SendFlags::DONTWAIT)?;
    ensure!(soon(|| Ok(third.completion.pop::<u64>() == Some(4096)))?);
    Ok(())
}

/// A socket without memory.
struct Ends {
    tx: Ring,
    _fill: Ring,
    completion: Ring,
    fd: std::os::fd::OwnedFd,
}

impl Ends {
    fn new(lab: &Lab) -> Result<Self> {
        let fd = socket(&lab.far)?;
        let tx = Ring::new(&fd, Kind::Tx)?;
        let (fill, completion) = (Ring::new(&fd, Kind::Fill)?, Ring::new(&fd, Kind::Completion)?);
        Ok(Self { tx, _fill: fill, completion, fd })
    }
}

/// 13: a packet is received behind the kernel's headroom and the UMEM's.
#[test]
fn rule_13_packets_are_received_behind_both_headrooms() -> Result<()> {
    for headroom in [0, 2, 64, 1000] {
        let umem = Umem::builder().frames(1024).headroom(headroom).build()?;
        let mut wire = Wire::over(Lab::new()?, umem, |builder| builder)?;
        send(&mut wire.far, &packets(1, 64))?;
        completed(&mut wire.far, 1)?;
        let mut place = None;
        ensure!(soon(|| {
            place = wire.near.rx.peek(1)?.next().map(|packet| packet.headroom()).transpose()?;
            Ok(place.is_some())
        })?);
        ensure!(place == Some(headroom + XDP_PACKET_HEADROOM), "{place:?}");
        wire.end()?;
    }
    Ok(())
}

/// How soon a queue is free again after its socket was closed. (Not a rule; printed for who wonders.)
#[test]
fn a_closed_socket_lets_go_of_its_queue_soon() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(64)?);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        drop(duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0)).bind()?);
        longest = longest.max(start.elapsed());
    }
    println!("bound and closed in at most {longest:?}");
    ensure!(longest < Duration::from_secs(20), "{longest:?}");
    reclaimed(&umem)
}
