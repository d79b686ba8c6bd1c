//! What every entry goes through, and the ways in which C functions give back what came of them.

use super::messages;
use crate::error::{Error, ErrorKind};
use std::ffi::c_int;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An error as C has it: an errno, which is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) c_int);

pub(super) const INVALID: Errno = Errno(libc::EINVAL);

/// Errors in place of pointers are the last page of the address space; include/linux/err.h.
const MAX_ERRNO: usize = 4095;

impl From<Error> for Errno {
    /// What C has no place for goes to the caller's messages.
    fn from(error: Error) -> Self {
        log::warn!("{error}");
        Self::of(&error)
    }
}

impl Errno {
    /// The errno that C libxdp gives in such a case, or the kernel's.
    pub(super) fn of(error: &Error) -> Self {
        Self(match error.kind() {
            ErrorKind::ChainFull { .. } => libc::E2BIG,
            ErrorKind::ForeignProgram(_)
            | ErrorKind::ChainAttached { .. }
            | ErrorKind::HeldByLink { .. }
            | ErrorKind::AmbiguousLink { .. }
            | ErrorKind::DamagedChain { .. }
            | ErrorKind::ModeConflict { .. }
            | ErrorKind::ProtocolVersion { .. }
            | ErrorKind::LockTimeout { .. }
            | ErrorKind::Contended { .. } => libc::EBUSY,
            ErrorKind::AlreadyAttached { .. } | ErrorKind::AlreadyLoaded => libc::EEXIST,
            ErrorKind::NotAttached
            | ErrorKind::NotInChain { .. }
            | ErrorKind::NoBpffs(_)
            | ErrorKind::NoNetns(_)
            | ErrorKind::NoSuchName(_)
            | ErrorKind::NoSuchProgram { .. } => libc::ENOENT,
            ErrorKind::SpentObject => libc::EBADF,
            ErrorKind::NoFreplace { .. }
            | ErrorKind::ModeUnsupported { .. }
            | ErrorKind::OnlyOne { .. }
            | ErrorKind::RunConfig(_)
            | ErrorKind::NoFrags { .. }
            | ErrorKind::DefaultProgramVersion { .. } => libc::EOPNOTSUPP,
            _ => error.errno().unwrap_or(libc::EINVAL),
        })
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// As long as it lives, a cancellation of the thread waits: it would unwind what cannot be unwound by C.
struct Uncancelled(c_int);

impl Uncancelled {
    fn new() -> Self {
        let mut before = 0;
        // SAFETY: it writes the state before.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Self(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: the state is one that it was in.
        unsafe { pthread_setcancelstate(self.0, std::ptr::null_mut()) };
    }
}

/// Runs what an entry does. A panic, which is a fault of this library, becomes `fallback`.
pub(super) fn guarded<T>(fallback: impl FnOnce() -> T, work: impl FnOnce() -> T) -> T {
    let _uncancelled = Uncancelled::new();
    contained(fallback, work)
}

/// As [`guarded`], for what comes to no system call.
fn contained<T>(fallback: impl FnOnce() -> T, work: impl FnOnce() -> T) -> T {
    messages::set_up();
    // What a panic leaves half-done is left alone: nothing of it is looked at again but by its owner's drop.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        // Its payload may panic when it goes.
        std::mem::forget(panic);
        fallback()
    })
}

/// 0, or a negative errno, which is in `errno` too.
pub(super) fn status(work: impl FnOnce() -> Result<(), Errno>) -> c_int {
    number(|| work().map(|()| 0))
}

/// A number, or a negative errno, which is in `errno` too.
pub(super) fn number(work: impl FnOnce() -> Result<c_int, Errno>) -> c_int {
    match guarded(|| Err(Errno(libc::EFAULT)), work) {
        Ok(number) => number,
        Err(Errno(errno)) => {
            set_errno(errno);
            -errno
        }
    }
}

/// A pointer, or an error in place of one.
pub(super) fn pointer<T>(work: impl FnOnce() -> Result<*mut T, Errno>) -> *mut T {
    match guarded(|| Err(Errno(libc::EFAULT)), work) {
        Ok(pointer) => pointer,
        Err(Errno(errno)) => {
            set_errno(errno);
            std::ptr::without_provenance_mut((-errno as isize).cast_unsigned())
        }
    }
}

/// A pointer, or NULL with `errno` set.
pub(super) fn or_null<T>(work: impl FnOnce() -> Result<*mut T, Errno>) -> *mut T {
    match guarded(|| Err(Errno(libc::EFAULT)), work) {
        Ok(pointer) => pointer,
        Err(Errno(errno)) => {
            set_errno(errno);
            std::ptr::null_mut()
        }
    }
}

/// A pointer that is asked for, or NULL with `errno` 0, as C libxdp gives it for nothing.
pub(super) fn looked_up<T>(work: impl FnOnce() -> Option<*mut T>) -> *mut T {
    guarded(|| None, work).unwrap_or_else(|| {
        set_errno(0);
        std::ptr::null_mut()
    })
}

/// What is at a caller's pointer; `None` for NULL and for an error in place of a pointer.
///
/// # Safety
/// Any other pointer must be to a live `T` that nobody changes for as long as the reference is used.
pub(super) unsafe fn at<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: neither NULL nor an error; the caller promises the rest.
    is_real(pointer).then(|| unsafe { &*pointer })
}

/// As [`at`], to change it.
///
/// # Safety
/// Any other pointer must be to a live `T` that nobody else uses for as long as the reference is used.
pub(super) unsafe fn at_mut<'a, T>(pointer: *mut T) -> Option<&'a mut T> {
    // SAFETY: neither NULL nor an error; the caller promises the rest.
    is_real(pointer).then(|| unsafe { &mut *pointer })
}

/// What `what` says of what is at a caller's pointer; `nothing` where nothing is.
///
/// # Safety
/// As [`at`], until this returns.
pub(super) unsafe fn ask<T, R>(pointer: *const T, nothing: R, what: impl FnOnce(&T) -> R) -> R {
    // SAFETY: the caller promises it.
    contained(|| None, || unsafe { at(pointer) }.map(what)).unwrap_or(nothing)
}

/// Ends what is at a caller's pointer, if anything is.
///
/// # Safety
/// A real pointer is from [`Box::into_raw`], and is not used again.
pub(super) unsafe fn close<T>(pointer: *mut T) {
    let end = || {
        if is_real(pointer) {
            // SAFETY: the caller promises it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    };
    guarded(|| (), end);
}

/// Whether a pointer is neither NULL nor an error.
pub(super) fn is_real<T>(pointer: *const T) -> bool {
    !pointer.is_null() && error_in(pointer).is_none()
}

/// The error that is in place of a pointer.
pub(super) fn error_in<T>(pointer: *const T) -> Option<Errno> {
    let distance = pointer.addr().wrapping_neg();
    let errno = (1..=MAX_ERRNO).contains(&distance).then_some(distance)?;
    c_int::try_from(errno).ok().map(Errno)
}

/// A descriptor of our own for what a caller's is of; not one of the first three, which are closed for all sorts of reasons.
pub(super) fn copy_of(fd: c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: fcntl(2) is asked for a new descriptor; a bad one is an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(Errno(errno()));
    }
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

pub(super) fn set_errno(errno: c_int) {
    // SAFETY: it takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's, and lives as long as it.
    unsafe { place.write(errno) };
}

pub(super) fn errno() -> c_int {
    // SAFETY: it takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's, and lives as long as it.
    unsafe { place.read() }
}
