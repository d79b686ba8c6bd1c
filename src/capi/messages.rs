//! What the library has to say goes through the caller's print function, as libxdp's does; and errors in words.

use super::entry::{Errno, errno, error_in, is_real, number, set_errno};
use libbpf_sys as bpf_sys;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `libxdp_print_fn_t`, whose last argument is a `va_list`; never called from here, but by `print.c`.
type PrintFn = Option<unsafe extern "C" fn(c_int, *const c_char, *mut c_void) -> c_int>;

// enum libxdp_print_level
const WARN: c_int = 0;
const INFO: c_int = 1;
const DEBUG: c_int = 2;

unsafe extern "C" {
    /// Writes warnings and information to stderr; print.c.
    fn oxdp_capi_print(level: c_int, format: *const c_char, arguments: *mut c_void) -> c_int;
    /// Has `print` write a text; print.c.
    fn oxdp_capi_say(print: PrintFn, level: c_int, text: *const c_char);
}

/// The print function; NULL for none.
static PRINT: AtomicPtr<c_void> = AtomicPtr::new(oxdp_capi_print as *mut c_void);

#[unsafe(no_mangle)]
pub extern "C" fn libxdp_set_print(print: PrintFn) -> PrintFn {
    let new = print.map_or(std::ptr::null_mut(), |print| print as *mut c_void);
    let old = PRINT.swap(new, Ordering::AcqRel);
    set_up();
    as_function(old)
}

fn as_function(pointer: *mut c_void) -> PrintFn {
    // SAFETY: PRINT holds NULL, which is None of a function pointer, or what was a function of this type.
    unsafe { std::mem::transmute::<*mut c_void, PrintFn>(pointer) }
}

/// A logger of this library's own copy of `log`: the caller's programs in Rust have another one.
struct Messages;

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        let print = as_function(PRINT.load(Ordering::Acquire));
        if print.is_none() || !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error | Level::Warn => WARN,
            Level::Info => INFO,
            Level::Debug | Level::Trace => DEBUG,
        };
        let text = format!("libxdp: {}\n", record.args()).replace('\0', "?");
        let Ok(text) = CString::new(text) else { return };
        let before = errno();
        // SAFETY: print is a function of this type, and text ends in NUL.
        unsafe { oxdp_capi_say(print, level, text.as_ptr()) };
        set_errno(before);
    }

    fn flush(&self) {}
}

#[unsafe(no_mangle)]
pub extern "C" fn libxdp_get_error(pointer: *const c_void) -> c_long {
    if is_real(pointer) {
        return 0;
    }
    if let Some(Errno(errno)) = error_in(pointer) {
        set_errno(errno);
    }
    -c_long::from(errno())
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

/// Before anything can have something to say.
pub(super) fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // This copy of `log` is nobody else's, so that nobody was faster.
        if log::set_logger(&Messages).is_ok() {
            log::set_max_level(LevelFilter::Debug);
        }
        std::panic::set_hook(Box::new(|panic| log::error!("a fault of the library: {panic}")));
    });
}
