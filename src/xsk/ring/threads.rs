//! All four rings between two real threads, one of which is the kernel: for the sanitizers, to which the frames' bytes are
//! ordinary memory.

use super::fake::{self, FakeRing};
use super::memory::Descriptor;
use crate::xsk::socket_core::SocketCore;
use crate::xsk::umem::heap::Alive;
use crate::xsk::umem::{Chunks, Geometry};
use crate::xsk::{CompletionRing, FillRing, FrameCache, RxRing, TxRing, Umem};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

const GEOMETRY: Geometry =
    Geometry { chunks: Chunks::Aligned, chunk_size: 2048, frames: 16, headroom: 0, tx_metadata: 0 };
const PACKETS: u32 = if cfg!(miri) { 60 } else { 2_000 };
const LENGTH: u32 = 64;
const SIZE: u32 = 4;
const START: u32 = u32::MAX - 10;

/// The kernel's ends, and where its memory is.
struct Kernel {
    base: *mut u8,
    fill: Arc<FakeRing<u64>>,
    rx: Arc<FakeRing<Descriptor>>,
    tx: Arc<FakeRing<Descriptor>>,
    completion: Arc<FakeRing<u64>>,
}

// SAFETY: the test keeps the memory until the thread has ended.
unsafe impl Send for Kernel {}

impl Kernel {
    /// The bytes of a packet.
    fn bytes(&self, address: u64) -> *mut [u8; LENGTH as usize] {
        assert!(address + u64::from(LENGTH) <= GEOMETRY.length());
        let distance = usize::try_from(address).unwrap();
        // SAFETY: within the memory.
        unsafe { self.base.add(distance) }.cast()
    }

    /// Receives numbered packets, and sends what comes back, until all have.
    fn run(&self) {
        let (mut received, mut sent) = (0, 0);
        while sent < PACKETS {
            if received < PACKETS {
                received += u32::from(self.receive(received));
            }
            sent += u32::from(self.send());
            thread::yield_now();
        }
    }

    fn receive(&self, number: u32) -> bool {
        if self.rx.is_full() {
            return false;
        }
        let Some(base) = self.fill.take() else { return false };
        let address = base / 2048 * 2048 + 256;
        // SAFETY: of a frame that was given.
        unsafe { *self.bytes(address) = [stamp(number); LENGTH as usize] };
        assert!(self.rx.give(Descriptor { address, length: LENGTH, options: 0 }));
        true
    }

    fn send(&self) -> bool {
        if self.completion.is_full() {
            return false;
        }
        let Some(packet) = self.tx.take() else { return false };
        // SAFETY: of a packet that was given.
        let bytes = unsafe { *self.bytes(packet.address) };
        assert_eq!(bytes, [bytes[0]; LENGTH as usize], "half a packet");
        assert!(self.completion.give(packet.address));
        true
    }
}

fn stamp(number: u32) -> u8 {
    u8::try_from(number % 251).unwrap()
}

struct Program {
    fill: FillRing,
    rx: RxRing,
    tx: TxRing,
    completion: CompletionRing,
    cache: FrameCache,
}

impl Program {
    /// Answers each packet; how many were answered.
    fn answer(&mut self, seen: u32) -> u32 {
        let mut batch = self.tx.reserve(SIZE).unwrap();
        for (number, mut packet) in (seen..).zip(self.rx.peek(batch.left()).unwrap()) {
            let data = packet.data_mut().unwrap();
            assert_eq!(data, [stamp(number); LENGTH as usize]);
            data.fill(stamp(number) ^ 1);
            batch.push(packet).unwrap();
        }
        batch.commit()
    }

    /// Frames of sent packets go to the fill ring again, at once or by the cache.
    fn refill(&mut self, at_once: bool) {
        if at_once {
            let mut fill = self.fill.reserve(SIZE).unwrap();
            self.completion.peek(SIZE).unwrap().recycle(&mut fill);
            fill.commit();
        }
        self.completion.drain(&mut self.cache).unwrap();
        self.fill.fill(&mut self.cache, SIZE).unwrap();
    }

    /// Answers every packet, and makes room for those that are sent until the kernel has `ended`.
    fn run(&mut self, ended: impl Fn() -> bool) {
        let mut answered = 0;
        while !ended() {
            self.refill(answered % 2 == 0);
            answered += self.answer(answered);
            thread::yield_now();
        }
        assert_eq!(answered, PACKETS);
    }
}

#[test]
fn packets_go_round_between_two_threads() {
    let alive = Alive::default();
    let umem = Umem::on_heap(GEOMETRY, &alive);
    let kernel = Kernel {
        base: umem.owner().base(),
        fill: FakeRing::new(SIZE, START),
        rx: FakeRing::new(SIZE, START),
        tx: FakeRing::new(SIZE, START),
        completion: FakeRing::new(SIZE, START),
    };
    let socket = Arc::new(SocketCore::fake());
    let mut program = Program {
        fill: fake::fill(&kernel.fill, &socket, &umem),
        rx: fake::rx(&kernel.rx, &socket, &umem, false),
        tx: fake::tx(&kernel.tx, &socket, &umem, 1),
        completion: fake::completion(&kernel.completion, &socket, &umem),
        cache: umem.cache(),
    };
    thread::scope(|scope| {
        let kernel = scope.spawn(move || kernel.run());
        program.run(|| kernel.is_finished());
        kernel.join().unwrap();
    });
    drop(program);
    assert_eq!(umem.census().held, 0);
    drop(umem);
    assert_eq!(alive.load(Relaxed), 0);
}
