//! What stands before a packet: requests to the device that sends it, and hints of the device that has received it.

use super::frame::{BadDescriptor, Packet};
use super::geometry::Place;
use super::kind::{Exclusive, Kind};
use crate::xsk::refusal::Refusal;

/// `XDP_TXMD_FLAGS_TIMESTAMP`, and its like; include/uapi/linux/if_xdp.h.
const FLAG_TIMESTAMP: u64 = 1;
const FLAG_CHECKSUM: u64 = 1 << 1;
const FLAG_LAUNCH_TIME: u64 = 1 << 2;

/// What the device is asked to do with a packet that it sends; `struct xsk_tx_metadata`, since kernel 6.8.
///
/// Which of it a device does is told by its features; what it does not is ignored without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxMetadata {
    timestamp: bool,
    checksum: Option<(u16, u16)>,
    launch_time: Option<u64>,
}

impl TxMetadata {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tell when the packet was sent: [`Completed::tx_timestamp`](super::super::Completed::tx_timestamp).
    #[must_use]
    pub fn timestamp(self) -> Self {
        Self { timestamp: true, ..self }
    }

    /// Sum the bytes from `start` of the packet on, and put the checksum `offset` bytes behind `start`. There must be the
    /// sum of the pseudo header, uncomplemented.
    #[must_use]
    pub fn checksum(self, start: u16, offset: u16) -> Self {
        Self { checksum: Some((start, offset)), ..self }
    }

    /// Send the packet at this time, in nanoseconds of the device's clock; since kernel 6.15.
    #[must_use]
    pub fn launch_time(self, nanoseconds: u64) -> Self {
        Self { launch_time: Some(nanoseconds), ..self }
    }

    /// As the kernel reads it: flags, checksum places, launch time.
    pub(crate) fn bytes(&self) -> [u8; 24] {
        let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
        let flags = flag(self.timestamp, FLAG_TIMESTAMP)
            | flag(self.checksum.is_some(), FLAG_CHECKSUM)
            | flag(self.launch_time.is_some(), FLAG_LAUNCH_TIME);
        let (start, offset) = self.checksum.unwrap_or_default();
        let places = u64::from(start) | u64::from(offset) << 16;
        let mut bytes = [0; 24];
        let words = [flags, places, self.launch_time.unwrap_or_default()];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// What an XDP program has put directly before a packet's data (bpf_xdp_adjust_meta), for the socket's program to read.
///
/// There is no format that all agree on. A last word that tells whose it is keeps one from being taken for another.
pub trait RxMetadata: Sized {
    /// Bytes of it.
    const LENGTH: u32;

    /// From so many bytes; `None` if they are something else.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

impl<K: Kind> Packet<K> {
    /// Asks the device to do something with the packet. To be done last: whoever moves the packet's beginning or end loses it.
    ///
    /// # Errors
    /// [`Refusal::NoRoomForMetadata`] if the UMEM has no [place](super::UmemBuilder::tx_metadata) for it, or the packet begins too
    /// early in its frame; [`Refusal::OddAddress`]; [`Refusal::ChecksumOutside`]; [`Refusal::NoLaunchTime`];
    /// [`Refusal::BadDescriptor`].
    pub fn set_tx_metadata(&mut self, metadata: &TxMetadata) -> Result<(), Refusal> {
        let at = self.tx_metadata_place()?.ok_or(Refusal::NoRoomForMetadata)?;
        if !at.offset.is_multiple_of(2) {
            return Err(Refusal::OddAddress);
        }
        self.check_metadata(metadata)?;
        let first = self.inner().pointer(at);
        for (index, byte) in metadata.bytes().into_iter().enumerate() {
            // SAFETY: the UMEM's metadata is at least as long, and before the packet within its frame.
            let to = unsafe { first.add(index) };
            // SAFETY: mapped, and of a frame of which this is the only token. Volatile, for memory that others have too.
            unsafe { to.write_volatile(byte) };
        }
        self.set_metadata_flag();
        Ok(())
    }

    /// What is wrong with it blocks the TX ring: the kernel does not take the packet, nor what is behind it.
    fn check_metadata(&self, metadata: &TxMetadata) -> Result<(), Refusal> {
        if metadata.launch_time.is_some() && !self.inner().has_launch_time {
            return Err(Refusal::NoLaunchTime);
        }
        match metadata.checksum {
            Some((start, offset)) if u32::from(start) + u32::from(offset) + 2 > self.len() => {
                Err(Refusal::ChecksumOutside)
            }
            _ => Ok(()),
        }
    }

    /// Where the metadata for sending it begins; `None` if there is no room.
    fn tx_metadata_place(&self) -> Result<Option<Place>, BadDescriptor> {
        let length = self.inner().geometry.tx_metadata;
        let place = self.place()?;
        let offset = place.offset.checked_sub(length).filter(|_| length > 0);
        Ok(offset.map(|offset| Place { offset, ..place }))
    }

    /// `completion.tx_timestamp`, the second word.
    pub(crate) fn completed_timestamp(&self) -> Result<u64, BadDescriptor> {
        let at = self.tx_metadata_place()?.ok_or(self.bad())?;
        let first = self.inner().pointer(Place { offset: at.offset + 8, ..at });
        let mut bytes = [0; 8];
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the metadata.
            let from = unsafe { first.add(index) };
            // SAFETY: mapped, and of a frame of which this is the only token.
            *byte = unsafe { from.read_volatile() };
        }
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Packet<Exclusive> {
    /// What the XDP program has put before the packet; `None` if that is something else, or there is no room for it.
    ///
    /// # Errors
    /// If the kernel told a place outside of all frames.
    pub fn rx_metadata<T: RxMetadata>(&self) -> Result<Option<T>, BadDescriptor> {
        let place = self.place()?;
        let Some(offset) = place.offset.checked_sub(T::LENGTH) else { return Ok(None) };
        let first = self.inner().pointer(Place { offset, ..place });
        // SAFETY: within the frame of the packet, which is the only token for it, and initialized.
        let bytes = unsafe { std::slice::from_raw_parts(first.as_ptr(), T::LENGTH as usize) };
        Ok(T::parse(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(TxMetadata::new().bytes(), [0; 24]);
        let all = TxMetadata::new().timestamp().checksum(0x1234, 0x5678).launch_time(9);
        let mut expected = [0; 24];
        expected[0] = 7;
        expected[8..12].copy_from_slice(&[0x34, 0x12, 0x78, 0x56]);
        expected[16] = 9;
        assert_eq!(all.bytes(), expected);
    }
}
