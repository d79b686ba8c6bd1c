use super::*;
use crate::xsk::Umem;
use crate::xsk::umem::frame::Frame;
use crate::xsk::umem::heap::Alive;
use crate::xsk::umem::{Chunks, Exclusive};
use std::sync::Barrier;
use std::thread;

fn geometry() -> Geometry {
    Geometry { chunks: Chunks::Aligned, chunk_size: 2048, frames: 8, headroom: 0, tx_metadata: 0 }
}

fn umem() -> (Umem, Alive) {
    let alive = Alive::default();
    (Umem::on_heap(geometry(), &alive), alive)
}

fn is_alive(alive: &Alive) -> bool {
    alive.load(Relaxed) > 0
}

/// As a batch of an RX ring gives it.
fn received(umem: &Umem, base: u64) -> Frame<Exclusive> {
    umem.owner().pass(Some(base), Holder::Free, Holder::Program);
    // SAFETY: these tests have each frame once.
    unsafe { Frame::new(umem.owner().pointer(), base) }
}

#[test]
fn memory_goes_with_the_last_handle() {
    let (umem, alive) = umem();
    let (other, cache) = (umem.clone(), umem.cache());
    drop(umem);
    drop(cache);
    assert!(is_alive(&alive));
    drop(other);
    assert!(!is_alive(&alive));
}

#[test]
fn memory_goes_with_the_last_frame() {
    let (umem, alive) = umem();
    let (first, mut last) = (umem.frame().unwrap(), umem.frame().unwrap());
    drop(umem);
    drop(first);
    assert!(is_alive(&alive));
    last.bytes_mut().fill(1);
    drop(last);
    assert!(!is_alive(&alive));
}

#[test]
fn memory_of_a_frame_that_is_forgotten_stays() {
    let (umem, alive) = umem();
    std::mem::forget(umem.frame().unwrap());
    assert_eq!(umem.census().held, 1);
    drop(umem);
    assert!(is_alive(&alive));
}

/// The kernel gives frames that it was never given: more tokens than frames are out, and all must go before the memory.
#[test]
fn a_kernel_that_gives_too_much_does_not_end_the_memory() {
    let (umem, alive) = umem();
    let ring = umem.owner().count_ring();
    ring.take(2);
    let (first, mut last) = (received(&umem, 0), received(&umem, 2048));
    umem.owner().settle_ring(&ring);
    drop(umem);
    assert!(is_alive(&alive));
    drop(first);
    assert!(is_alive(&alive));
    last.bytes_mut().fill(1);
    drop(last);
    assert!(!is_alive(&alive));
}

#[test]
fn what_was_given_too_much_is_no_trouble_for_who_reclaims() {
    let (umem, _alive) = umem();
    let ring = umem.owner().count_ring();
    ring.take(2);
    umem.owner().settle_ring(&ring);
    umem.owner().give_free([0, 0]);
    assert_eq!(umem.reclaim(), 0);
    assert_eq!(umem.census().free, 8);
}

/// One thread drops a frame, while another takes frames from a ring and then drops the ring and the UMEM.
#[test]
fn a_frame_that_is_dropped_counts_with_what_is_true_then() {
    for _ in 0..50 {
        let (umem, alive) = umem();
        let ring = umem.owner().count_ring();
        let dropped = umem.frame().unwrap();
        let mut bases = Vec::new();
        umem.owner().take_free(2, &mut bases);
        ring.give(2);
        let start = Barrier::new(2);
        let mut late = thread::scope(|scope| {
            // Held, so that the other thread waits in the middle of its drop.
            let books = umem.owner().books();
            scope.spawn(|| {
                start.wait();
                drop(dropped);
            });
            start.wait();
            thread::sleep(std::time::Duration::from_millis(1));
            ring.take(2);
            let late: Vec<_> = bases.iter().map(|base| received(&umem, *base)).collect();
            drop(books);
            umem.owner().settle_ring(&ring);
            drop(umem);
            late
        });
        assert!(is_alive(&alive), "two frames are out");
        for frame in &mut late {
            frame.bytes_mut().fill(1);
        }
        drop(late);
        assert!(!is_alive(&alive));
    }
}

#[test]
fn frames_are_dropped_by_many_threads_and_the_memory_goes_once() {
    for _ in 0..100 {
        let (umem, alive) = umem();
        thread::scope(|scope| {
            for _ in 0..4 {
                let frames = (umem.frame().unwrap(), umem.frame().unwrap());
                scope.spawn(move || drop(frames));
            }
            scope.spawn(move || drop(umem));
        });
        assert!(!is_alive(&alive));
    }
}

#[test]
fn the_kernel_keeps_the_old_memory_of_what_is_reclaimed() {
    let (umem, alive) = umem();
    let (old, ring) = (umem.owner().base(), umem.owner().count_ring());
    let mut bases = Vec::new();
    umem.owner().take_free(3, &mut bases);
    for base in &bases {
        umem.owner().given(*base, Holder::Free);
    }
    ring.give(3);
    assert_eq!(umem.reclaim(), 0, "a ring is there");
    umem.owner().settle_ring(&ring);
    let frame = umem.frame();
    assert_eq!(umem.reclaim(), 0, "a frame is out");
    drop(frame);
    assert_eq!(umem.reclaim(), 3);
    assert_ne!(umem.owner().base(), old);
    assert_eq!((umem.census().free, alive.load(Relaxed)), (8, 1));
}

#[test]
fn nothing_is_reclaimed_while_a_socket_lives() {
    let (umem, _alive) = umem();
    let socket = Arc::new(SocketCore::fake());
    umem.owner().sockets.lock().unwrap().push(Arc::downgrade(&socket));
    let ring = umem.owner().count_ring();
    umem.owner().take_free(1, &mut Vec::new());
    ring.give(1);
    umem.owner().settle_ring(&ring);
    assert_eq!(umem.reclaim(), 0, "its fill ring has a frame");
    drop(socket);
    assert_eq!(umem.reclaim(), 1);
}

#[test]
#[cfg(feature = "audit")]
fn a_frame_that_is_given_twice_is_none() {
    let (umem, _alive) = umem();
    let frame = umem.frame().unwrap();
    let descriptor = Descriptor { address: frame.into_base() + 5, length: 1, options: 0 };
    let inner = umem.owner();
    inner.given(descriptor.address, Holder::Program);
    assert_eq!(inner.lent(descriptor), descriptor);
    assert_eq!(inner.taken(descriptor), descriptor);
    for again in [inner.taken(descriptor), inner.lent(descriptor)] {
        assert_eq!(inner.geometry.locate(again.address, 0), None);
    }
}
