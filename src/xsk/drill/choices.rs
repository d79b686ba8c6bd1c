//! Decisions, one after the other, from bytes that a fuzzer chooses.

pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// No byte is left; what is asked then is answered with 0.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`; 0 for 0.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        let number = match limit {
            0..=0x100 => u32::from(self.byte()),
            _ => u32::from(self.byte()) << 8 | u32::from(self.byte()),
        };
        number.checked_rem(limit).unwrap_or(0)
    }

    pub(super) fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// Yes, one time in so many.
    pub(super) fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == times - 1
    }
}
