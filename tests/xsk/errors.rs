//! What is refused says why, and costs nothing.

use crate::lab::{FAR, Lab, NEAR, carry, duplex, packets, reclaimed, umem};
use crate::support::kernel;
use crate::support::lab::ip;
use anyhow::{Result, ensure};
use oxdp::xsk::{BindMode, BusyPoll, Chunks, Prefill, Socket, Umem, UmemBuilder, UmemRule};
use oxdp::{Error, ErrorKind};
use std::time::{Duration, Instant};

fn rule(builder: UmemBuilder) -> Result<UmemRule> {
    let error = builder.build().unwrap_err();
    let ErrorKind::Umem(rule) = error.kind() else { anyhow::bail!("{error}") };
    ensure!(error.to_string().contains(&rule.to_string()), "{error}");
    Ok(rule.clone())
}

#[test]
fn every_rule_for_memory_has_its_name() -> Result<()> {
    let builder = Umem::builder;
    for chunk_size in [0, 1, 1024, 2047, 4097, 8192, u32::MAX] {
        for chunks in [Chunks::Aligned, Chunks::Unaligned] {
            let told = rule(builder().chunk_size(chunk_size).chunks(chunks))?;
            ensure!(told == UmemRule::ChunkSize { chunk_size, page: 4096 });
        }
    }
    let told = rule(builder().chunk_size(3000))?;
    ensure!(told == UmemRule::ChunkPowerOfTwo { chunk_size: 3000 });
    let told = rule(builder().chunk_size(3001).chunks(Chunks::Unaligned))?;
    ensure!(told == UmemRule::ChunkOdd { chunk_size: 3001 });
    for headroom in [4096 - 256, 4096, u32::MAX] {
        let told = rule(builder().headroom(headroom))?;
        ensure!(told == UmemRule::Headroom { headroom, chunk_size: 4096 });
    }
    for length in [1, 8, 16, 23, 25, 250, 256, u32::MAX] {
        ensure!(rule(builder().tx_metadata(length))? == UmemRule::TxMetadataLength { length });
    }
    ensure!(matches!(rule(builder().frames(0))?, UmemRule::NoFrames { chunk_size: 4096, .. }));
    ensure!(matches!(rule(builder().frames(u32::MAX))?, UmemRule::TooMuch { .. }));
    Ok(())
}

/// What the library allows, and newer kernels (6.1.y and 6.18.y, since 2026) do not, has a name too.
#[test]
fn a_headroom_that_leaves_too_little_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let bind = |headroom: u32| -> Result<Result<(), Error>> {
        let umem = Umem::builder().frames(64).headroom(headroom).build()?;
        Ok(duplex(&umem, &lab.near, 0).bind().map(drop))
    };
    // Every kernel takes that.
    bind(4096 - 256 - 448)??;
    for headroom in [4096 - 256 - 447, 4096 - 257] {
        if let Err(error) = bind(headroom)? {
            let rule = UmemRule::Headroom { headroom, chunk_size: 4096 };
            ensure!(matches!(error.kind(), ErrorKind::Umem(told) if *told == rule), "{error}");
        }
    }
    Ok(())
}

/// The error of a bind that must fail, after which every frame is free.
fn refused(result: Result<impl Sized, Error>, umem: &Umem) -> Result<Error> {
    let Err(error) = result else { anyhow::bail!("bound") };
    ensure!(umem.census().free == u64::from(umem.frames()), "{:?}", umem.census());
    Ok(error)
}

#[test]
fn a_queue_that_is_not_there_is_told() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(256)?);
    for queue in [1, 7, u32::MAX] {
        let error = refused(duplex(&umem, &lab.near, queue).bind(), &umem)?;
        ensure!(error.errno() == Some(libc::EINVAL), "{error}");
        ensure!(error.to_string().contains(&format!("queue {queue} of {NEAR}")), "{error}");
        ensure!(error.to_string().contains("no such queue"), "{error}");
    }
    Ok(())
}

#[test]
fn a_queue_in_use_is_waited_for_and_then_told() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(256)?);
    let first = duplex(&umem, &lab.near, 0).prefill(Prefill::Frames(0)).bind()?;
    for patience in [0, 300] {
        let patience = Duration::from_millis(patience);
        let start = Instant::now();
        let error = refused(duplex(&umem, &lab.near, 0).bind_retry(patience).bind(), &umem)?;
        ensure!(error.errno() == Some(libc::EBUSY), "{error}");
        ensure!(error.to_string().contains("another socket has this queue"), "{error}");
        ensure!(start.elapsed() >= patience && start.elapsed() < patience + Duration::from_secs(2));
    }
    // With memory of its own as well.
    let other = crate::lab::umem(64)?;
    let patience = Duration::from_millis(50);
    let error = refused(duplex(&other, &lab.near, 0).bind_retry(patience).bind(), &other)?;
    ensure!(error.errno() == Some(libc::EBUSY), "{error}");
    drop(first);
    Ok(())
}

#[test]
fn a_queue_that_becomes_free_is_had() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(512)?);
    let first = duplex(&umem, &lab.near, 0).prefill(Prefill::Frames(0)).bind()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        let second = duplex(&umem, &lab.near, 0).bind_retry(Duration::from_secs(10)).bind();
        second.map(|_| start.elapsed())
    })?;
    ensure!(start.elapsed() >= Duration::from_millis(200));
    reclaimed(&umem)
}

#[test]
fn a_socket_needs_an_end() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(64)?);
    let error = refused(Socket::builder(&umem, &lab.near, 0).bind(), &umem)?;
    ensure!(error.to_string().contains("needs an RX ring or a TX ring"), "{error}");
    let first = duplex(&umem, &lab.near, 0).bind()?;
    let error = first.socket.share().bind().unwrap_err();
    ensure!(error.to_string().contains("needs an RX ring or a TX ring"), "{error}");
    Ok(())
}

/// veth has no zero-copy mode: who insists is told, and who leaves the choice gets copies.
#[test]
fn zero_copy_is_refused_where_there_is_none() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    let error = refused(duplex(&umem, &lab.near, 0).mode(BindMode::ZeroCopy).bind(), &umem)?;
    ensure!(error.errno() == Some(libc::EOPNOTSUPP), "{error}");
    ensure!(error.to_string().contains("no zero-copy mode"), "{error}");
    let mut near = duplex(&umem, &lab.near, 0).mode(BindMode::Auto).bind()?;
    let mut far = duplex(&umem, &lab.far, 0).mode(BindMode::Copy).bind()?;
    ensure!(!near.socket.granted().zero_copy && !far.socket.granted().zero_copy);
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    ensure!(carry(&mut far, &mut near, &packets(10, 60))? == packets(10, 60));
    // Beside one that has the memory registered already.
    drop(far);
    let error = duplex(&umem, &lab.far, 0).mode(BindMode::ZeroCopy).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::EOPNOTSUPP), "{error}");
    drop(near);
    reclaimed(&umem)
}

#[test]
fn busy_polling_is_taken_or_refused_by_name() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    let builder = duplex(&umem, &lab.near, 0).busy_poll(BusyPoll::default());
    if kernel()? < (5, 11) {
        let error = refused(builder.bind(), &umem)?;
        ensure!(crate::lab::too_old(error.kind()) == Some("5.11"), "{error}");
        return Ok(());
    }
    let mut near = builder.bind()?;
    let mut far = duplex(&umem, &lab.far, 0).bind()?;
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    ensure!(carry(&mut far, &mut near, &packets(100, 60))? == packets(100, 60));
    drop((near, far));
    reclaimed(&umem)
}

/// How many frames go to the fill ring, and what is left for sending.
#[test]
fn the_fill_ring_gets_what_was_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    let prefilled = |frames: u32, prefill: Prefill| -> Result<(u32, u64)> {
        let umem = umem(frames)?;
        let bound = duplex(&umem, &lab.near, 0).prefill(prefill).bind()?;
        let granted = bound.socket.granted().prefilled;
        ensure!(umem.census().in_kernel == u64::from(granted));
        Ok((granted, umem.census().free))
    };
    ensure!(prefilled(1024, Prefill::Auto)? == (256, 768));
    ensure!(prefilled(100, Prefill::Auto)? == (50, 50));
    ensure!(prefilled(100, Prefill::Frames(70))? == (70, 30));
    ensure!(prefilled(100, Prefill::Frames(700))? == (100, 0));
    ensure!(prefilled(1024, Prefill::Frames(u32::MAX))? == (256, 768));
    ensure!(prefilled(1, Prefill::Auto)? == (0, 1));
    let umem = umem(100)?;
    let bound = Socket::builder(&umem, &lab.near, 0).rx(64).fill(128).bind()?;
    ensure!(bound.socket.granted().prefilled == 100);
    Ok(())
}

/// What a socket tells of itself.
#[test]
fn sockets_and_errors_say_where_they_are() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(64)?);
    let bound = duplex(&umem, &lab.far, 0).bind()?;
    let name = bound.socket.to_string();
    ensure!(name.starts_with(&format!("queue 0 of {FAR} (ifindex {})", lab.far.index())), "{name}");
    ensure!(bound.socket.interface().index() == lab.far.index() && bound.socket.queue() == 0);
    ensure!(bound.socket.umem().frames() == 64 && bound.socket.check().is_ok());
    drop(bound);
    reclaimed(&umem)
}

/// In copy mode an interface that is down can be bound to; packets flow when it is up.
#[test]
fn an_interface_that_is_down_can_be_bound_to() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(1024)?);
    ip(&format!("-n {} link set {NEAR} down", lab.spaces.0.name))?;
    let mut near = duplex(&umem, &lab.near, 0).bind()?;
    let mut far = duplex(&umem, &lab.far, 0).bind()?;
    ensure!(near.tx.wake().unwrap_err().errno() == Some(libc::ENETDOWN));
    ip(&format!("-n {} link set {NEAR} up", lab.spaces.0.name))?;
    lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
    ensure!(carry(&mut far, &mut near, &packets(10, 60))? == packets(10, 60));
    drop((near, far));
    reclaimed(&umem)
}
