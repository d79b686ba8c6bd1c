//! `struct xdp_program`: where a program comes from, and what it is.

use super::entry::{
    Errno, INVALID, at, at_mut, copy_of, error_in, guarded, is_real, looked_up, number, or_null,
    pointer, set_errno, status,
};
use super::settings;
use crate::{ChainActions, LibbpfObject, Program, Select};
use libbpf_sys as bpf_sys;
use libbpf_sys::{bpf_object, bpf_object_open_opts, bpf_program, btf};
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

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

/// What `struct xdp_program *` points to.
#[derive(Debug)]
pub struct xdp_program {
    pub(super) program: Program,
    /// As C has it.
    name: CString,
    object: Option<Opened>,
    /// Of a program that was found in the kernel, ours.
    btf: Option<NonNull<btf>>,
    tag: [u8; 8],
    /// The next in a chain, which is its `xdp_multiprog`'s.
    pub(super) next: *mut xdp_program,
}

/// A program of an object that libbpf has opened.
#[derive(Debug)]
struct Opened {
    object: Arc<Object>,
    program: NonNull<bpf_program>,
}

/// An object. One of our own is closed with the last program of it.
#[derive(Debug)]
struct Object {
    raw: NonNull<bpf_object>,
    is_ours: bool,
}

// SAFETY: an object has no tie to a thread; the header asks that one thread at a time uses the programs of one.
unsafe impl Send for Object {}
// SAFETY: as above; shared, it only tells where it is.
unsafe impl Sync for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        if self.is_ours {
            // SAFETY: it was opened here, and no program of it is left.
            unsafe { bpf_sys::bpf_object__close(self.raw.as_ptr()) };
        }
    }
}

/// How a program is looked for in an object.
#[derive(Clone, Copy)]
enum Which<'a> {
    First,
    Section(&'a CStr),
    Function(&'a CStr),
}

impl xdp_program {
    /// A program of an object.
    ///
    /// # Safety
    /// The object is of the libbpf that is linked here, open, and nobody else uses it meanwhile.
    unsafe fn of_object(object: Arc<Object>, which: Which<'_>) -> Result<Box<Self>, Errno> {
        // SAFETY: the caller promises that.
        let program = unsafe { find(object.raw, which) }.ok_or(Errno(libc::ENOENT))?;
        // SAFETY: the program is one of the open object.
        let name = unsafe { bpf_sys::bpf_program__name(program.as_ptr()) };
        // SAFETY: a program's name ends in NUL.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: the object is open as long as there is a program of it, and is not used by others while this is.
        let lent = unsafe { LibbpfObject::lent(object.raw) };
        let select = Select::Function(name.to_str().map_err(|_| INVALID)?);
        Ok(Box::new(Self {
            program: Program::from_object(lent, select)?,
            name: name.to_owned(),
            object: Some(Opened { object, program }),
            btf: None,
            tag: [0; 8],
            next: std::ptr::null_mut(),
        }))
    }

    /// A program that is in the kernel.
    pub(super) fn in_kernel(program: Program) -> Result<Box<Self>, Errno> {
        let (tag, btf_id) = program.info().map_or(([0; 8], 0), |info| (info.tag, info.btf_id));
        let btf = if btf_id == 0 {
            None
        } else {
            // SAFETY: it takes no pointer.
            NonNull::new(unsafe { bpf_sys::btf__load_from_kernel_by_id(btf_id) })
        };
        Ok(Box::new(Self {
            name: CString::new(program.name()).map_err(|_| INVALID)?,
            program,
            object: None,
            btf,
            tag,
            next: std::ptr::null_mut(),
        }))
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.program.id().is_some()
    }

    /// After it has been loaded.
    pub(super) fn refresh(&mut self) {
        if let Some(info) = self.program.info() {
            self.tag = info.tag;
        }
    }

    /// Before it is loaded: what has been set on libbpf's program since it was opened.
    pub(super) fn follow_object(&mut self) {
        if let Some(opened) = self.object.as_ref().filter(|_| !self.is_loaded()) {
            let has_frags = opened.has_frags();
            self.program.set_frags(has_frags);
        }
    }

    pub(super) fn set_place(&mut self, priority: u32, actions: ChainActions, has_frags: bool) {
        self.program.set_priority(priority);
        self.program.set_chain_actions(actions);
        self.program.set_frags(has_frags);
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

impl Drop for xdp_program {
    fn drop(&mut self) {
        if let Some(btf) = self.btf.take() {
            // SAFETY: it was made here.
            unsafe { bpf_sys::btf__free(btf.as_ptr()) };
        }
    }
}

/// # Safety
/// The object is open.
unsafe fn find(object: NonNull<bpf_object>, which: Which<'_>) -> Option<NonNull<bpf_program>> {
    let mut last = std::ptr::null_mut();
    loop {
        // SAFETY: the object is open, and last is NULL or a program of it.
        last = unsafe { bpf_sys::bpf_object__next_program(object.as_ptr(), last) };
        let program = NonNull::new(last)?;
        let (own, wanted) = match which {
            Which::First => return Some(program),
            // SAFETY: the program is live.
            Which::Section(wanted) => (unsafe { bpf_sys::bpf_program__section_name(last) }, wanted),
            // SAFETY: the program is live.
            Which::Function(wanted) => (unsafe { bpf_sys::bpf_program__name(last) }, wanted),
        };
        // SAFETY: names of libbpf's are NULL or end in NUL.
        if !own.is_null() && unsafe { CStr::from_ptr(own) } == wanted {
            return Some(program);
        }
    }
}

/// # Safety
/// `text` is NULL or a string that ends in NUL.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: a real pointer is to a string, by the caller's word.
    is_real(text).then(|| unsafe { CStr::from_ptr(text) })
}

/// An object that its caller closes.
fn theirs(raw: NonNull<bpf_object>) -> Arc<Object> {
    Arc::new(Object { raw, is_ours: false })
}

fn boxed(program: Result<Box<xdp_program>, Errno>) -> Result<*mut xdp_program, Errno> {
    program.map(Box::into_raw)
}

/// # Safety
/// `options` is NULL or libbpf's options.
unsafe fn open(
    path: &CStr,
    which: Which<'_>,
    options: *const bpf_object_open_opts,
) -> Result<Box<xdp_program>, Errno> {
    // SAFETY: path ends in NUL, options are the caller's.
    let object = unsafe { bpf_sys::bpf_object__open_file(path.as_ptr(), options) };
    // Up to 0.8 of libbpf, and where strict mode is off, an error is in place of the pointer.
    if let Some(error) = error_in(object) {
        return Err(error);
    }
    let raw = NonNull::new(object).ok_or_else(|| Errno(super::entry::errno()))?;
    // SAFETY: it has just been opened, and is handed over.
    unsafe { xdp_program::of_object(Arc::new(Object { raw, is_ours: true }), which) }
}

/// # Safety
/// As [`open`].
unsafe fn find_and_open(
    file: &CStr,
    which: Which<'_>,
    options: *const bpf_object_open_opts,
) -> Result<Box<xdp_program>, Errno> {
    let path = super::objects::find(file)?;
    // SAFETY: the caller promises it.
    unsafe { open(&path, which, options) }
}

fn from_fd(fd: RawFd) -> Result<Box<xdp_program>, Errno> {
    xdp_program::in_kernel(Program::from_fd(copy_of(fd)?)?)
}

fn from_id(id: u32) -> Result<Box<xdp_program>, Errno> {
    xdp_program::in_kernel(Program::from_id(id)?)
}

fn from_pin(path: Option<&CStr>) -> Result<Box<xdp_program>, Errno> {
    let path = path.ok_or(Errno(libc::EFAULT))?;
    // SAFETY: path ends in NUL.
    let fd = unsafe { bpf_sys::bpf_obj_get(path.as_ptr()) };
    if fd < 0 {
        log::warn!("no program at {}: errno {}", path.to_string_lossy(), -fd);
        return Err(Errno(-fd));
    }
    // SAFETY: the kernel has just made it for us.
    xdp_program::in_kernel(Program::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })?)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__from_bpf_obj(
    object: *mut bpf_object,
    section: *const c_char,
) -> *mut xdp_program {
    pointer(|| {
        let object = NonNull::new(object).filter(|object| is_real(object.as_ptr()));
        // SAFETY: the header asks for a string.
        let which = unsafe { text(section) }.map_or(Which::First, Which::Section);
        // SAFETY: the header asks for an open object, and that it is used by one thread at a time.
        boxed(unsafe { xdp_program::of_object(theirs(object.ok_or(INVALID)?), which) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__open_file(
    path: *const c_char,
    section: *const c_char,
    options: *mut bpf_object_open_opts,
) -> *mut xdp_program {
    pointer(|| {
        // SAFETY: the header asks for a string.
        let path = unsafe { text(path) };
        // SAFETY: as above.
        let section = unsafe { text(section) };
        let which = section.map_or(Which::First, Which::Section);
        // SAFETY: the header asks for libbpf's options.
        boxed(unsafe { open(path.ok_or(INVALID)?, which, options) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__find_file(
    file: *const c_char,
    section: *const c_char,
    options: *mut bpf_object_open_opts,
) -> *mut xdp_program {
    pointer(|| {
        // SAFETY: the header asks for a string.
        let file = unsafe { text(file) };
        // SAFETY: as above.
        let section = unsafe { text(section) };
        let which = section.map_or(Which::First, Which::Section);
        // SAFETY: the header asks for libbpf's options.
        boxed(unsafe { find_and_open(file.ok_or(INVALID)?, which, options) })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn xdp_program__from_fd(fd: c_int) -> *mut xdp_program {
    pointer(|| boxed(from_fd(fd)))
}

#[unsafe(no_mangle)]
pub extern "C" fn xdp_program__from_id(id: u32) -> *mut xdp_program {
    pointer(|| boxed(from_id(id)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__from_pin(path: *const c_char) -> *mut xdp_program {
    // SAFETY: the header asks for a string.
    pointer(|| boxed(from_pin(unsafe { text(path) })))
}

/// `struct xdp_program_opts`
#[repr(C)]
#[derive(Debug)]
pub struct xdp_program_opts {
    size: usize,
    object: *mut bpf_object,
    options: *mut bpf_object_open_opts,
    name: *const c_char,
    find: *const c_char,
    open: *const c_char,
    pin: *const c_char,
    id: u32,
    fd: c_int,
}

impl xdp_program_opts {
    /// As far as the caller's structure goes: the rest is 0.
    ///
    /// # Safety
    /// Behind a real pointer are as many bytes as it says in its first word.
    unsafe fn read(options: *const Self) -> Option<Self> {
        // SAFETY: what is real begins with its size; all bytes of what the caller has are there.
        let bytes = unsafe {
            super::options::read::<Self>(options.cast(), &[16, 24, 32, 40, 48, 56, 60, 64])?
        };
        // SAFETY: integers and pointers, for which any bytes will do.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read() })
    }

    /// How many ways to a program it names.
    fn sources(&self) -> usize {
        let pointers = [self.find, self.open, self.pin];
        pointers.iter().filter(|pointer| !pointer.is_null()).count()
            + usize::from(!self.object.is_null())
            + usize::from(self.id != 0)
            + usize::from(self.fd != 0)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__create(options: *mut xdp_program_opts) -> *mut xdp_program {
    or_null(|| {
        // SAFETY: the header asks for options that begin with their size.
        let options = unsafe { xdp_program_opts::read(options) }.ok_or(INVALID)?;
        let (has_name, has_options) = (!options.name.is_null(), !options.options.is_null());
        if options.sources() != 1 {
            return Err(INVALID);
        }
        // SAFETY: the header asks for strings.
        let name = unsafe { text(options.name) };
        let which = name.map_or(Which::First, Which::Function);
        if let Some(object) = NonNull::new(options.object) {
            if has_options {
                return Err(INVALID);
            }
            // SAFETY: the header asks for an open object.
            return boxed(unsafe { xdp_program::of_object(theirs(object), which) });
        }
        // SAFETY: as above.
        if let Some(file) = unsafe { text(options.find) } {
            // SAFETY: as above.
            return boxed(unsafe { find_and_open(file, which, options.options) });
        }
        // SAFETY: as above.
        if let Some(path) = unsafe { text(options.open) } {
            // SAFETY: as above.
            return boxed(unsafe { open(path, which, options.options) });
        }
        if has_name || has_options {
            return Err(INVALID);
        }
        // SAFETY: as above.
        if let Some(path) = unsafe { text(options.pin) } {
            return boxed(from_pin(Some(path)));
        }
        boxed(if options.id != 0 { from_id(options.id) } else { from_fd(options.fd) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__clone(
    program: *mut xdp_program,
    flags: c_uint,
) -> *mut xdp_program {
    pointer(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at(program) }.filter(|_| flags == 0).ok_or(INVALID)?;
        if program.is_loaded() {
            let mut copy = from_fd(program.program.fd()?.as_raw_fd())?;
            copy.next = std::ptr::null_mut();
            return boxed(Ok(copy));
        }
        let opened = program.object.as_ref().ok_or(INVALID)?;
        let which = Which::Function(&program.name);
        // SAFETY: the object is open as long as there is a program of it.
        boxed(unsafe { xdp_program::of_object(Arc::clone(&opened.object), which) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__close(program: *mut xdp_program) {
    guarded(
        || (),
        || {
            if is_real(program) {
                // SAFETY: the header asks for a program that was made here, and is not used again.
                drop(unsafe { Box::from_raw(program) });
            }
        },
    );
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__btf(program: *mut xdp_program) -> *const btf {
    looked_up(|| {
        // SAFETY: the header asks for a program.
        let program = unsafe { at(program) }?;
        let Some(opened) = &program.object else { return program.btf.map(NonNull::as_ptr) };
        // SAFETY: the object is open.
        Some(unsafe { bpf_sys::bpf_object__btf(opened.object.raw.as_ptr()) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__bpf_obj(program: *mut xdp_program) -> *mut bpf_object {
    // SAFETY: the header asks for a program.
    looked_up(|| Some(unsafe { at(program) }?.object.as_ref()?.object.raw.as_ptr()))
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
    guarded(|| 0, || unsafe { at(program) }.and_then(|program| program.program.id()).unwrap_or(0))
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
    let priority = || unsafe { at(program) }.map(|program| program.program.priority());
    guarded(|| None, priority).unwrap_or(DEFAULT_PRIORITY)
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
    let ask = || {
        // SAFETY: the header asks for a program.
        let actions = unsafe { at(program) }?.program.chain_actions();
        Some(action < DISPATCHER_RETVAL && actions.bits() & (1 << action) != 0)
    };
    guarded(|| None, ask).unwrap_or(false)
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
    let ask = || {
        // SAFETY: the header asks for a program.
        let Some(program) = (unsafe { at(program) }) else { return false };
        match &program.object {
            Some(opened) if !program.is_loaded() => opened.has_frags(),
            _ => program.program.has_frags(),
        }
    };
    guarded(|| false, ask)
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
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::DirBuilderExt;
    let name = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let parent = match name.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => std::path::Path::new("."),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error.into()),
        _ => {}
    }
    let parent = CString::new(parent.as_os_str().as_bytes()).map_err(|_| INVALID)?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: parent ends in NUL, and there is room for the answer.
    if unsafe { libc::statfs(parent.as_ptr(), found.as_mut_ptr()) } < 0 {
        return Err(std::io::Error::last_os_error().into());
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
        // SAFETY: the header asks for a program.
        let program = unsafe { at_mut(program) }.filter(|_| flags == 0).ok_or(INVALID)?;
        program.follow_object();
        let xdp = settings::xdp()?;
        let run = |fd: BorrowedFd<'_>| {
            // SAFETY: the header asks for libbpf's options.
            let result = unsafe { bpf_sys::bpf_prog_test_run_opts(fd.as_raw_fd(), options.cast()) };
            if result < 0 { Err(Errno(-result)) } else { Ok(()) }
        };
        let ran = xdp.with_target(&mut program.program, run)?;
        program.refresh();
        ran
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn libxdp_get_error(pointer: *const c_void) -> std::ffi::c_long {
    if is_real(pointer) {
        return 0;
    }
    if let Some(Errno(errno)) = error_in(pointer) {
        set_errno(errno);
    }
    -std::ffi::c_long::from(super::entry::errno())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn libxdp_strerror(
    error: c_int,
    buffer: *mut c_char,
    length: usize,
) -> c_int {
    // SAFETY: the header asks for a buffer of that length; libbpf checks it.
    number(|| match unsafe { bpf_sys::libbpf_strerror(error, buffer, length as bpf_sys::size_t) } {
        result if result < 0 => Err(Errno(-result)),
        result => Ok(result),
    })
}
