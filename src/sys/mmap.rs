//! Memory mappings that are owned, and unmapped when they go.

use super::Kernel;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A mapping, unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: it is a number of pages that belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared Mapping only tells where it is.
unsafe impl Sync for Mapping {}

/// Of which pages memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    Ordinary,
    /// Huge ones where the kernel finds some; `/sys/kernel/mm/transparent_hugepage/enabled`.
    Transparent,
    /// From the pool of huge pages, and only from that.
    Pool,
}

/// What is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backing<'a> {
    /// Fresh memory of this process alone, zeroed; not there in a child after fork(2).
    Anonymous(Pages),
    /// A file that others may map too, from an offset on.
    Shared(BorrowedFd<'a>, libc::off_t),
}

impl Mapping {
    /// Its first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes from there.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Brings in all pages now; not before kernel 5.14, where they come when they are touched.
    pub(crate) fn populate(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is the mapping's own, and the advice leaves what is in it.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.length, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's alone, and nobody has its addresses once it goes.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

impl Kernel {
    /// Maps `length` bytes, readable and writable. All pages are there at once but ordinary ones of anonymous memory, which
    /// come when they are touched, or registered.
    pub(crate) fn map(&self, length: usize, backing: Backing<'_>) -> io::Result<Mapping> {
        let (private, now) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_POPULATE);
        let mapping = match backing {
            Backing::Anonymous(Pages::Ordinary) => self.map_with(length, private, -1, 0),
            Backing::Anonymous(Pages::Transparent) => self.map_transparent(length, private),
            Backing::Anonymous(Pages::Pool) => {
                self.map_with(length, private | now | libc::MAP_HUGETLB, -1, 0)
            }
            Backing::Shared(file, offset) => {
                self.map_with(length, libc::MAP_SHARED | now, file.as_raw_fd(), offset)
            }
        }?;
        if matches!(backing, Backing::Anonymous(_)) {
            // A child gets no copy of what the kernel writes to.
            mapping.advise(libc::MADV_DONTFORK)?;
        }
        Ok(mapping)
    }

    /// The pages have to be there after the advice, so that they cannot be made with the mapping.
    fn map_transparent(&self, length: usize, flags: libc::c_int) -> io::Result<Mapping> {
        let mapping = self.map_with(length, flags, -1, 0)?;
        // A kernel that was built without them says EINVAL.
        let _ = mapping.advise(libc::MADV_HUGEPAGE);
        match mapping.advise(libc::MADV_POPULATE_WRITE) {
            Ok(()) => Ok(mapping),
            // Before kernel 5.14.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.map_with(length, flags | libc::MAP_POPULATE, -1, 0)
            }
            Err(error) => Err(error),
        }
    }

    fn map_with(
        &self,
        length: usize,
        flags: libc::c_int,
        fd: libc::c_int,
        offset: libc::off_t,
    ) -> io::Result<Mapping> {
        self.step("mmap")?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Mapping { base, length })
    }
}

impl Kernel {
    /// Bytes in a page.
    #[allow(clippy::unused_self)]
    pub(crate) fn page_size(&self) -> u32 {
        // SAFETY: sysconf(3) takes no pointer.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        u32::try_from(size).unwrap_or(4096)
    }

    /// Bytes in a huge page of the size that is taken if none is asked for; `Hugepagesize` of proc_meminfo(5).
    pub(crate) fn huge_page_size(&self) -> io::Result<usize> {
        self.step("meminfo")?;
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"));
        let kilobytes =
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        kilobytes
            .map(|size| size * 1024)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    /// Bytes of a file.
    pub(crate) fn file_length(&self, file: BorrowedFd<'_>) -> io::Result<usize> {
        self.step("fstat")?;
        let length = std::fs::File::from(file.try_clone_to_owned()?).metadata()?.len();
        usize::try_from(length).map_err(io::Error::other)
    }
}
