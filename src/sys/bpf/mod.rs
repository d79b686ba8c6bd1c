//! Thin bpf(2) calls: one method, one command, one system call.

mod attr;
mod link;
mod map;
mod program;

pub(crate) use link::LinkKind;
pub(crate) use map::{MapHandle, MapInfo, MapSpec};
pub(in crate::sys) use program::attach_type;
pub(crate) use program::{LoadError, ProgramInfo, ProgramSpec, RunSpec};

use super::Kernel;
use super::fs::c_path;
use super::proc::above_standard;
use attr::{BtfLoadAttr, IdAttr, InfoAttr, NAME_LENGTH, ObjectAttr};
use libbpf_sys as bpf_sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Room for a program's BTF at the first try, in bytes; a larger one takes a second call.
const BTF_ROOM: u32 = 8192;

/// One bpf(2) call.
///
/// # Safety
/// `attr` must be the start of `union bpf_attr` as `command` reads it, and every pointer in it must
/// be valid for what the command reads or writes there, for the length of the call.
unsafe fn bpf<A>(command: bpf_sys::bpf_cmd, attr: &mut A) -> io::Result<i32> {
    // SAFETY: attr is live, writable and size_of::<A>() long; its pointers are the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// One bpf(2) call that answers with a new descriptor.
///
/// # Safety
/// As [`bpf`], and `command` must be one that returns a descriptor.
unsafe fn bpf_fd<A>(command: bpf_sys::bpf_cmd, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise is the same.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    above_standard(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

fn length<T>(slice: &[T]) -> io::Result<u32> {
    u32::try_from(slice.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}

/// `name` as an object name: cut to 15 bytes, closed by NUL.
fn object_name(name: &str) -> [u8; NAME_LENGTH] {
    let mut out = [0; NAME_LENGTH];
    for (to, from) in out.iter_mut().take(NAME_LENGTH - 1).zip(name.bytes()) {
        *to = from;
    }
    out
}

fn text(bytes: impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Kernel {
    /// Kernels before 5.11 count BPF memory against `RLIMIT_MEMLOCK` and say EPERM when it is too low, with
    /// the same errno as for a missing privilege. The limit is lifted only there, and only after an EPERM.
    /// Another thread may be faster to lift it: the call is tried again all the same.
    fn with_memlock<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.counts_memlock() => {
                lift_memlock();
                call()
            }
            other => other,
        }
    }

    /// `BPF_BTF_LOAD`
    pub(crate) fn btf_load(&self, btf: &[u8]) -> io::Result<OwnedFd> {
        self.step("BPF_BTF_LOAD")?;
        self.with_memlock(|| {
            let mut attr =
                BtfLoadAttr { btf: address(btf), btf_size: length(btf)?, ..Default::default() };
            // SAFETY: btf is btf_size bytes long and only read; there is no log buffer.
            unsafe { bpf_fd(bpf_sys::BPF_BTF_LOAD, &mut attr) }
        })
    }

    /// `BPF_BTF_GET_FD_BY_ID`
    pub(crate) fn btf_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_BTF_GET_FD_BY_ID")?;
        fd_by_id(bpf_sys::BPF_BTF_GET_FD_BY_ID, id)
    }

    /// Ids of all programs, maps or links in the kernel; `command` is one of `BPF_*_GET_NEXT_ID`.
    pub(crate) fn ids(&self, command: bpf_sys::bpf_cmd) -> io::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut attr = IdAttr::default();
        loop {
            self.step("BPF_OBJ_GET_NEXT_ID")?;
            // SAFETY: the BPF_*_GET_NEXT_ID commands read the id and write the next one, both in the attr.
            match unsafe { bpf(command, &mut attr) } {
                Ok(_) => ids.push(attr.next_id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
                Err(error) => return Err(error),
            }
            attr.id = attr.next_id;
        }
    }

    /// Whether the descriptor is of a BPF program. Asked of what was pinned by others: the query for one kind
    /// of object, answered about another, is nonsense.
    pub(crate) fn is_program(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        match self.is_kind(object, "anon_inode:bpf-prog") {
            // Without /proc.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.has_program_info(object),
            other => other,
        }
    }

    /// Whether the descriptor is of a BPF map.
    pub(crate) fn is_map(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        self.is_kind(object, "anon_inode:bpf-map")
    }

    /// Whether the descriptor is of a BPF link.
    pub(crate) fn is_link(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        // kernel/bpf/syscall.c: bpf_link_prime() writes one name, bpf_link_new_fd() the other.
        Ok(self.is_kind(object, "anon_inode:bpf-link")?
            || self.is_kind(object, "anon_inode:bpf_link")?)
    }

    fn is_kind(&self, object: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
        self.step("readlink")?;
        let target = std::fs::read_link(format!("/proc/thread-self/fd/{}", object.as_raw_fd()))?;
        Ok(target.as_os_str() == name)
    }

    /// The raw BTF behind a descriptor.
    pub(crate) fn btf_data(&self, btf: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let mut room = BTF_ROOM;
        loop {
            self.step("BPF_OBJ_GET_INFO_BY_FD")?;
            let mut data = vec![0_u8; room as usize];
            let mut info = bpf_sys::bpf_btf_info {
                btf: address_mut(&mut data),
                btf_size: room,
                ..Default::default()
            };
            // SAFETY: bpf_btf_info is what the kernel writes for BTF; data has btf_size bytes.
            unsafe { object_info(btf, &mut info) }?;
            if info.btf_size <= room {
                data.truncate(info.btf_size as usize);
                return Ok(data);
            }
            room = info.btf_size;
        }
    }

    /// `BPF_OBJ_PIN`
    pub(crate) fn pin(&self, object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.step("BPF_OBJ_PIN")?;
        let path = c_path(path)?;
        let mut attr = ObjectAttr {
            pathname: path.as_ptr() as u64,
            bpf_fd: raw(object),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns.
        unsafe { bpf(bpf_sys::BPF_OBJ_PIN, &mut attr) }.map(drop)
    }

    /// `BPF_OBJ_PIN` as a name in a directory; `EINVAL` before kernel 6.5.
    pub(crate) fn pin_in(
        &self,
        object: BorrowedFd<'_>,
        directory: &File,
        name: &str,
    ) -> io::Result<()> {
        self.step("BPF_OBJ_PIN")?;
        let name = c_path(Path::new(name))?;
        let mut attr = ObjectAttr {
            pathname: name.as_ptr() as u64,
            bpf_fd: raw(object),
            file_flags: bpf_sys::BPF_F_PATH_FD,
            path_fd: raw(directory.as_fd()),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns; the directory is open.
        unsafe { bpf(bpf_sys::BPF_OBJ_PIN, &mut attr) }.map(drop)
    }

    /// `BPF_OBJ_GET` of a name in a directory; `EINVAL` before kernel 6.5.
    pub(crate) fn open_pin_in(&self, directory: &File, name: &str) -> io::Result<OwnedFd> {
        self.step("BPF_OBJ_GET")?;
        let name = c_path(Path::new(name))?;
        let mut attr = ObjectAttr {
            pathname: name.as_ptr() as u64,
            file_flags: bpf_sys::BPF_F_PATH_FD,
            path_fd: raw(directory.as_fd()),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns; the directory is open.
        unsafe { bpf_fd(bpf_sys::BPF_OBJ_GET, &mut attr) }
    }

    /// `BPF_OBJ_GET`
    pub(crate) fn open_pin(&self, path: &Path) -> io::Result<OwnedFd> {
        self.step("BPF_OBJ_GET")?;
        let path = c_path(path)?;
        let mut attr = ObjectAttr { pathname: path.as_ptr() as u64, ..Default::default() };
        // SAFETY: pathname ends in NUL and lives until the call returns.
        unsafe { bpf_fd(bpf_sys::BPF_OBJ_GET, &mut attr) }
    }
}

/// Without the privilege to do so nothing happens, and the call fails again.
fn lift_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: unlimited is a live rlimit that the kernel only reads.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

fn fd_by_id(command: bpf_sys::bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, ..Default::default() };
    // SAFETY: the BPF_*_GET_FD_BY_ID commands read only the id and the flags.
    unsafe { bpf_fd(command, &mut attr) }
}

/// `BPF_OBJ_GET_INFO_BY_FD`; how many bytes the kernel knows of this kind of object, up to the size of `I`.
///
/// # Safety
/// `I` must be the info structure of the kind of object that `object` is, or of a kind whose structure the
/// kernel fills with plain integers, and its pointers must be valid for the lengths beside them.
unsafe fn object_info<I>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<usize> {
    let mut attr = InfoAttr {
        bpf_fd: raw(object),
        info_len: u32::try_from(size_of::<I>()).unwrap_or(u32::MAX),
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: info is live and info_len bytes long; its own pointers are the caller's promise.
    unsafe { bpf(bpf_sys::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_closed() {
        assert_eq!(&object_name("xdp"), b"xdp\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&object_name("a_name_of_twenty_byte"), b"a_name_of_twent\0");
    }
}
