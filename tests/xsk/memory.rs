//! Memory of every kind, and chunks of every size.

use crate::lab::{Duplex, Lab, Wire, completed, duplex, packets, quiet, reclaimed, send, settled};
use crate::support::lab::soon;
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Chunks, HugePages, Prefill, Refusal, Umem, UmemBuilder};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

fn works(builder: &UmemBuilder) -> Result<Umem> {
    let umem = builder.clone().build()?;
    let mut wire = Wire::over(Lab::new()?, umem.clone(), |builder| builder)?;
    for length in [60, 1000, 1500] {
        wire.works(&packets(300, length))?;
    }
    settled(&umem)?;
    let Wire { near, far, .. } = wire;
    drop((near, far));
    reclaimed(&umem)?;
    Ok(umem)
}

#[test]
fn chunks_can_be_half_a_page() -> Result<()> {
    let umem = works(&Umem::builder().frames(1024).chunk_size(2048))?;
    ensure!(umem.chunk_size() == 2048 && umem.frames() == 1024);
    Ok(())
}

/// Frames begin anywhere, and lie across pages.
#[test]
fn unaligned_chunks_have_any_size() -> Result<()> {
    let builder = Umem::builder().frames(1024).chunks(Chunks::Unaligned);
    for size in [2048, 2050, 3000, 3334, 4002, 4096] {
        works(&builder.clone().chunk_size(size)).with_context(|| format!("{size} bytes"))?;
    }
    Ok(())
}

/// Headroom, and a length that fills the frame to its last byte, in chunks that are not aligned.
#[test]
fn unaligned_chunks_are_used_to_their_ends() -> Result<()> {
    let builder = Umem::builder().frames(1024).chunks(Chunks::Unaligned).chunk_size(2050);
    let umem = builder.headroom(100).build()?;
    let mut wire = Wire::over(Lab::new()?, umem, |builder| builder)?;
    wire.lab.set_mtu(2000)?;
    wire.works(&packets(50, 2050 - 256 - 100))?;
    send(&mut wire.far, &packets(3, 100))?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(wire.near.rx.peek(64)?);
        Ok(got.len() == 3)
    })?);
    for mut packet in got.drain(..) {
        ensure!(packet.headroom()? == 356 && packet.tailroom()? == 2050 - 456);
        packet.extend_front(356)?;
        packet.set_len(2050)?;
        packet.data_mut()?.fill(0xff);
        ensure!(packet.set_len(2051).is_err());
    }
    completed(&mut wire.far, 3)?;
    wire.works(&packets(50, 1000))?;
    wire.end()
}

/// What the kernel would drop without a word is refused, with the frame.
#[test]
fn impossible_packets_are_refused() -> Result<()> {
    let builders = [
        Umem::builder().frames(1024),
        Umem::builder().frames(1024).chunk_size(2048),
        Umem::builder().frames(1024).chunks(Chunks::Unaligned).chunk_size(4002),
    ];
    for builder in builders {
        let umem = builder.build()?;
        let size = umem.chunk_size();
        let mut wire = Wire::over(Lab::new()?, umem.clone(), |builder| builder)?;
        let mut frame = umem.frame().context("a frame")?;
        for (offset, length) in [(0, size + 1), (1, size), (size, 1), (u32::MAX, 2), (2, u32::MAX)]
        {
            let rejected = frame.into_packet_at(offset, length).unwrap_err();
            ensure!(rejected.refusal == Refusal::TooLong);
            frame = rejected.item;
        }
        ensure!(frame.bytes().len() == size as usize && frame.len() == size);
        let mut batch = wire.far.tx.reserve(3)?;
        let rejected = batch.push(frame.into_packet_at(size - 1, 0)?).unwrap_err();
        ensure!(rejected.refusal == Refusal::Empty);
        // The last bytes of a frame can be sent.
        let mut packet = rejected.item.into_frame()?.into_packet_at(size - 64, 64)?;
        packet.data_mut()?.copy_from_slice(&crate::lab::packet(1, 64));
        batch.push(packet)?;
        ensure!(batch.commit() == 1);
        crate::lab::flush(&wire.far)?;
        completed(&mut wire.far, 1)?;
        let mut got = Vec::new();
        ensure!(soon(|| {
            got.extend(crate::lab::take(&mut wire.near)?);
            Ok(got.len() == 1)
        })?);
        ensure!(got[0] == crate::lab::packet(1, 64));
        ensure!(wire.far.socket.statistics()?.tx_invalid_descriptors == 0);
        wire.end()?;
    }
    Ok(())
}

/// The machine's pool of huge pages, larger for a while.
struct Pool(String);

impl Pool {
    const FILE: &'static str = "/proc/sys/vm/nr_hugepages";

    fn grown_by(pages: u64) -> Result<Self> {
        let pool = Self(std::fs::read_to_string(Self::FILE)?);
        let now: u64 = pool.0.trim().parse()?;
        std::fs::write(Self::FILE, (now + pages).to_string())?;
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::FILE, &self.0);
    }
}

fn free_huge_pages() -> Result<u32> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    Ok(line.context("huge pages")?.trim().parse()?)
}

#[test]
fn huge_pages_are_used_if_there_are_enough() -> Result<()> {
    let builder = Umem::builder().frames(1024);
    {
        let _pool = Pool::grown_by(4)?;
        let free = free_huge_pages()?;
        ensure!(free >= 4, "no memory for four huge pages");
        for wish in [HugePages::Require, HugePages::Try] {
            ensure!(works(&builder.clone().huge_pages(wish))?.huge_pages());
        }
        // Not of whole huge pages.
        let odd = builder.clone().frames(1025).chunk_size(2048).huge_pages(HugePages::Require);
        ensure!(works(&odd)?.huge_pages());
        let unaligned = builder.clone().chunks(Chunks::Unaligned).chunk_size(3000);
        ensure!(works(&unaligned.huge_pages(HugePages::Require))?.huge_pages());
        ensure!(soon(|| Ok(free_huge_pages()? == free))?, "{} of {free}", free_huge_pages()?);
    }
    // More than there are.
    let frames = (free_huge_pages()? + 1) * 512;
    let wanting = builder.frames(frames.max(1024));
    ensure!(!works(&wanting.clone().huge_pages(HugePages::Try))?.huge_pages());
    let error = wanting.huge_pages(HugePages::Require).build().unwrap_err();
    ensure!(error.errno() == Some(libc::ENOMEM), "{error}");
    Ok(())
}

fn memfd(length: u64) -> Result<OwnedFd> {
    let file = rustix::fs::memfd_create("umem", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, length)?;
    Ok(file)
}

/// Packets are copied in and out, and whoever has the file sees them.
#[test]
fn memory_can_be_shared_with_others() -> Result<()> {
    let file = memfd(1024 * 4096)?;
    let umem = Umem::builder().build_shared(&file)?;
    ensure!(umem.frames() == 1024 && !umem.huge_pages());
    let mut wire = Wire::over(Lab::new()?, umem.clone(), |builder: Duplex<_>| builder)?;
    let mut batch = wire.far.tx.reserve(10)?;
    for number in 0..10 {
        let mut packet = umem.frame().context("a frame")?.into_packet(100)?;
        ensure!(packet.write_from(&crate::lab::packet(number, 200))? == 100);
        batch.push(packet)?;
    }
    ensure!(batch.commit() == 10);
    crate::lab::flush(&wire.far)?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        got.extend(wire.near.rx.peek(64)?);
        Ok(got.len() == 10)
    })?);
    let mut whole = Vec::new();
    let mut reader = std::fs::File::from(file.try_clone()?);
    reader.seek(SeekFrom::Start(0))?;
    reader.read_to_end(&mut whole)?;
    for (number, packet) in got.into_iter().enumerate() {
        let (mut bytes, mut short) = ([0; 200], [0; 7]);
        ensure!(packet.read_into(&mut bytes)? == 100 && packet.read_into(&mut short)? == 7);
        let sent = crate::lab::packet(number, 200)[..100].to_vec();
        ensure!(bytes[..100] == sent && short == sent[..7]);
        // Where it was sent from, and where it was received.
        ensure!(whole.windows(100).filter(|window| *window == sent).count() == 2);
    }
    completed(&mut wire.far, 10)?;
    wire.end()
}

#[test]
fn shared_memory_must_be_of_whole_chunks() -> Result<()> {
    for length in [0, 1, 4095, 4097, 3 * 2048] {
        let error = Umem::builder().build_shared(&memfd(length)?).unwrap_err();
        ensure!(matches!(error.kind(), oxdp::ErrorKind::Umem(_)), "{length}: {error}");
    }
    let umem = Umem::builder().chunk_size(2048).build_shared(&memfd(3 * 2048)?)?;
    ensure!(umem.frames() == 3);
    Ok(())
}

fn pages(length: usize) -> Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place.
    let base =
        unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE)? };
    NonNull::new(base.cast()).context("memory")
}

/// Memory that the program has from elsewhere; it can be unmapped when all is over.
#[test]
fn memory_can_be_given() -> Result<()> {
    let length = 1024 * 2048;
    let base = pages(length)?;
    let builder = Umem::builder().chunk_size(2048);
    // SAFETY: mapped until after all sockets, and used by nobody else.
    let umem = unsafe { builder.clone().build_raw(base, length) }?;
    ensure!(umem.frames() == 1024);
    let mut wire = Wire::over(Lab::new()?, umem, |builder| builder)?;
    wire.works(&packets(500, 700))?;
    let umem = wire.umem.clone();
    drop(wire);
    // There is no other memory to go on with, and the kernel may write to this still.
    ensure!(umem.reclaim() == 0 && umem.census().in_kernel > 0, "{:?}", umem.census());
    drop(umem);
    for (skip, less) in [(1, 2048), (2048, 2048), (0, 1)] {
        let base = NonNull::new(base.as_ptr().wrapping_add(skip)).context("memory")?;
        // SAFETY: within the mapping, and it is refused.
        let result = unsafe { builder.clone().build_raw(base, length - less) };
        let error = result.unwrap_err();
        ensure!(matches!(error.kind(), oxdp::ErrorKind::Umem(_)), "{error}");
    }
    // SAFETY: nobody uses it any more.
    unsafe { munmap(base.as_ptr().cast(), length)? };
    Ok(())
}

/// The UMEM goes when everything of it has: handles, sockets, and frames that outlive them.
#[test]
fn memory_stays_as_long_as_a_frame_of_it() -> Result<()> {
    let file = memfd(64 * 4096)?;
    let is_mapped = || -> Result<bool> {
        Ok(std::fs::read_to_string("/proc/self/maps")?.contains("memfd:umem"))
    };
    let umem = Umem::builder().build_shared(&file)?;
    let lab = Lab::new()?;
    let bound = duplex(&umem, &lab.near, 0).fill(16).bind()?;
    let mut packet = umem.frame().context("a frame")?.into_packet(10)?;
    drop((bound, umem));
    ensure!(is_mapped()?);
    packet.write_from(&[7; 10])?;
    drop(packet);
    ensure!(!is_mapped()?);
    Ok(())
}

/// As long as a socket is open, although its rings are gone, its frames are the kernel's.
#[test]
fn frames_of_a_bound_socket_are_not_taken_back() -> Result<()> {
    let mut wire = Wire::new()?;
    wire.works(&packets(10, 64))?;
    let Wire { near, far, umem, lab } = wire;
    let handle = near.socket;
    drop((near.rx, near.tx, near.fill, near.completion));
    drop(far);
    ensure!(umem.reclaim() == 0, "{:?}", umem.census());
    drop(handle);
    reclaimed(&umem)?;
    drop(lab);
    Ok(())
}

/// Somebody has kept the descriptor, so the kernel still receives: but not into what was taken back.
#[test]
fn frames_that_were_taken_back_are_written_by_nobody() -> Result<()> {
    let lab = Lab::new()?;
    let umem = Umem::builder().frames(64).build()?;
    let near = duplex(&umem, &lab.near, 0).prefill(Prefill::Frames(64)).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    let kept = near.socket.as_fd().try_clone_to_owned()?;
    drop(near);
    reclaimed(&umem)?;
    let frames: Vec<_> = std::iter::from_fn(|| umem.frame()).collect();
    let sender = crate::lab::umem(64)?;
    let mut far = duplex(&sender, &lab.far, 0).prefill(Prefill::Frames(0)).bind()?;
    send(&mut far, &packets(32, 600))?;
    completed(&mut far, 32)?;
    quiet();
    ensure!(frames.len() == 64 && frames.iter().all(|frame| frame.bytes().iter().all(|b| *b == 0)));
    drop(kept);
    Ok(())
}
