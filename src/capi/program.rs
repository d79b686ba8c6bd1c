//! `struct xdp_program`: where a program comes from, and what it is.

use super::entry::{Errno, INVALID, at, close, copy_of, error_in, is_real, or_null, pointer};
use super::objects;
use super::options::{self, Options};
use crate::{LibbpfObject, Program, Select};
use libbpf_sys as bpf_sys;
use libbpf_sys::{bpf_object, bpf_object_open_opts, bpf_program, btf};
use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// What `struct xdp_program *` points to.
#[derive(Debug)]
pub struct xdp_program {
    pub(super) program: Program,
    /// As C has it.
    pub(super) name: CString,
    pub(super) object: Option<Opened>,
    /// Of a program that was found in the kernel, once it was asked for.
    btf: OnceLock<Option<KernelBtf>>,
    pub(super) tag: [u8; 8],
    /// The next in a chain, which is its `xdp_multiprog`'s.
    pub(super) next: *mut xdp_program,
}

/// A program of an object that libbpf has opened.
#[derive(Debug)]
pub(super) struct Opened {
    object: Arc<Object>,
    pub(super) program: NonNull<bpf_program>,
}

/// The BTF of a program in the kernel, as libbpf has it.
#[derive(Debug)]
struct KernelBtf(NonNull<btf>);

impl KernelBtf {
    fn read(id: u32) -> Option<Self> {
        // SAFETY: it takes no pointer.
        let read = || unsafe { bpf_sys::btf__load_from_kernel_by_id(id) };
        NonNull::new(if id == 0 { return None } else { read() }).map(Self)
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        // SAFETY: it was made here.
        unsafe { bpf_sys::btf__free(self.0.as_ptr()) };
    }
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
            btf: OnceLock::new(),
            tag: [0; 8],
            next: std::ptr::null_mut(),
        }))
    }

    /// A program that is in the kernel.
    pub(super) fn in_kernel(program: Program) -> Result<Box<Self>, Errno> {
        let tag = program.info().map_or([0; 8], |info| info.tag);
        Ok(Box::new(Self {
            name: CString::new(program.name()).map_err(|_| INVALID)?,
            program,
            object: None,
            btf: OnceLock::new(),
            tag,
            next: std::ptr::null_mut(),
        }))
    }

    /// The program's, or its object's.
    pub(super) fn btf(&self) -> Option<*mut btf> {
        if let Some(opened) = &self.object {
            // SAFETY: the object is open as long as there is a program of it.
            return Some(unsafe { bpf_sys::bpf_object__btf(opened.object()) });
        }
        let id = self.program.info()?.btf_id;
        self.btf.get_or_init(|| KernelBtf::read(id)).as_ref().map(|btf| btf.0.as_ptr())
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
}

impl Opened {
    pub(super) fn object(&self) -> *mut bpf_object {
        self.object.raw.as_ptr()
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
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
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
    let path = objects::find(file)?;
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

// SAFETY: a size, pointers and integers, as C has them.
unsafe impl Options for xdp_program_opts {
    const ENDS: &'static [usize] = &[16, 24, 32, 40, 48, 56, 60, 64];
}

impl xdp_program_opts {
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
        let options = unsafe { options::read(options) }.ok_or(INVALID)?;
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
    // SAFETY: the header asks for a program that was made here, and is not used again.
    unsafe { close(program) };
}
