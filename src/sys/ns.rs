//! Network namespaces: entering one on a thread made for it, and what identifies it.

use super::Kernel;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `SO_NETNS_COOKIE`; include/uapi/asm-generic/socket.h, since kernel 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `FILEID_NSFS`; include/linux/exportfs.h, since kernel 6.18.
const FILEID_NSFS: libc::c_int = 0xf1;
/// `NS_GET_NSTYPE`, `_IO(0xb7, 3)`; include/uapi/linux/nsfs.h.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// `f_type` of namespaces' files; include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Room for the handle that name_to_handle_at(2) writes.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u64; 16],
}

/// The two words of a [`Handle`] come first and leave no gap before the data.
const _: () = assert!(std::mem::offset_of!(Handle, data) == 8);

impl Kernel {
    /// Whether the descriptor is of a network namespace, and no other file.
    pub(crate) fn is_netns(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        if self.file_system(file)? != NSFS_MAGIC {
            return Ok(false);
        }
        self.step("ioctl")?;
        // SAFETY: every file of nsfs takes NS_GET_NSTYPE, which has no argument.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE, 0) };
        Ok(kind == libc::CLONE_NEWNET)
    }

    /// Runs `work` in the namespace `netns`. Where the calling thread is in another one, `work` runs on a
    /// thread of its own, so the caller's namespaces are never touched. The error is that of getting there.
    pub(crate) fn in_netns<T: Send>(
        &self,
        netns: BorrowedFd<'_>,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        let here = File::open("/proc/thread-self/ns/net")?;
        let there = File::from(netns.try_clone_to_owned()?);
        if self.file_id(&here)? == self.file_id(&there)? {
            return Ok(work());
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("oxdp-netns".into());
            let entered = thread.spawn_scoped(scope, || {
                self.set_netns(netns)?;
                Ok(work())
            })?;
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` in a network namespace made for it, on a thread of its own. It goes when `work` is done, with
    /// whatever is in it.
    pub(crate) fn in_new_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("oxdp-probe".into());
            let entered = thread.spawn_scoped(scope, || {
                self.step("unshare")?;
                // SAFETY: unshare(2) takes no pointer; only this thread moves.
                if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(work())
            })?;
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread.
    fn set_netns(&self, netns: BorrowedFd<'_>) -> io::Result<()> {
        self.step("setns")?;
        // SAFETY: the descriptor is open; a wrong kind of namespace answers with an error.
        if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The cookie of the calling thread's namespace, unique until reboot; `None` before kernel 5.14.
    pub(crate) fn netns_cookie(&self) -> io::Result<Option<u64>> {
        self.step("socket")?;
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        self.step("getsockopt")?;
        let mut cookie = 0_u64;
        let mut size: libc::socklen_t = 8;
        // SAFETY: cookie has the 8 bytes that size says, and both are live.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut size,
            )
        };
        match result {
            0 => Ok(Some(cookie)),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// The id of the namespace, never used again until reboot; `None` before kernel 6.18.
    pub(crate) fn netns_handle(&self, netns: BorrowedFd<'_>) -> io::Result<Option<u64>> {
        self.step("name_to_handle_at")?;
        let mut handle = Handle { bytes: 128, kind: 0, data: [0; 16] };
        let mut mount_id: libc::c_int = 0;
        // SAFETY: the path is empty and ends in NUL; handle starts as struct file_handle does and has the
        // room that its first word says.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                netns.as_raw_fd(),
                c"".as_ptr(),
                &raw mut handle,
                &raw mut mount_id,
                libc::AT_EMPTY_PATH,
            )
        };
        // A kernel without handles for namespaces says EOPNOTSUPP, and a container's filter may say
        // EPERM: either way there is no id to be had, which is an answer and no failure.
        let known = result == 0 && handle.kind == FILEID_NSFS;
        Ok(known.then_some(handle.data[0]))
    }
}
