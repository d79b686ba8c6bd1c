//! In whose hands each frame is, written down, with the feature `audit`: a frame that the kernel gives twice is an error
//! then, and not two tokens for the same bytes. Without the feature nothing is written, and nothing is asked.

#![forbid(unsafe_code)]

use super::geometry::Geometry;

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Holder {
    /// The UMEM, or a cache.
    Free,
    /// A frame or a packet.
    Program,
    /// A ring, or the kernel.
    Kernel,
}

#[cfg(feature = "audit")]
mod table {
    use super::{Geometry, Holder};
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// A byte for each frame.
    #[derive(Debug)]
    pub(crate) struct Audit(Box<[AtomicU8]>);

    impl Audit {
        pub(crate) const IS_ON: bool = true;

        pub(crate) fn new(frames: u32) -> Self {
            Self((0..frames).map(|_| AtomicU8::new(Holder::Free as u8)).collect())
        }

        /// Moves a frame from one to another; `false` if the one has it not, and nothing is changed then. What is no frame
        /// may go anywhere.
        ///
        /// Relaxed: what is said about the frame's bytes is said by the rings and locks that it goes through.
        pub(crate) fn pass(
            &self,
            geometry: &Geometry,
            base: Option<u64>,
            from: Holder,
            to: Holder,
        ) -> bool {
            let frame = base.map(|base| base / u64::from(geometry.chunk_size));
            let entry = frame.and_then(|frame| self.0.get(usize::try_from(frame).ok()?));
            entry.is_none_or(|entry| {
                entry.compare_exchange(from as u8, to as u8, Relaxed, Relaxed).is_ok()
            })
        }

        pub(crate) fn reset(&self) {
            for entry in &self.0 {
                entry.store(Holder::Free as u8, Relaxed);
            }
        }
    }
}

#[cfg(not(feature = "audit"))]
mod table {
    use super::{Geometry, Holder};

    #[derive(Debug)]
    pub(crate) struct Audit;

    #[allow(clippy::unused_self, reason = "as with the table")]
    impl Audit {
        pub(crate) const IS_ON: bool = false;

        pub(crate) fn new(_: u32) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn pass(&self, _: &Geometry, _: Option<u64>, _: Holder, _: Holder) -> bool {
            true
        }

        pub(crate) fn reset(&self) {}
    }
}

pub(crate) use table::Audit;
