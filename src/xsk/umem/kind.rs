//! Whose memory it is.

mod sealed {
    pub trait Sealed {}
}

/// What kind of memory a UMEM has: [`Exclusive`] or [`Shared`].
pub trait Kind: sealed::Sealed + Send + Sync + 'static {}

/// Memory of this process alone: its packets are slices.
#[derive(Clone, Copy, Debug)]
pub enum Exclusive {}

/// Memory that other processes have too, and may write at any time: its packets are copied in and out.
#[derive(Clone, Copy, Debug)]
pub enum Shared {}

impl sealed::Sealed for Exclusive {}
impl sealed::Sealed for Shared {}
impl Kind for Exclusive {}
impl Kind for Shared {}
