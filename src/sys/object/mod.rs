//! ELF objects, opened and loaded by libbpf.
//!
//! libbpf speaks through one print callback for the whole process. It is set once, to send every line to
//! the `log` facade; what it said during a call that failed is kept for the error.

#[cfg(not(feature = "capi"))]
mod link;
#[cfg(feature = "capi")]
mod no_link;

use super::Kernel;
use libbpf_sys as bpf_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// A program with its subprograms and maps, put together by libbpf and ready for the kernel. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    /// What loads a map has the map's index (`BPF_PSEUDO_MAP_IDX`) in place of its descriptor.
    pub(crate) instructions: Vec<u64>,
    /// Pairs of instruction index and BTF type id; empty without BTF.
    pub(crate) functions: Vec<[u32; 2]>,
    /// `struct bpf_line_info`
    pub(crate) lines: Vec<[u32; 4]>,
    pub(crate) btf: Option<Vec<u8>>,
    pub(crate) maps: Vec<LinkedMap>,
}

/// A map that a [`Linked`] program wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkedMap {
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) numa_node: u32,
    pub(crate) extra: u64,
    /// BTF type ids of key and value, 0 for none.
    pub(crate) types: (u32, u32),
    /// For a section of global variables: their values.
    pub(crate) initial: Option<Vec<u8>>,
}

/// What a program is loaded as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoadAs<'a> {
    /// A replacement for `function` of the program `target`.
    Extension { target: BorrowedFd<'a>, function: &'a str },
    /// A program of its own, with `BPF_F_XDP_*` flags, perhaps bound to an interface of the calling thread's
    /// namespace.
    Xdp { flags: u32, ifindex: u32 },
}

/// An opened object. One of our own is closed when dropped, and with it every map and program that only it holds.
#[derive(Debug)]
pub(crate) struct Object(NonNull<bpf_sys::bpf_object>, Owner);

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Us,
    /// Of a caller in C, who goes on using it: all of it is loaded, as the caller has set it up.
    #[cfg(feature = "capi")]
    Caller,
}

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
    // In C's library it is the caller's libbpf, which prints as the caller wants it to.
    if !cfg!(feature = "capi") {
        static PRINT: Once = Once::new();
        PRINT.call_once(|| {
            // SAFETY: the callback is a function of this program, and lives as long as it.
            unsafe { bpf_sys::libbpf_set_print(Some(print)) };
        });
    }
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

    /// The program called `name`, which from here on is the only one that a load touches, if the object is ours.
    fn choose(&mut self, name: &str) -> io::Result<NonNull<bpf_sys::bpf_program>> {
        let chosen = self.find(name)?;
        for program in
            self.raw_programs().filter(|&program| self.1 == Owner::Us || program == chosen)
        {
            // SAFETY: the program belongs to the open object.
            let set = check(unsafe {
                bpf_sys::bpf_program__set_autoload(program.as_ptr(), program == chosen)
            });
            // One that its caller has loaded, or tried to, without this program.
            let spent = |_| io::Error::from_raw_os_error(libc::EBADF);
            if self.1 == Owner::Us { set } else { set.map_err(spent) }?;
        }
        Ok(chosen)
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

    /// Has the maps that are to be pinned pinned in `directory`, or nowhere. Before loading.
    pub(crate) fn pin_maps(&mut self, directory: Option<&Path>) -> io::Result<()> {
        for map in self.raw_maps() {
            // SAFETY: the map belongs to the open object.
            if unsafe { bpf_sys::bpf_map__pin_path(map.as_ptr()) }.is_null() {
                continue;
            }
            let path = directory.map(|directory| directory.join(map_name(map)));
            let path = path.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
            let raw = path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr());
            // SAFETY: as above; raw is NULL or ends in NUL, and libbpf copies it.
            check(unsafe { bpf_sys::bpf_map__set_pin_path(map.as_ptr(), raw) })?;
        }
        Ok(())
    }

    /// Has the maps whose name ends in `suffix` made with room for so many entries. Before loading.
    pub(crate) fn resize_maps(&mut self, suffix: &str, entries: u32) -> io::Result<()> {
        for map in self.raw_maps().filter(|&map| map_name(map).ends_with(suffix)) {
            // SAFETY: the map belongs to the open object.
            check(unsafe { bpf_sys::bpf_map__set_max_entries(map.as_ptr(), entries) })?;
        }
        Ok(())
    }

    /// Has a map that is there used for those whose name ends in `suffix`. Before loading.
    pub(crate) fn reuse_map(&mut self, suffix: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        for map in self.raw_maps().filter(|&map| map_name(map).ends_with(suffix)) {
            // SAFETY: the map belongs to the open object; libbpf takes a copy of the descriptor.
            check(unsafe { bpf_sys::bpf_map__reuse_fd(map.as_ptr(), fd.as_raw_fd()) })?;
        }
        Ok(())
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
        if self.1 == Owner::Us {
            // SAFETY: the object is open, and nobody can use it after this.
            unsafe { bpf_sys::bpf_object__close(self.0.as_ptr()) };
        }
    }
}

impl Kernel {
    /// Parses an ELF object. Needs no privilege. Maps of global variables have names that begin with `name`, if there
    /// is one.
    pub(crate) fn object_open(
        &self,
        elf: &[u8],
        name: Option<&CStr>,
    ) -> Result<Object, ObjectError> {
        let opened = listen(|| {
            self.step("bpf_object__open_mem")?;
            // Or libbpf would ask the kernel for a token each time. The system's may be too old for that: before 1.5.
            let no_token = if cfg!(feature = "capi") { std::ptr::null() } else { c"".as_ptr() };
            let options = bpf_sys::bpf_object_open_opts {
                sz: size_of::<bpf_sys::bpf_object_open_opts>() as bpf_sys::size_t,
                object_name: name.map_or(std::ptr::null(), CStr::as_ptr),
                bpf_token_path: no_token,
                ..Default::default()
            };
            // SAFETY: elf is as long as the size beside it, options are live, and libbpf copies what it keeps.
            let object = unsafe {
                bpf_sys::bpf_object__open_mem(
                    elf.as_ptr().cast(),
                    elf.len() as bpf_sys::size_t,
                    &raw const options,
                )
            };
            NonNull::new(object).ok_or_else(io::Error::last_os_error)
        });
        opened.map(|object| Object(object, Owner::Us))
    }

    /// Loads program `name` of `object`, and no other; its maps are made on the way. After a failure the object
    /// is spent.
    pub(crate) fn object_load(
        &self,
        object: &mut Object,
        name: &str,
        load_as: LoadAs<'_>,
    ) -> Result<(), ObjectError> {
        listen(|| {
            self.step("bpf_object__load")?;
            let chosen = object.choose(name)?.as_ptr();
            // SAFETY: the program belongs to the open object.
            let flags = unsafe { bpf_sys::bpf_program__flags(chosen) };
            let others =
                flags & !(bpf_sys::BPF_F_XDP_HAS_FRAGS | bpf_sys::BPF_F_XDP_DEV_BOUND_ONLY);
            let is_ours = object.1 == Owner::Us;
            let kind = match load_as {
                LoadAs::Extension { .. } => bpf_sys::BPF_PROG_TYPE_EXT,
                LoadAs::Xdp { .. } => bpf_sys::BPF_PROG_TYPE_XDP,
            };
            // SAFETY: the program belongs to the open object.
            check(unsafe { bpf_sys::bpf_program__set_type(chosen, kind) })?;
            let attach_type = super::bpf::attach_type(kind);
            // SAFETY: as above.
            check(unsafe { bpf_sys::bpf_program__set_expected_attach_type(chosen, attach_type) })?;
            match load_as {
                LoadAs::Extension { target, function } => {
                    let function = c_string(function)?;
                    // SAFETY: as above.
                    check(unsafe { bpf_sys::bpf_program__set_flags(chosen, others) })?;
                    // SAFETY: as above; target is open and function ends in NUL.
                    check(unsafe {
                        bpf_sys::bpf_program__set_attach_target(
                            chosen,
                            target.as_raw_fd(),
                            function.as_ptr(),
                        )
                    })?;
                }
                LoadAs::Xdp { flags, ifindex } => {
                    // Its section would have libbpf add BPF_F_XDP_HAS_FRAGS again: another type and back drops that.
                    let detour = [bpf_sys::BPF_PROG_TYPE_EXT, bpf_sys::BPF_PROG_TYPE_XDP];
                    for kind in detour.into_iter().filter(|_| is_ours) {
                        // SAFETY: as above.
                        check(unsafe { bpf_sys::bpf_program__set_type(chosen, kind) })?;
                    }
                    // SAFETY: as above.
                    check(unsafe {
                        bpf_sys::bpf_program__set_expected_attach_type(chosen, attach_type)
                    })?;
                    // SAFETY: as above.
                    check(unsafe { bpf_sys::bpf_program__set_flags(chosen, others | flags) })?;
                    if is_ours || ifindex != 0 {
                        // SAFETY: as above.
                        unsafe { bpf_sys::bpf_program__set_ifindex(chosen, ifindex) };
                    }
                }
            }
            // SAFETY: the object is open and has not been loaded: its owner loads it once.
            check(unsafe { bpf_sys::bpf_object__load(object.0.as_ptr()) })
        })
    }
}

/// Whether an error says nothing about the object.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE))
}

/// A `struct bpf_object` of the caller's own libbpf calls, opened and not yet loaded, to take a program from
/// ([`Program::from_object`](crate::Program::from_object)).
#[derive(Debug)]
pub struct LibbpfObject(Object);

impl LibbpfObject {
    /// Takes the object over: it is closed once it has been loaded for a program of it, whose maps and program live on, or
    /// when the last program of it is dropped.
    ///
    /// # Safety
    /// `object` must come from one of the `bpf_object__open` functions of the libbpf that this process is linked
    /// with, must not have been loaded, and must neither be used nor closed by anybody else from here on. Whatever libbpf
    /// was given by pointer (log buffers, cookies of handlers) must stay valid, and usable from any thread, until then.
    pub unsafe fn from_raw(object: NonNull<bpf_sys::bpf_object>) -> Self {
        Self(Object(object, Owner::Us))
    }

    /// An object that stays the caller's, and open: it is loaded in place, with all of its programs and maps.
    ///
    /// # Safety
    /// As [`from_raw`](Self::from_raw); but the caller uses it, while no call of ours does, and closes it after the last
    /// program of it is dropped.
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn lent(object: NonNull<bpf_sys::bpf_object>) -> Self {
        Self(Object(object, Owner::Caller))
    }

    pub(crate) fn into_inner(self) -> Object {
        self.0
    }
}
