//! What the targets of ELF objects share: changes to such files, and a count of descriptors.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Runs `work`, and panics if it leaves a descriptor open.
pub fn closes_all(work: impl FnOnce()) {
    // The lowest free one: a leak moves it up.
    let free = || File::open("/dev/null").expect("there is /dev/null").as_raw_fd();
    let before = free();
    work();
    assert_eq!(free(), before, "a descriptor is left open");
}

/// Bytes changed blindly seldom get past libelf. Half of the changes are to one field of a header, a symbol, a
/// relocation, BTF or an instruction, found by the file's own section table.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) | 1);
    if random.below(2) == 0 || change_field(&mut data[..size], &mut random).is_none() {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    size
}

/// xorshift
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % end.max(1)
    }
}

fn number<const N: usize>(elf: &[u8], at: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(elf.get(at..at.checked_add(N)?)?);
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

fn change_field(elf: &mut [u8], random: &mut Random) -> Option<()> {
    const SECTION: usize = 64;
    let (headers, count) = (number::<8>(elf, 0x28)?, number::<2>(elf, 0x3c)?);
    let header = headers.checked_add(random.below(count.min(64)).checked_mul(SECTION)?)?;
    let (start, length) = match random.below(4) {
        0 => (header, SECTION),
        1 => (0, SECTION),
        _ => (
            number::<8>(elf, header.checked_add(0x18)?)?,
            number::<8>(elf, header.checked_add(0x20)?)?,
        ),
    };
    let width = [1, 2, 4, 4, 4, 8][random.below(6)];
    let at = start.checked_add(random.below(length / width) * width)?;
    let old = number::<8>(elf, at).unwrap_or(0) as u64;
    let other = number::<4>(elf, random.below(elf.len() / 4) * 4)? as u64;
    let new = match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(width * 8),
        3 => elf.len() as u64,
        4 => old.wrapping_add(1),
        5 => old.wrapping_sub(1),
        6 => other,
        _ => random.next() & 0xff,
    };
    let field = elf.get_mut(at..at.checked_add(width)?)?;
    field.copy_from_slice(&new.to_le_bytes()[..width]);
    Some(())
}
