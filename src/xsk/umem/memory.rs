//! Where the bytes of a UMEM are.

use crate::sys::Kernel;
use crate::sys::mmap::{Backing, Mapping, Pages};
use std::io;
use std::ptr::NonNull;

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Of this process alone, and made here.
    Own { mapping: Mapping, pages: Pages },
    /// Of a file, which others may have too.
    File(Mapping),
    /// Of somebody who has promised that it stays.
    Raw(NonNull<u8>),
    #[cfg(any(test, fuzzing))]
    Heap(super::heap::Heap),
}

// SAFETY: memory of the process, not of a thread.
unsafe impl Send for Memory {}
// SAFETY: a shared Memory only tells where it is.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Own { mapping, .. } | Self::File(mapping) => mapping.base(),
            Self::Raw(base) => *base,
            #[cfg(any(test, fuzzing))]
            Self::Heap(heap) => heap.base(),
        }
    }

    /// Fresh memory for a UMEM whose frames the kernel had, in place of this; `None` if this will do, since nobody has
    /// references to it.
    ///
    /// That a socket is closed tells nothing: the kernel ends its work later, and not before the last copy of the descriptor
    /// is closed, which may be anywhere. Until then it writes to the old pages, which it holds itself.
    pub(crate) fn renewed(&self) -> io::Result<Option<Self>> {
        match self {
            Self::Own { mapping, pages } => {
                let backing = Backing::Anonymous(*pages);
                let mapping = Kernel::default().map(mapping.length(), backing)?;
                // Sockets are opened over it again, and fast.
                mapping.populate()?;
                Ok(Some(Self::Own { mapping, pages: *pages }))
            }
            Self::File(_) => Ok(None),
            Self::Raw(_) => Err(io::ErrorKind::Unsupported.into()),
            #[cfg(any(test, fuzzing))]
            Self::Heap(heap) => Ok(Some(Self::Heap(heap.renewed()))),
        }
    }
}
