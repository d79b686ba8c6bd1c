//! ELF objects, opened and loaded by libbpf.
//!
//! libbpf speaks through one print callback for the whole process. It is set once, to send every line to
//! the `log` facade; what it said during a call that failed is kept for the error.

use super::Kernel;
use libbpf_sys as bpf_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Once;

/// One program in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramEntry {
    pub(crate) name: String,
    pub(crate) section: String,
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) instructions: usize,
}

/// An opened object; closed when dropped, and with it every map and program that only it holds.
#[derive(Debug)]
pub(crate) struct Object(NonNull<bpf_sys::bpf_object>);

// SAFETY: a bpf_object has no tie to the thread that opened it, and every use of it here goes through
// `&self` for reading or `&mut self` for changing.
unsafe impl Send for Object {}
// SAFETY: the methods that take `&self` only read fields that no other `&self` method writes.
unsafe impl Sync for Object {}

/// A failed libbpf call: its error and the last of what libbpf said about it.
#[derive(Debug)]
pub(crate) struct ObjectError {
    pub(crate) source: io::Error,
    pub(crate) said: String,
}

thread_local! {
    /// What libbpf says on this thread while a call of ours is under way.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

unsafe extern "C" {
    fn vsnprintf(
        to: *mut c_char,
        size: usize,
        format: *const c_char,
        arguments: *mut bpf_sys::__va_list_tag,
    ) -> c_int;
}

/// libbpf's print callback: a line goes to `log` and, while a call listens, to its notes.
unsafe extern "C" fn print(
    level: bpf_sys::libbpf_print_level,
    format: *const c_char,
    arguments: *mut bpf_sys::__va_list_tag,
) -> c_int {
    let mut line = vec![0_u8; 4096];
    // SAFETY: line has the size that is passed; format and arguments belong together, by libbpf's word.
    let written = unsafe { vsnprintf(line.as_mut_ptr().cast(), line.len(), format, arguments) };
    let Ok(text) = CStr::from_bytes_until_nul(&line) else {
        return written;
    };
    let text = text.to_string_lossy();
    let text = text.trim_end();
    let level = match level {
        bpf_sys::LIBBPF_WARN => log::Level::Debug,
        _ => log::Level::Trace,
    };
    // A failed call is told in its error, so even libbpf's warnings are no more than detail here.
    log::log!(target: "oxdp::libbpf", level, "{text}");
    if level == log::Level::Debug {
        // A thread that is ending has no notes any more.
        let _ = SAID.try_with(|said| {
            if let Some(said) = said.borrow_mut().as_mut() {
                said.push_str(text);
                said.push('\n');
            }
        });
    }
    written
}

/// Runs one libbpf call and keeps what it says.
fn listen<T>(call: impl FnOnce() -> io::Result<T>) -> Result<T, ObjectError> {
    static PRINT: Once = Once::new();
    PRINT.call_once(|| {
        // SAFETY: the callback is a function of this program, and lives as long as it.
        unsafe { bpf_sys::libbpf_set_print(Some(print)) };
    });
    SAID.set(Some(String::new()));
    let result = call();
    let said = SAID.take().unwrap_or_default();
    result.map_err(|source| ObjectError { source, said: said.trim_end().to_owned() })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::from)
}

/// # Safety
/// `text` must be NULL or a string that ends in NUL.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and the caller promises the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Object {
    /// The object's programs, in the order of the file.
    pub(crate) fn programs(&self) -> Vec<ProgramEntry> {
        self.raw_programs().map(entry).collect()
    }

    fn raw_programs(&self) -> impl Iterator<Item = NonNull<bpf_sys::bpf_program>> + '_ {
        let mut last = std::ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object is open, and last is NULL or the program before, which lives in it.
            last = unsafe { bpf_sys::bpf_object__next_program(self.0.as_ptr(), last) };
            NonNull::new(last)
        })
    }

    fn find(&self, name: &str) -> io::Result<NonNull<bpf_sys::bpf_program>> {
        self.raw_programs()
            .find(|&program| entry(program).name == name)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// The object's BTF as bytes; `None` if it has none. Takes `&mut`: libbpf may put the bytes together, and
    /// keep them, when they are asked for.
    pub(crate) fn btf(&mut self) -> Option<Vec<u8>> {
        // SAFETY: the object is open.
        let btf = unsafe { bpf_sys::bpf_object__btf(self.0.as_ptr()) };
        if btf.is_null() {
            return None;
        }
        let mut size = 0;
        // SAFETY: btf belongs to the open object, and size is a live u32.
        let data = unsafe { bpf_sys::btf__raw_data(btf, &raw mut size) };
        if data.is_null() {
            return None;
        }
        // SAFETY: libbpf says that size bytes are there; they are copied before the object can change.
        Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) }.to_vec())
    }

    /// Writes over the first value of global-data map `suffix` (`.rodata`, `.data`, `.bss`) before loading.
    pub(crate) fn patch_global(
        &mut self,
        suffix: &str,
        offset: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        let map = self
            .raw_maps()
            .find(|&map| map_name(map).ends_with(suffix))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let mut size = 0;
        // SAFETY: the map belongs to the open object, and size is live.
        let data = unsafe { bpf_sys::bpf_map__initial_value(map.as_ptr(), &raw mut size) };
        let end = offset.checked_add(bytes.len());
        if data.is_null() || end.is_none_or(|end| end as u64 > size) {
            return Err(io::Error::from_raw_os_error(libc::ERANGE));
        }
        // SAFETY: offset lies within the size bytes at data.
        let to = unsafe { data.cast::<u8>().add(offset) };
        // SAFETY: offset + bytes.len() is within the size bytes at data, which `&mut self` guards;
        // the two do not overlap, since bytes is Rust's and data is libbpf's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn raw_maps(&self) -> impl Iterator<Item = NonNull<bpf_sys::bpf_map>> + '_ {
        let mut last = std::ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: the object is open, and last is NULL or the map before, which lives in it.
            last = unsafe { bpf_sys::bpf_object__next_map(self.0.as_ptr(), last) };
            NonNull::new(last)
        })
    }

    /// Names of the object's maps.
    pub(crate) fn map_names(&self) -> Vec<String> {
        self.raw_maps().map(map_name).collect()
    }

    /// The map called `name`, once loaded. Borrowed: the object closes it.
    pub(crate) fn map_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let name = c_string(name).ok()?;
        // SAFETY: the object is open and name ends in NUL.
        let fd =
            unsafe { bpf_sys::bpf_object__find_map_fd_by_name(self.0.as_ptr(), name.as_ptr()) };
        // SAFETY: a non-negative answer is a descriptor that the object keeps open while it lives.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// The program called `name`, once loaded. Borrowed: the object closes it.
    pub(crate) fn program_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let program = self.find(name).ok()?;
        // SAFETY: the program belongs to the open object.
        let fd = unsafe { bpf_sys::bpf_program__fd(program.as_ptr()) };
        // SAFETY: a non-negative answer is a descriptor that the object keeps open while it lives.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

fn map_name(map: NonNull<bpf_sys::bpf_map>) -> String {
    // SAFETY: the map is live.
    let name = unsafe { bpf_sys::bpf_map__name(map.as_ptr()) };
    // SAFETY: a map's name ends in NUL.
    unsafe { owned(name) }
}

fn entry(program: NonNull<bpf_sys::bpf_program>) -> ProgramEntry {
    let program = program.as_ptr();
    // SAFETY: the program is live.
    let name = unsafe { bpf_sys::bpf_program__name(program) };
    // SAFETY: as above.
    let section = unsafe { bpf_sys::bpf_program__section_name(program) };
    // SAFETY: as above.
    let instructions = unsafe { bpf_sys::bpf_program__insn_cnt(program) };
    ProgramEntry {
        // SAFETY: a program's name ends in NUL.
        name: unsafe { owned(name) },
        // SAFETY: a section's name ends in NUL.
        section: unsafe { owned(section) },
        // SAFETY: the program is live.
        kind: unsafe { bpf_sys::bpf_program__type(program) },
        // SAFETY: the program is live.
        flags: unsafe { bpf_sys::bpf_program__flags(program) },
        instructions: usize::try_from(instructions).unwrap_or(usize::MAX),
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object is open, and nobody can use it after this.
        unsafe { bpf_sys::bpf_object__close(self.0.as_ptr()) };
    }
}

impl Kernel {
    /// Parses an ELF object. Needs no privilege.
    pub(crate) fn object_open(&self, elf: &[u8]) -> Result<Object, ObjectError> {
        let opened = listen(|| {
            self.step("bpf_object__open_mem")?;
            // SAFETY: elf is as long as the size beside it, and libbpf copies what it keeps.
            let object = unsafe {
                bpf_sys::bpf_object__open_mem(
                    elf.as_ptr().cast(),
                    elf.len() as bpf_sys::size_t,
                    std::ptr::null(),
                )
            };
            NonNull::new(object).ok_or_else(io::Error::last_os_error)
        });
        opened.map(Object)
    }

    /// Loads program `name` of `object`, and no other, as an extension of `function` in `target`; its
    /// maps are made on the way. After a failure the object is spent.
    pub(crate) fn object_load_extension(
        &self,
        object: &mut Object,
        name: &str,
        target: BorrowedFd<'_>,
        function: &str,
    ) -> Result<(), ObjectError> {
        listen(|| {
            self.step("bpf_object__load")?;
            let function = c_string(function)?;
            let chosen = object.find(name)?;
            for program in object.raw_programs() {
                // SAFETY: the program belongs to the open object.
                check(unsafe {
                    bpf_sys::bpf_program__set_autoload(program.as_ptr(), program == chosen)
                })?;
            }
            let chosen = chosen.as_ptr();
            // SAFETY: the program belongs to the open object.
            check(unsafe { bpf_sys::bpf_program__set_type(chosen, bpf_sys::BPF_PROG_TYPE_EXT) })?;
            // SAFETY: as above.
            check(unsafe { bpf_sys::bpf_program__set_expected_attach_type(chosen, 0) })?;
            // SAFETY: as above.
            let flags = unsafe { bpf_sys::bpf_program__flags(chosen) };
            let flags = flags & !bpf_sys::BPF_F_XDP_HAS_FRAGS;
            // SAFETY: as above.
            check(unsafe { bpf_sys::bpf_program__set_flags(chosen, flags) })?;
            // SAFETY: as above; target is open and function ends in NUL.
            check(unsafe {
                bpf_sys::bpf_program__set_attach_target(
                    chosen,
                    target.as_raw_fd(),
                    function.as_ptr(),
                )
            })?;
            // SAFETY: the object is open and has not been loaded: its owner loads it once.
            check(unsafe { bpf_sys::bpf_object__load(object.0.as_ptr()) })
        })
    }
}
