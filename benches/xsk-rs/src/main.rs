//! What `benches/xsk` compares with: `../xsk/twin.c` by the crate xsk-rs, with the same sizes, flags, batches and rules.
//!
//! `xsk-rs-twin drop|tx|l2fwd INTERFACE BATCH SECONDS COUNT [spin]`

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use xsk_rs::config::{
    BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig, XdpFlags,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

const RING: u32 = 2048;
const FRAMES: u32 = 2 * RING;
const PACKET: usize = 64;
/// Packets that one call sends at most, and for how long it is slept after a batch, as twin.c has them.
const BUDGET: libc::c_int = 256;
const NAP: Duration = Duration::from_micros(150);
/// `XDP_MAX_TX_SKB_BUDGET`, since kernel 6.17.
const MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// From 198.18.0.1 to 198.18.0.2, port 9.
const HEADERS: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64,
    17, 0xae, 0x93, 198, 18, 0, 1, 198, 18, 0, 2, 0, 9, 0, 9, 0, 30, 0, 0,
];

struct Twin {
    umem: Umem,
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// A batch.
    frames: Vec<FrameDesc>,
    /// To send, and not under way.
    idle: Vec<FrameDesc>,
    under_way: usize,
    /// Packets since it slept.
    since: usize,
    spin: bool,
    packets: u64,
    bytes: u64,
    limit: u64,
    first: Option<Instant>,
    stop: Arc<AtomicBool>,
}

fn main() -> Result<()> {
    let opened = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, interface, batch, seconds, count, ..] = &*arguments else {
        bail!("xsk-rs-twin drop|tx|l2fwd INTERFACE BATCH SECONDS COUNT [spin]");
    };
    let mut twin = Twin::open(mode, interface, batch.parse()?)?;
    twin.spin = arguments.len() > 5;
    twin.limit = count.parse()?;
    let seconds = Duration::from_secs(seconds.parse()?);
    let stop = Arc::clone(&twin.stop);
    std::thread::spawn(move || {
        std::thread::sleep(seconds);
        stop.store(true, Relaxed);
    });
    let before = cpu()?;
    let (verb, step): (&str, fn(&mut Twin) -> Result<()>) = match &**mode {
        "drop" => ("received", Twin::drop_some),
        "tx" => ("sent", Twin::send_some),
        _ => ("forwarded", Twin::forward_some),
    };
    while !twin.stop.load(Relaxed) {
        step(&mut twin)?;
    }
    twin.tell(verb, opened, before)
}

fn cpu() -> Result<(i64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time().num_microseconds(), usage.system_time().num_microseconds()))
}

impl Twin {
    fn open(mode: &str, interface: &str, batch: usize) -> Result<Self> {
        let ring = |size| QueueSize::new(size).context("a power of two");
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(4096)?)
            .fill_queue_size(ring(2 * RING)?)
            .comp_queue_size(ring(2 * RING)?)
            .build()?;
        let (umem, mut frames) = Umem::new(config, FRAMES.try_into()?, false)?;
        let sends_only = mode == "tx";
        let mut config = SocketConfig::builder();
        config
            .rx_queue_size(ring(RING)?)
            .tx_queue_size(ring(RING)?)
            .xdp_flags(XdpFlags::XDP_FLAGS_DRV_MODE)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP);
        if sends_only {
            config.libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD);
        }
        // SAFETY: the only socket on this queue.
        let (tx, rx, rings) =
            unsafe { Socket::new(config.build(), &umem, &interface.parse()?, 0) }?;
        let (mut fill, completion) = rings.context("rings")?;
        if mode != "drop" {
            set_budget(tx.fd().as_raw_fd());
        }
        if sends_only {
            write_all(&umem, &mut frames);
        } else {
            // SAFETY: all of this UMEM, each once.
            unsafe { fill.produce(&frames) };
            frames.clear();
        }
        Ok(Self {
            umem,
            rx,
            tx,
            fill,
            completion,
            frames: vec![FrameDesc::default(); batch],
            idle: frames,
            under_way: 0,
            since: 0,
            spin: false,
            packets: 0,
            bytes: 0,
            limit: 0,
            first: None,
            stop: Arc::default(),
        })
    }

    fn count(&mut self, packets: usize, bytes: u64) {
        if packets > 0 {
            self.first.get_or_insert_with(Instant::now);
        }
        self.packets += packets as u64;
        self.bytes += bytes;
        if self.limit > 0 && self.packets >= self.limit {
            self.stop.store(true, Relaxed);
        }
    }

    fn drop_some(&mut self) -> Result<()> {
        // SAFETY: what comes goes back below, and is not touched after that.
        let got = unsafe { self.rx.consume(&mut self.frames) };
        if got == 0 {
            return self.wait(100);
        }
        let frames = &self.frames[..got];
        let bytes = frames.iter().map(|frame| frame.lengths().data() as u64).sum();
        // There are as many slots as frames, but the kernel tells of packets before it frees their slots.
        // SAFETY: as above.
        while unsafe { self.fill.produce(frames) } == 0 {}
        self.since += got;
        self.count(got, bytes);
        Ok(())
    }

    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        if !self.spin {
            if std::mem::take(&mut self.since) >= self.frames.len() {
                std::thread::sleep(NAP);
            } else {
                self.rx.poll(milliseconds)?;
            }
        } else if self.fill.needs_wakeup() {
            self.fill.wakeup(self.rx.fd_mut(), 0)?;
        }
        Ok(())
    }

    fn send_some(&mut self) -> Result<()> {
        let wanted = self.frames.len().min(self.idle.len());
        let wanted = wanted.min(self.tx.nb_free(u32::try_from(wanted)?) as usize);
        let rest = self.idle.len() - wanted;
        for frame in &mut self.idle[rest..] {
            // SAFETY: not under way. What is in it stays; only its length is lost.
            unsafe { self.umem.data_mut(frame) }.cursor().set_pos(PACKET);
        }
        // SAFETY: not touched before they come back.
        unsafe { self.tx.produce(&self.idle[rest..]) };
        self.idle.truncate(rest);
        if !self.spin && wanted == 0 {
            self.tx.poll(1)?;
        } else if self.tx.needs_wakeup() {
            self.tx.wakeup()?;
        }
        let mut left = [FrameDesc::default(); 2 * RING as usize];
        // SAFETY: they are idle now.
        let count = unsafe { self.completion.consume(&mut left) };
        self.idle.extend(&left[..count]);
        self.count(count, (count * PACKET) as u64);
        Ok(())
    }

    fn forward_some(&mut self) -> Result<()> {
        // SAFETY: what has been sent goes to the fill ring at once.
        let left = unsafe { self.completion.consume(&mut self.frames) };
        // SAFETY: as above.
        unsafe { self.fill.produce(&self.frames[..left]) };
        self.under_way -= left;
        let room =
            self.frames.len().min(self.tx.nb_free(u32::try_from(self.frames.len())?) as usize);
        // SAFETY: what comes goes out below, and is not touched after that.
        let got = unsafe { self.rx.consume(&mut self.frames[..room]) };
        let mut bytes = 0;
        for frame in &mut self.frames[..got] {
            bytes += frame.lengths().data() as u64;
            // SAFETY: it has come, and nobody else has it.
            let mut data = unsafe { self.umem.data_mut(frame) };
            if let Some((destination, source)) =
                data.contents_mut().get_mut(..12).map(|macs| macs.split_at_mut(6))
            {
                destination.swap_with_slice(source);
            }
        }
        // SAFETY: as above.
        unsafe { self.tx.produce(&self.frames[..got]) };
        self.under_way += got;
        self.since += got;
        self.count(got, bytes);
        if self.under_way > 0 && self.tx.needs_wakeup() {
            self.tx.wakeup()?;
        }
        if got == 0 {
            self.wait(if self.under_way > 0 { 1 } else { 100 })?;
        }
        Ok(())
    }

    fn tell(&self, verb: &str, opened: Instant, before: (i64, i64)) -> Result<()> {
        let (end, (user, kernel)) = (Instant::now(), cpu()?);
        let first = self.first.unwrap_or(end);
        let (packets, bytes) = (self.packets, self.bytes);
        println!("{verb} {packets} packets, {bytes} bytes in {:.6} s", (end - first).as_secs_f64());
        let (user, kernel) = (user - before.0, kernel - before.1);
        println!("cpu {user} us in the program, {kernel} us in the kernel");
        if packets > 0 {
            let after = (first - opened).as_secs_f64() * 1e3;
            println!("first packet {after:.3} ms after the start");
        }
        Ok(())
    }
}

/// An older kernel refuses it.
fn set_budget(fd: RawFd) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let budget: *const libc::c_int = &BUDGET;
    // SAFETY: the option takes an int, which is there.
    unsafe { libc::setsockopt(fd, libc::SOL_XDP, MAX_TX_SKB_BUDGET, budget.cast(), length) };
}

fn write_all(umem: &Umem, frames: &mut [FrameDesc]) {
    for frame in frames {
        // SAFETY: nobody else has it yet.
        let mut data = unsafe { umem.data_mut(frame) };
        data.cursor().set_pos(PACKET);
        data.contents_mut()[..HEADERS.len()].copy_from_slice(&HEADERS);
    }
}
