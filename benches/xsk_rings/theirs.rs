//! The loop over C's inline functions, built and loaded.

use anyhow::{Context, Result, ensure};
use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/xsk_rings/rings.c");
/// The first that there is.
const COMPILERS: [&str; 3] = ["clang-14", "clang", "cc"];

type New = unsafe extern "C" fn(c_int, u32, *mut u8) -> *mut c_void;
type Step = unsafe extern "C" fn(*mut c_void, u32) -> u64;

/// `struct rings`.
pub(crate) struct Theirs {
    rings: NonNull<c_void>,
    step: Step,
}

impl Theirs {
    /// In the file of a simulation; with the loop that has this name. `packets` is read by `rings_look` only.
    pub(crate) fn new(file: &OwnedFd, size: u32, name: &str, packets: *mut u8) -> Result<Self> {
        let library = Library::build()?;
        // SAFETY: rings.c declares it so.
        let new: New = unsafe { std::mem::transmute(library.symbol("rings_new")?) };
        // SAFETY: as above.
        let step: Step = unsafe { std::mem::transmute(library.symbol(name)?) };
        // SAFETY: the simulation has made rings of this size in the file.
        let rings = unsafe { new(file.as_raw_fd(), size, packets) };
        Ok(Self { rings: NonNull::new(rings).context("rings_new")?, step })
    }

    pub(crate) fn step(&mut self, batch: u32) -> u64 {
        // SAFETY: made by `rings_new`, and used by nobody else.
        unsafe { (self.step)(self.rings.as_ptr(), batch) }
    }
}

/// A shared object, never unloaded.
struct Library(NonNull<c_void>);

impl Library {
    fn build() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let object = directory.path().join("rings.so");
        compile(&object)?;
        let path = CString::new(object.to_str().context("a path in UTF-8")?)?;
        // SAFETY: a string that ends with a zero; the object runs no code when it is loaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        Ok(Self(NonNull::new(handle).context("dlopen")?))
    }

    fn symbol(&self, name: &str) -> Result<NonNull<c_void>> {
        let text = CString::new(name)?;
        // SAFETY: a library that is loaded, and a string that ends with a zero.
        let symbol = unsafe { libc::dlsym(self.0.as_ptr(), text.as_ptr()) };
        NonNull::new(symbol).with_context(|| name.to_owned())
    }
}

fn compile(object: &Path) -> Result<()> {
    for compiler in COMPILERS {
        let mut command = Command::new(compiler);
        command.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(object).arg(SOURCE);
        match command.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            status => {
                ensure!(status?.success(), "{compiler} cannot build {SOURCE} (libxdp-dev?)");
                return Ok(());
            }
        }
    }
    anyhow::bail!("no C compiler: {}", COMPILERS.join(", "))
}
