//! Frames and packets: tokens, each the only one for its memory.

use super::audit::Holder;
use super::geometry::Place;
use super::inner::{Inner, Owner, give_back};
use super::kind::{Exclusive, Kind, Shared};
use crate::xsk::refusal::{Refusal, Rejected};
use crate::xsk::ring::memory::{Descriptor, XDP_TX_METADATA};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A frame of a [`Umem`](super::Umem), which nobody else has.
///
/// It goes to a fill ring, or becomes a [`Packet`] to send. A frame that is dropped goes back to the UMEM's free ones.
pub struct Frame<K: Kind = Exclusive> {
    umem: NonNull<Inner>,
    base: u64,
    kind: PhantomData<K>,
}

// SAFETY: it is the only way to its memory, and what it points to is Send and Sync.
unsafe impl<K: Kind> Send for Frame<K> {}
// SAFETY: a shared frame or packet only reads.
unsafe impl<K: Kind> Sync for Frame<K> {}

impl<K: Kind> fmt::Debug for Frame<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("base", &self.base).finish_non_exhaustive()
    }
}

impl<K: Kind> Frame<K> {
    /// # Safety
    /// A frame begins at `base`, and nobody else has it.
    #[inline]
    pub(crate) unsafe fn new(umem: NonNull<Inner>, base: u64) -> Self {
        Self { umem, base, kind: PhantomData }
    }

    #[inline]
    pub(crate) fn umem(&self) -> NonNull<Inner> {
        self.umem
    }

    /// What there was a token for.
    #[inline]
    pub(crate) fn into_base(self) -> u64 {
        ManuallyDrop::new(self).base
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: it outlives its frames.
        unsafe { self.umem.as_ref() }
    }

    /// Bytes of the whole frame: the chunk size.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame always has bytes")]
    pub fn len(&self) -> u32 {
        self.inner().geometry.chunk_size
    }

    /// A packet of `length` bytes of whatever the frame holds, behind the UMEM's headroom and TX metadata.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], with the frame, if it does not fit.
    #[inline]
    pub fn into_packet(self, length: u32) -> Result<Packet<K>, Rejected<Self>> {
        let offset = self.inner().geometry.tx_offset();
        self.into_packet_at(offset, length)
    }

    /// A packet of `length` bytes from `offset` of the frame on.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], with the frame, if it does not fit.
    #[inline]
    pub fn into_packet_at(self, offset: u32, length: u32) -> Result<Packet<K>, Rejected<Self>> {
        let geometry = &self.inner().geometry;
        if !geometry.has_room(offset, length) {
            return Err(Rejected::new(self, Refusal::TooLong));
        }
        let address = geometry.address(Place { base: self.base, offset });
        let umem = self.umem;
        let _ = self.into_base();
        // SAFETY: the frame's own address, and the frame is given up for it.
        Ok(unsafe { Packet::new(umem, Descriptor { address, length, options: 0 }) })
    }
}

impl Frame<Exclusive> {
    /// All bytes of the frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let place = Place { base: self.base, offset: 0 };
        // SAFETY: a frame's own bytes, initialized, and the kernel's no more.
        unsafe { slice(self.inner(), place, self.len()) }
    }

    /// All bytes of the frame.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let place = Place { base: self.base, offset: 0 };
        // SAFETY: as above, and this is the only way to them.
        unsafe { slice_mut(self.inner(), place, self.len()) }
    }

    /// A packet of these bytes.
    ///
    /// # Errors
    /// [`Refusal::TooLong`], with the frame, if they do not fit.
    pub fn into_packet_of(self, bytes: &[u8]) -> Result<Packet, Rejected<Self>> {
        let Ok(length) = u32::try_from(bytes.len()) else {
            return Err(Rejected::new(self, Refusal::TooLong));
        };
        let mut packet = self.into_packet(length)?;
        if let Ok(data) = packet.data_mut() {
            data.copy_from_slice(bytes);
        }
        Ok(packet)
    }
}

impl<K: Kind> Drop for Frame<K> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: its own UMEM; this was the last use.
        unsafe { give_back(self.umem, Some(self.base)) };
    }
}

/// The kernel told an address, or a length, that is not within a frame. The frame is written off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {address:#x} are not within a frame")]
pub struct BadDescriptor {
    /// As told, from the beginning of the UMEM.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

/// A packet in a frame of a [`Umem`](super::Umem), which nobody else has: received, or to be sent.
///
/// What came from the kernel is checked when it is used. A packet that is dropped gives its frame back to the UMEM.
pub struct Packet<K: Kind = Exclusive> {
    umem: NonNull<Inner>,
    descriptor: Descriptor,
    kind: PhantomData<K>,
}

// SAFETY: as for Frame.
unsafe impl<K: Kind> Send for Packet<K> {}
// SAFETY: as for Frame.
unsafe impl<K: Kind> Sync for Packet<K> {}

impl<K: Kind> fmt::Debug for Packet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Descriptor { address, length, options } = self.descriptor;
        f.debug_struct("Packet")
            .field("address", &address)
            .field("length", &length)
            .field("options", &options)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> Packet<K> {
    /// # Safety
    /// If the address is within a frame, nobody else has that.
    #[inline]
    pub(crate) unsafe fn new(umem: NonNull<Inner>, descriptor: Descriptor) -> Self {
        Self { umem, descriptor, kind: PhantomData }
    }

    #[inline]
    pub(crate) fn umem(&self) -> NonNull<Inner> {
        self.umem
    }

    /// What there was a token for.
    #[inline]
    pub(crate) fn into_descriptor(self) -> Descriptor {
        ManuallyDrop::new(self).descriptor
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        // SAFETY: it outlives its packets.
        unsafe { self.umem.as_ref() }
    }

    #[inline]
    pub(crate) fn bad(&self) -> BadDescriptor {
        BadDescriptor { address: self.descriptor.address, length: self.descriptor.length }
    }

    #[inline]
    pub(crate) fn place(&self) -> Result<Place, BadDescriptor> {
        place(self.inner(), self.descriptor)
    }

    /// Bytes of the packet.
    #[inline]
    pub fn len(&self) -> u32 {
        self.descriptor.length
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.descriptor.length == 0
    }

    /// Bytes of its frame before it.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn headroom(&self) -> Result<u32, BadDescriptor> {
        Ok(self.place()?.offset)
    }

    /// Bytes of its frame behind it.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn tailroom(&self) -> Result<u32, BadDescriptor> {
        Ok(self.inner().geometry.chunk_size - self.place()?.offset - self.descriptor.length)
    }

    /// Lets the packet begin `bytes` earlier, with whatever is there. Metadata that was asked for is forgotten.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] if there is no such headroom, [`Refusal::BadDescriptor`]; nothing is changed then.
    #[inline]
    pub fn extend_front(&mut self, bytes: u32) -> Result<(), Refusal> {
        let place = self.place()?;
        let offset = place.offset.checked_sub(bytes).ok_or(Refusal::TooLong)?;
        self.move_to(Place { offset, ..place }, self.descriptor.length + bytes);
        Ok(())
    }

    /// Lets the packet begin `bytes` later. Metadata that was asked for is forgotten.
    ///
    /// # Errors
    /// [`Refusal::TooShort`] if it has not as many, or would begin where its frame ends; [`Refusal::BadDescriptor`]. Nothing is
    /// changed then.
    #[inline]
    pub fn trim_front(&mut self, bytes: u32) -> Result<(), Refusal> {
        let place = self.place()?;
        let length = self.descriptor.length.checked_sub(bytes).ok_or(Refusal::TooShort)?;
        let offset = place.offset + bytes;
        // The end of a frame is the next frame's address.
        if offset == self.inner().geometry.chunk_size {
            return Err(Refusal::TooShort);
        }
        self.move_to(Place { offset, ..place }, length);
        Ok(())
    }

    /// Gives the packet another length; what is added is whatever is there. Metadata that was asked for is forgotten.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] if the frame ends before, [`Refusal::BadDescriptor`]; nothing is changed then.
    #[inline]
    pub fn set_len(&mut self, length: u32) -> Result<(), Refusal> {
        let place = self.place()?;
        let room = self.inner().geometry.chunk_size - place.offset;
        if length > room {
            return Err(Refusal::TooLong);
        }
        self.move_to(place, length);
        Ok(())
    }

    #[inline]
    fn move_to(&mut self, place: Place, length: u32) {
        let address = self.inner().geometry.address(place);
        self.descriptor = Descriptor { address, length, options: 0 };
    }

    pub(crate) fn set_metadata_flag(&mut self) {
        self.descriptor.options |= XDP_TX_METADATA;
    }

    /// Its frame, whatever it holds.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames; the frame is written off then.
    #[inline]
    pub fn into_frame(self) -> Result<Frame<K>, BadDescriptor> {
        let base = self.inner().geometry.base_of(self.descriptor.address).ok_or(self.bad())?;
        let umem = self.umem;
        let _ = self.into_descriptor();
        // SAFETY: where a frame begins, and the packet in it is given up for it.
        Ok(unsafe { Frame::new(umem, base) })
    }
}

impl Packet<Exclusive> {
    /// The packet's bytes.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn data(&self) -> Result<&[u8], BadDescriptor> {
        let place = self.place()?;
        // SAFETY: within a frame, of which this is the only token.
        Ok(unsafe { slice(self.inner(), place, self.descriptor.length) })
    }

    /// The packet's bytes.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn data_mut(&mut self) -> Result<&mut [u8], BadDescriptor> {
        let place = self.place()?;
        // SAFETY: as above.
        Ok(unsafe { slice_mut(self.inner(), place, self.descriptor.length) })
    }
}

impl Packet<Shared> {
    /// Copies the packet's bytes, as far as `to` reaches; how many. Another process may change them meanwhile.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    pub fn read_into(&self, to: &mut [u8]) -> Result<usize, BadDescriptor> {
        let from = self.inner().pointer(self.place()?);
        let length = to.len().min(self.descriptor.length as usize);
        for (index, byte) in to.iter_mut().take(length).enumerate() {
            // SAFETY: within the packet.
            let from = unsafe { from.add(index) };
            // SAFETY: mapped. Volatile, since others may write it.
            *byte = unsafe { from.read_volatile() };
        }
        Ok(length)
    }

    /// Overwrites the packet's bytes from the first on, as far as it reaches; how many.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    pub fn write_from(&mut self, from: &[u8]) -> Result<usize, BadDescriptor> {
        let to = self.inner().pointer(self.place()?);
        let length = from.len().min(self.descriptor.length as usize);
        for (index, byte) in from.iter().take(length).enumerate() {
            // SAFETY: within the packet.
            let to = unsafe { to.add(index) };
            // SAFETY: mapped. Volatile, since others may read it.
            unsafe { to.write_volatile(*byte) };
        }
        Ok(length)
    }
}

impl<K: Kind> Drop for Packet<K> {
    #[inline]
    fn drop(&mut self) {
        drop_packet(self.umem, self.descriptor.address);
    }
}

/// Of the descriptor it takes the address alone, which goes in a register: the others need no place in memory then.
#[cold]
fn drop_packet(umem: NonNull<Inner>, address: u64) {
    // SAFETY: the Inner outlives its packets, and this one is about to go.
    let base = unsafe { umem.as_ref() }.geometry.base_of(address);
    // SAFETY: its own UMEM; this was the last use.
    unsafe { give_back(umem, base) };
}

#[inline]
fn place(inner: &Inner, descriptor: Descriptor) -> Result<Place, BadDescriptor> {
    let Descriptor { address, length, .. } = descriptor;
    inner.geometry.locate(address, length).ok_or(BadDescriptor { address, length })
}

/// # Safety
/// The bytes are within a frame of exclusive memory, which is the caller's for as long as the slice lives.
#[inline]
unsafe fn slice(inner: &Inner, place: Place, length: u32) -> &[u8] {
    let first = inner.pointer(place);
    // SAFETY: mapped, initialized (zeroed at first), and nobody else's.
    unsafe { std::slice::from_raw_parts(first.as_ptr(), length as usize) }
}

/// # Safety
/// As for [`slice`], and there is no other slice of them.
#[inline]
#[allow(clippy::mut_from_ref, reason = "the token is what is borrowed mutably")]
unsafe fn slice_mut(inner: &Inner, place: Place, length: u32) -> &mut [u8] {
    let first = inner.pointer(place);
    // SAFETY: mapped, initialized, and nobody else's.
    unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), length as usize) }
}

/// A received packet, lent for a moment: it stays where it is.
pub struct PacketView<'a, K: Kind = Exclusive> {
    umem: NonNull<Inner>,
    descriptor: Descriptor,
    /// The only one for its frame, for as long.
    lent: PhantomData<(&'a mut (), K)>,
}

impl<K: Kind> fmt::Debug for PacketView<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketView")
            .field("length", &self.descriptor.length)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> PacketView<'_, K> {
    /// # Safety
    /// As for [`Packet::new`]; the UMEM and the frame are the caller's for the lifetime that it is given.
    #[inline]
    pub(crate) unsafe fn new(umem: NonNull<Inner>, descriptor: Descriptor) -> Self {
        Self { umem, descriptor, lent: PhantomData }
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: it outlives the ring that lends the packet.
        unsafe { self.umem.as_ref() }
    }

    /// Bytes of the packet.
    #[inline]
    pub fn len(&self) -> u32 {
        self.descriptor.length
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.descriptor.length == 0
    }
}

impl PacketView<'_, Exclusive> {
    /// The packet's bytes.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn data(&self) -> Result<&[u8], BadDescriptor> {
        let place = place(self.inner(), self.descriptor)?;
        // SAFETY: within a frame that is lent to this view alone.
        Ok(unsafe { slice(self.inner(), place, self.descriptor.length) })
    }

    /// The packet's bytes.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    #[inline]
    pub fn data_mut(&mut self) -> Result<&mut [u8], BadDescriptor> {
        let place = place(self.inner(), self.descriptor)?;
        // SAFETY: as above.
        Ok(unsafe { slice_mut(self.inner(), place, self.descriptor.length) })
    }
}

impl Owner {
    /// A frame that was free.
    ///
    /// # Safety
    /// `base` was taken from the free frames.
    #[inline]
    pub(crate) unsafe fn frame<K: Kind>(&self, base: u64) -> Frame<K> {
        self.pass(Some(base), Holder::Free, Holder::Program);
        // SAFETY: as promised.
        unsafe { Frame::new(self.pointer(), base) }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
