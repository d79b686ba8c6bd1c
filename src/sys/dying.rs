//! Waiting for namespaces that nobody can see any more and that are not gone yet.

use super::Kernel;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `FSCONFIG_CMD_CREATE`; include/uapi/linux/mount.h.
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
/// How often is looked.
const POLL: Duration = Duration::from_millis(5);

/// The interfaces of a namespace as its sysfs lists them: it does not keep the namespace alive.
struct Listing {
    /// A mount that is nowhere in the file tree.
    mount: OwnedFd,
}

impl Kernel {
    /// Waits until every network namespace is gone for good that had no user left when this was called; `false` if that
    /// takes longer than `limit`. Needs `CAP_SYS_ADMIN` and kernel 5.2.
    ///
    /// Between the two its devices are in no namespace that can be found, and a physical one comes back to the initial
    /// namespace afterwards, with its program. The kernel tears namespaces down in the order in which they died
    /// (net/core/net_namespace.c, `cleanup_net()`), and all that died together together: moving devices out comes before
    /// removing the loopback device, for all of them (net/core/dev.c, `default_device_exit_batch()`). So one that is made
    /// and left now is the last; when its loopback device is gone, the others' devices are where they belong.
    pub(crate) fn wait_for_dying_netns(&self, limit: Duration) -> io::Result<bool> {
        let listing = self.in_new_netns(|| self.list_own_interfaces())??;
        let start = Instant::now();
        while listing.has_loopback()? {
            if start.elapsed() >= limit {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// A sysfs of the calling thread's namespace.
    fn list_own_interfaces(&self) -> io::Result<Listing> {
        self.step("fsopen")?;
        // SAFETY: the name ends in NUL.
        let context = unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), FSOPEN_CLOEXEC) };
        let context = descriptor(context)?;
        self.step("fsconfig")?;
        // SAFETY: this command takes neither key nor value.
        let made = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                std::ptr::null::<libc::c_char>(),
                std::ptr::null::<libc::c_void>(),
                0,
            )
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        self.step("fsmount")?;
        // SAFETY: fsmount(2) takes no pointer.
        let mount =
            unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
        Ok(Listing { mount: descriptor(mount)? })
    }
}

impl Listing {
    fn has_loopback(&self) -> io::Result<bool> {
        let fd = self.mount.as_raw_fd();
        let path = PathBuf::from(format!("/proc/thread-self/fd/{fd}/class/net/lo"));
        match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The descriptor that a system call has just made.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_lives_is_listed_and_a_dead_one_is_waited_for() {
        let kernel = Kernel::default();
        let listing = kernel
            .in_new_netns(|| {
                let listing = kernel.list_own_interfaces().unwrap();
                assert!(listing.has_loopback().unwrap());
                listing
            })
            .unwrap();
        assert!(kernel.wait_for_dying_netns(Duration::from_secs(30)).unwrap());
        assert!(!listing.has_loopback().unwrap(), "it died first");
    }
}
