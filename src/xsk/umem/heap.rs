//! Memory of the heap for a UMEM in tests: who reaches beyond it, or for it when it is gone, is found by the sanitizers.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many are alive.
pub(crate) type Alive = Arc<AtomicUsize>;

#[derive(Debug)]
pub(crate) struct Heap {
    base: NonNull<u8>,
    layout: Layout,
    alive: Alive,
}

impl Heap {
    pub(crate) fn new(length: usize, alive: &Alive) -> Self {
        let Ok(layout) = Layout::from_size_align(length.max(1), 4096) else {
            std::process::abort()
        };
        // SAFETY: not of zero bytes.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        alive.fetch_add(1, Ordering::Relaxed);
        Self { base, layout, alive: alive.clone() }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn renewed(&self) -> Self {
        Self::new(self.layout.size(), &self.alive)
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: allocated with this layout, and nobody has its addresses once it goes.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
