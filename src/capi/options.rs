//! Options that grow from version to version: structures that begin with their size.

/// Words of the longest that is known here.
const LONGEST: usize = 16;

/// The words of a caller's `T`, whose members end at `ends`; members that it is too short for are 0. `None` for NULL, for
/// one that is shorter than its own size, and for one that is longer than `T`, with something there: an option that is
/// asked for must not go unheard.
///
/// # Safety
/// Behind a real pointer are as many bytes as its first word says.
pub(super) unsafe fn read<T>(options: *const u8, ends: &[usize]) -> Option<[u64; LONGEST]> {
    const { assert!(size_of::<T>() <= 8 * LONGEST && align_of::<T>() <= 8) };
    if !super::entry::is_real(options) {
        return None;
    }
    // SAFETY: the first word is there, by the caller's word.
    let size = unsafe { options.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() {
        return None;
    }
    let mut words = [0; LONGEST];
    let own = size.min(size_of::<T>());
    // Half of a pointer is none.
    let whole = ends.iter().copied().filter(|end| *end <= own).max().unwrap_or(0);
    // SAFETY: both have that many bytes, and words are the function's own.
    unsafe { std::ptr::copy_nonoverlapping(options, words.as_mut_ptr().cast(), whole) };
    // SAFETY: as many are there, by the caller's word.
    let tail = unsafe { options.add(own) };
    // SAFETY: as above.
    let rest = unsafe { std::slice::from_raw_parts(tail, size - own) };
    rest.iter().all(|byte| *byte == 0).then_some(words)
}
