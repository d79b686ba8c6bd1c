//! The ends of a ring and a model of the kernel, in every order that two threads can come to (loom): whoever reads what is
//! still being written, or reads it twice, is found. The orderings are those that the ends ask for; and each is left out
//! in turn, to see that the model notices.

use super::ends::{Consumer, Producer};
use super::memory::{RingMemory, Word};
use crate::sys::xsk::XDP_RING_NEED_WAKEUP;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

const SIZE: u32 = 2;
/// So that indices wrap on the way.
const START: u32 = u32::MAX - 1;

/// A ring, and the frames that its entries are about.
struct Board {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    slots: [UnsafeCell<u32>; SIZE as usize],
    frames: [UnsafeCell<u32>; 5],
}

// SAFETY: loom sees to it that each cell is used by one thread at a time.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    Acquire(Word),
    Release(Word),
    Fence,
}

/// Our view of it.
#[derive(Clone, Copy)]
struct Model {
    board: *const Board,
    without: Without,
}

// SAFETY: the board is for all threads, and each model outlives its threads.
unsafe impl Send for Model {}

impl Model {
    fn board(&self) -> &Board {
        // SAFETY: the model's main thread keeps it until all have ended.
        unsafe { &*self.board }
    }
}

impl Board {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            producer: AtomicU32::new(START),
            consumer: AtomicU32::new(START),
            flags: AtomicU32::new(0),
            slots: Default::default(),
            frames: Default::default(),
        })
    }

    fn model(&self, without: Without) -> Model {
        Model { board: self, without }
    }

    fn word(&self, word: Word) -> &AtomicU32 {
        match word {
            Word::Producer => &self.producer,
            Word::Consumer => &self.consumer,
            Word::Flags => &self.flags,
        }
    }

    fn slot(&self, index: u32) -> &UnsafeCell<u32> {
        &self.slots[(index % SIZE) as usize]
    }

    /// Writes the bytes of a frame.
    fn write_frame(&self, frame: u32) {
        // SAFETY: loom checks it.
        self.frames[frame as usize].with_mut(|bytes| unsafe { *bytes = frame + 100 });
    }

    /// Reads the bytes of a frame.
    fn read_frame(&self, frame: u32) {
        // SAFETY: loom checks it.
        self.frames[frame as usize].with(|bytes| assert_eq!(unsafe { *bytes }, frame + 100));
    }

    /// As the kernel takes: the frame, which it has looked at.
    fn take(&self) -> Option<u32> {
        let consumer = self.consumer.load(Relaxed);
        if self.producer.load(Acquire) == consumer {
            return None;
        }
        // SAFETY: loom checks it.
        let frame = self.slot(consumer).with(|slot| unsafe { *slot });
        self.read_frame(frame);
        self.consumer.store(consumer.wrapping_add(1), Release);
        Some(frame)
    }

    /// As the kernel gives a frame into which it has received something.
    fn give(&self, frame: u32) -> bool {
        let producer = self.producer.load(Relaxed);
        if producer.wrapping_sub(self.consumer.load(Acquire)) == SIZE {
            return false;
        }
        self.write_frame(frame);
        // SAFETY: loom checks it.
        self.slot(producer).with_mut(|slot| unsafe { *slot = frame });
        self.producer.store(producer.wrapping_add(1), Release);
        true
    }
}

impl RingMemory for Model {
    type Entry = u32;

    fn load(self, word: Word, order: Ordering) -> u32 {
        let order = if self.without == Without::Acquire(word) { Relaxed } else { order };
        self.board().word(word).load(order)
    }

    fn store(self, word: Word, value: u32, order: Ordering) {
        let order = if self.without == Without::Release(word) { Relaxed } else { order };
        self.board().word(word).store(value, order);
    }

    fn fence(self) {
        if self.without != Without::Fence {
            fence(SeqCst);
        }
    }

    unsafe fn read(self, slot: u32) -> u32 {
        // SAFETY: loom checks it.
        self.board().slot(slot).with(|slot| unsafe { *slot })
    }

    unsafe fn write(self, slot: u32, entry: u32) {
        // SAFETY: loom checks it.
        self.board().slot(slot).with_mut(|slot| unsafe { *slot = entry });
    }
}

fn producer(board: &Board, without: Without) -> Producer<Model> {
    // SAFETY: of as many slots, and the model's only one.
    unsafe { Producer::new(SIZE, board.model(without)) }
}

fn consumer(board: &Board, without: Without) -> Consumer<Model> {
    // SAFETY: of as many slots, and the model's only one.
    unsafe { Consumer::new(SIZE, board.model(without)) }
}

/// Runs a model in every order, and tells in how many.
fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    let counted = orders.clone();
    builder.check(move || {
        counted.fetch_add(1, AcqRel);
        model();
    });
    println!("{name}: {} orders", orders.load(Acquire));
}

/// What becomes of a guard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kept,
    Dropped,
    Forgotten,
}

fn end<T>(guard: T, end: End) {
    match end {
        End::Forgotten => std::mem::forget(guard),
        _ => drop(guard),
    }
}

/// We write three frames, one batch of which may be given up; the kernel reads them.
fn we_produce(first: End, without: Without) {
    let board = Board::new();
    let kernel = thread::spawn({
        let board = board.clone();
        move || (0..3).filter_map(|_| board.take()).collect::<Vec<_>>()
    });
    let mut producer = producer(&board, without);
    if first != End::Kept {
        let mut writer = producer.writer(2).unwrap();
        assert!(writer.write(4));
        end(writer, first);
    }
    let mut written = 0;
    for wanted in [2, 1, 1] {
        let mut writer = producer.writer(wanted).unwrap();
        while written < 3 && writer.left() > 0 {
            board.write_frame(written);
            assert!(writer.write(written));
            written += 1;
        }
        writer.publish();
    }
    let mut seen = kernel.join().unwrap();
    seen.extend(std::iter::from_fn(|| board.take()));
    assert_eq!(seen, (0..written).collect::<Vec<_>>(), "each once, in order");
}

/// The kernel writes three frames; we read them, and one batch may be forgotten or given back unread.
fn we_consume(first: End, without: Without) {
    let board = Board::new();
    let kernel = thread::spawn({
        let board = board.clone();
        move || {
            let mut given = 0;
            for _ in 0..4 {
                given += u32::from(given < 3 && board.give(given));
            }
            given
        }
    });
    let mut consumer = consumer(&board, without);
    let (mut seen, mut lost) = (Vec::new(), 0);
    if first != End::Kept {
        let reader = consumer.reader(1).unwrap();
        lost = if first == End::Forgotten { reader.left() } else { 0 };
        end(reader, first);
    }
    let mut read = |consumer: &mut Consumer<Model>| {
        let mut reader = consumer.reader(2).unwrap();
        while let Some(frame) = reader.read() {
            board.read_frame(frame);
            seen.push(frame);
        }
    };
    read(&mut consumer);
    read(&mut consumer);
    let given = kernel.join().unwrap();
    read(&mut consumer);
    read(&mut consumer);
    assert_eq!(seen, (lost..given).collect::<Vec<_>>(), "each once, in order");
}

/// The kernel says that it will sleep, looks once more, and sleeps; we write, and look whether it does.
fn we_wake(without: Without) {
    let board = Board::new();
    let kernel = thread::spawn({
        let board = board.clone();
        move || {
            board.flags.store(XDP_RING_NEED_WAKEUP, Relaxed);
            fence(SeqCst);
            board.take().is_none()
        }
    });
    let mut producer = producer(&board, without);
    board.write_frame(0);
    let mut writer = producer.writer(1).unwrap();
    writer.write(0);
    writer.publish();
    let woken = producer.needs_wakeup();
    let sleeps = kernel.join().unwrap();
    assert!(woken || !sleeps, "it sleeps, and nobody wakes it");
}

#[test]
fn what_we_write_is_read_once_and_whole() {
    for first in [End::Kept, End::Dropped, End::Forgotten] {
        explore("producer", move || we_produce(first, Without::Nothing));
    }
}

#[test]
fn what_we_read_is_whole_and_never_read_twice() {
    for first in [End::Kept, End::Dropped, End::Forgotten] {
        explore("consumer", move || we_consume(first, Without::Nothing));
    }
}

#[test]
fn nobody_sleeps_while_there_is_work() {
    explore("wakeup", || we_wake(Without::Nothing));
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn without_the_fence_the_kernel_sleeps() {
    explore("wakeup without fence", || we_wake(Without::Fence));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_producer_must_release() {
    explore("", || we_produce(End::Kept, Without::Release(Word::Producer)));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_producer_must_acquire() {
    explore("", || we_produce(End::Kept, Without::Acquire(Word::Consumer)));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_consumer_must_release() {
    explore("", || we_consume(End::Kept, Without::Release(Word::Consumer)));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_consumer_must_acquire() {
    explore("", || we_consume(End::Kept, Without::Acquire(Word::Producer)));
}
