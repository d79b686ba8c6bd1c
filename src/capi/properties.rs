//! What a program is, what is set on it, and what else is done with it.

use super::entry::{Errno, INVALID, ask, at, at_mut, guarded, looked_up, set_errno, status};
use super::program::{Opened, text, xdp_program};
use super::settings;
use crate::{ChainActions, Program};
use libbpf_sys as bpf_sys;
use libbpf_sys::{bpf_object, btf};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::fs::DirBuilder;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const FRAGS: u32 = bpf_sys::BPF_F_XDP_HAS_FRAGS;
/// `XDP_DEFAULT_RUN_PRIO`
const DEFAULT_PRIORITY: c_uint = 50;
/// What a slot of a dispatcher that nothing is in returns: no program may say whether the chain goes on after it.
const DISPATCHER_RETVAL: c_uint = 31;
const ACTIONS: [(ChainActions, &CStr); 5] = [
    (ChainActions::ABORTED, c"XDP_ABORTED"),
    (ChainActions::DROP, c"XDP_DROP"),
    (ChainActions::PASS, c"XDP_PASS"),
    (ChainActions::TX, c"XDP_TX"),
    (ChainActions::REDIRECT, c"XDP_REDIRECT"),
];

impl xdp_program {
    /// Before it is loaded: what has been set on libbpf's program since it was opened.
    pub(super) fn follow_object(&mut self) {
        if let Some(opened) = self.object.as_ref().filter(|_| !self.is_loaded()) {
            let has_frags = opened.has_frags();
            self.program.set_frags(has_frags);
        }
    }
}

impl Opened {
    fn has_frags(&self) -> bool {
        let program = self.program.as_ptr();
        // SAFETY: the program is live.
        let flags = unsafe { bpf_sys::bpf_program__flags(program) };
        flags & FRAGS != 0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__btf(program: *mut xdp_program) -> *const btf {
    // SAFETY: the header asks for a program.
    looked_up(|| unsafe { at(program) }?.btf())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__bpf_obj(program: *mut xdp_program) -> *mut bpf_object {
    // SAFETY: the header asks for a program.
    looked_up(|| Some(unsafe { at(program) }?.object.as_ref()?.object()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__name(program: *const xdp_program) -> *const c_char {
    // SAFETY: the header asks for a program.
    looked_up(|| Some(unsafe { at(program) }?.name.as_ptr().cast_mut()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__tag(program: *const xdp_program) -> *const c_uchar {
    // SAFETY: the header asks for a program.
    looked_up(|| Some(unsafe { at(program) }?.tag.as_ptr().cast_mut()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__id(program: *const xdp_program) -> u32 {
    // SAFETY: the header asks for a program.
    unsafe { ask(program, 0, |program| program.program.id().unwrap_or(0)) }
}

/// The descriptor stays the program's. -1 for one that is not loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__fd(program: *const xdp_program) -> c_int {
    let ask = || {
        // SAFETY: the header asks for a program.
        let Some(program) = (unsafe { at(program) }) else {
            set_errno(libc::ENOENT);
            return None;
        };
        Some(program.program.fd().ok()?.as_raw_fd())
    };
    guarded(|| None, ask).unwrap_or(-1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__run_prio(program: *const xdp_program) -> c_uint {
    // SAFETY: the header asks for a program.
    unsafe { ask(program, DEFAULT_PRIORITY, |program| program.program.priority()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__set_run_prio(
    program: *mut xdp_program,
    priority: c_uint,
) -> c_int {
    status(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at_mut(program) }.filter(|program| !program.is_loaded());
        program.ok_or(INVALID)?.program.set_priority(priority);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__chain_call_enabled(
    program: *const xdp_program,
    action: c_uint,
) -> bool {
    let is_enabled = |program: &xdp_program| {
        let actions = program.program.chain_actions().bits();
        action < DISPATCHER_RETVAL && actions & (1 << action) != 0
    };
    // SAFETY: the header asks for a program.
    unsafe { ask(program, false, is_enabled) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__set_chain_call_enabled(
    program: *mut xdp_program,
    action: c_uint,
    is_enabled: bool,
) -> c_int {
    status(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at_mut(program) }.filter(|program| !program.is_loaded());
        let program = program.filter(|_| action < DISPATCHER_RETVAL).ok_or(INVALID)?;
        let mut actions = program.program.chain_actions();
        actions.set(ChainActions::from_bits_truncate(1 << action), is_enabled);
        program.program.set_chain_actions(actions);
        Ok(())
    })
}

/// Names with commas between them, up to the first that there is no room for, with the comma before that if there is room for
/// it; and whether all are there.
fn listed(names: &[&[u8]], room: usize) -> (Vec<u8>, bool) {
    let mut words = Vec::new();
    for name in names {
        if !words.is_empty() && words.len() < room {
            words.push(b',');
        } else if !words.is_empty() {
            return (words, false);
        }
        if words.len() + name.len() > room {
            return (words, false);
        }
        words.extend_from_slice(name);
    }
    (words, true)
}

/// Names with commas between them, as `XDP_PASS,XDP_TX`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__print_chain_call_actions(
    program: *const xdp_program,
    buffer: *mut c_char,
    length: usize,
) -> c_int {
    status(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at(program) }.filter(|_| !buffer.is_null() && length > 0);
        let actions = program.ok_or(INVALID)?.program.chain_actions();
        let enabled = ACTIONS.iter().filter(|(action, _)| actions.contains(*action));
        let names: Vec<_> = enabled.map(|(_, name)| name.to_bytes()).collect();
        let (words, fits) = listed(&names, length - 1);
        let count = words.len();
        // SAFETY: the header asks for a buffer of that length, of which one byte more than these is written.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), buffer.cast(), count) };
        // SAFETY: count is less than length.
        let end = unsafe { buffer.add(count) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        if fits { Ok(()) } else { Err(Errno(libc::ENOSPC)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__xdp_frags_support(program: *const xdp_program) -> bool {
    let has_frags = |program: &xdp_program| match &program.object {
        Some(opened) if !program.is_loaded() => opened.has_frags(),
        _ => program.program.has_frags(),
    };
    // SAFETY: the header asks for a program.
    unsafe { ask(program, false, has_frags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__set_xdp_frags_support(
    program: *mut xdp_program,
    has_frags: bool,
) -> c_int {
    status(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at_mut(program) }.filter(|program| !program.is_loaded());
        let program = program.ok_or(INVALID)?;
        let raw = program.object.as_ref().ok_or(INVALID)?.program.as_ptr();
        // SAFETY: the program is live.
        let flags = unsafe { bpf_sys::bpf_program__flags(raw) };
        let flags = if has_frags { flags | FRAGS } else { flags & !FRAGS };
        // SAFETY: as above.
        let result = unsafe { bpf_sys::bpf_program__set_flags(raw, flags) };
        if result < 0 {
            return Err(Errno(-result));
        }
        program.program.set_frags(has_frags);
        Ok(())
    })
}

/// Pins it where libbpf would: in a directory of a bpf file system, which is made if it is not there.
fn pin(program: &Program, path: &CStr) -> Result<(), Errno> {
    let name = Path::new(OsStr::from_bytes(path.to_bytes()));
    let parent = match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error.into()),
        _ => {}
    }
    let parent = CString::new(parent.as_os_str().as_bytes()).map_err(|_| INVALID)?;
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: parent ends in NUL, and there is room for the answer.
    if unsafe { libc::statfs(parent.as_ptr(), found.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: numbers, for which zeros will do too.
    if unsafe { found.assume_init() }.f_type != libc::BPF_FS_MAGIC {
        log::warn!("{} is in no bpf file system", path.to_string_lossy());
        return Err(INVALID);
    }
    // SAFETY: path ends in NUL.
    match unsafe { bpf_sys::bpf_obj_pin(program.fd()?.as_raw_fd(), path.as_ptr()) } {
        error if error < 0 => Err(Errno(-error)),
        _ => Ok(()),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__pin(program: *mut xdp_program, path: *const c_char) -> c_int {
    status(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at(program) };
        // SAFETY: and for a string.
        let path = unsafe { text(path) };
        let program = program.filter(|program| program.is_loaded()).ok_or(INVALID)?;
        pin(&program.program, path.ok_or(INVALID)?)
    })
}

/// Loads it where that has not been done: not as a component of chains, unless its section says so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__test_run(
    program: *mut xdp_program,
    options: *mut c_void,
    flags: c_uint,
) -> c_int {
    status(|| {
        let xdp = settings::xdp()?;
        let run = |fd: BorrowedFd<'_>| {
            // SAFETY: the header asks for libbpf's options.
            let result = unsafe { bpf_sys::bpf_prog_test_run_opts(fd.as_raw_fd(), options.cast()) };
            if result < 0 { Err(Errno(-result)) } else { Ok(()) }
        };
        // SAFETY: the header asks for a program.
        let loaded = unsafe { at(program) }.filter(|_| flags == 0).ok_or(INVALID)?;
        if loaded.is_loaded() {
            // In any number of threads.
            return xdp.with_target_of_loaded(&loaded.program, run)?;
        }
        // SAFETY: as above, and one that is not loaded is used by one thread at a time.
        let program = unsafe { at_mut(program) }.ok_or(INVALID)?;
        program.follow_object();
        program.program.set_device_bound(false)?;
        let ran = xdp.with_target(&mut program.program, run)?;
        program.refresh();
        ran
    })
}
