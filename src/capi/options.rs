//! Options that grow from version to version: structures that begin with their size.

/// A structure of options.
///
/// # Safety
/// It has C's layout, begins with a `usize`, and consists of integers and pointers, so that any bytes are one.
pub(super) unsafe trait Options: Sized {
    /// How long a structure is that ends with each of its members.
    const ENDS: &'static [usize];
}

/// The caller's options; what they are too short for is 0. `None` for NULL, for a structure that is shorter than its own size,
/// and for one that is longer than `T`, with something there: an option that is asked for must not go unheard.
///
/// # Safety
/// Behind a real pointer are as many bytes as the first word there says.
pub(super) unsafe fn read<T: Options>(options: *const T) -> Option<T> {
    if !super::entry::is_real(options) {
        return None;
    }
    // SAFETY: the first word is there, by the caller's word.
    let size = unsafe { options.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() {
        return None;
    }
    let (from, own) = (options.cast::<u8>(), size.min(size_of::<T>()));
    // A member of which only a part is there is not there.
    let whole = T::ENDS.iter().copied().filter(|end| *end <= own).max().unwrap_or(0);
    let mut known = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: both have that many bytes, and known is the function's own.
    unsafe { std::ptr::copy_nonoverlapping(from, known.as_mut_ptr().cast(), whole) };
    // SAFETY: as many are there, by the caller's word.
    let tail = unsafe { from.add(own) };
    // SAFETY: as above.
    let rest = unsafe { std::slice::from_raw_parts(tail, size - own) };
    // SAFETY: any bytes are one, and all are written.
    rest.iter().all(|byte| *byte == 0).then(|| unsafe { known.assume_init() })
}
