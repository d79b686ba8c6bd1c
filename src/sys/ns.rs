//! Network namespaces: entering one on a thread made for it, what identifies it, and the ways to get hold of one.

use super::Kernel;
use super::proc::new_descriptor;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// `SO_NETNS_COOKIE`; include/uapi/asm-generic/socket.h, since kernel 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `FILEID_NSFS`; include/linux/exportfs.h, since kernel 6.18.
const FILEID_NSFS: libc::c_int = 0xf1;
/// `NS_GET_NSTYPE`, `_IO(0xb7, 3)`; include/uapi/linux/nsfs.h.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// `SIOCGSKNS`; include/uapi/linux/sockios.h.
const SIOCGSKNS: libc::c_ulong = 0x894c;
/// listns(2). Since Linux 5.1 a new call comes at the same distance from older ones on every architecture.
const SYS_LISTNS: libc::c_long = libc::SYS_pidfd_open + 36;
/// `FD_NSFS_ROOT`; include/uapi/linux/fcntl.h, since kernel 6.18.
const FD_NSFS_ROOT: libc::c_int = -10003;
/// Device number of `/dev/net/tun`; Documentation/admin-guide/devices.txt.
const TUN: libc::dev_t = libc::makedev(10, 200);
/// How many namespaces listns(2) is asked for at first.
const LIST_ROOM: usize = 4096;

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

/// `struct ns_id_req`; include/uapi/linux/nsfs.h.
#[repr(C)]
struct ListRequest {
    size: u32,
    spare: u32,
    after: u64,
    kind: u32,
    spare2: u32,
    owner: u64,
}

/// `NS_ID_REQ_SIZE_VER0`.
const _: () = assert!(size_of::<ListRequest>() == 32);

/// What a namespace is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NsKind {
    Net,
    Mount,
    Other,
}

impl Kernel {
    /// Whether the descriptor is of a network namespace, and no other file.
    pub(crate) fn is_netns(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self.ns_kind(file)? == Some(NsKind::Net))
    }

    /// What namespace the descriptor is of; `None` if it is of another file.
    pub(crate) fn ns_kind(&self, file: BorrowedFd<'_>) -> io::Result<Option<NsKind>> {
        if self.file_system(file)? != NSFS_MAGIC {
            return Ok(None);
        }
        self.step("ioctl")?;
        // SAFETY: every file of nsfs takes NS_GET_NSTYPE, which has no argument.
        Ok(Some(match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE, 0) } {
            libc::CLONE_NEWNET => NsKind::Net,
            libc::CLONE_NEWNS => NsKind::Mount,
            _ => NsKind::Other,
        }))
    }

    /// The network namespace of the calling thread: where there is no `/proc`, that of a socket, with `CAP_NET_ADMIN`.
    pub(crate) fn own_netns(&self) -> io::Result<File> {
        self.step("open")?;
        match File::open("/proc/thread-self/ns/net") {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                let socket = File::from(self.datagram_socket()?);
                self.socket_netns(&socket)?.ok_or(absent)
            }
            other => other,
        }
    }

    fn datagram_socket(&self) -> io::Result<OwnedFd> {
        self.step("socket")?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes no pointer.
        new_descriptor(unsafe { libc::socket(libc::AF_UNIX, kind, 0) }.into())
    }

    /// Runs `work` in the namespace `netns`. Where the calling thread is in another one, `work` runs on a
    /// thread of its own, so the caller's namespaces are never touched. The error is that of getting there.
    pub(crate) fn in_netns<T: Send>(
        &self,
        netns: BorrowedFd<'_>,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        let here = self.own_netns()?;
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
        let socket = self.datagram_socket()?;
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

    /// Opens the namespace that `path` names, if it is one, and that of the given inode. Anything else that may be
    /// there by now is not opened, since that can have effects.
    pub(crate) fn open_ns(&self, path: &Path, inode: Option<u64>) -> io::Result<Option<File>> {
        self.step("open")?;
        let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let there = self.file_id(&found)?.inode;
        let is_it = inode.is_none_or(|inode| inode == there)
            && self.file_system(found.as_fd())? == NSFS_MAGIC;
        if !is_it {
            return Ok(None);
        }
        self.step("open")?;
        File::open(format!("/proc/thread-self/fd/{}", found.as_raw_fd())).map(Some)
    }

    /// The namespace of a socket, or of a descriptor of `/dev/net/tun`, which has one too. `None` if it is neither.
    /// Needs `CAP_NET_ADMIN` over the namespace.
    pub(crate) fn socket_netns(&self, socket: &File) -> io::Result<Option<File>> {
        self.step("fstat")?;
        let metadata = socket.metadata()?;
        let is_tun = metadata.file_type().is_char_device() && metadata.rdev() == TUN;
        if !is_tun && !metadata.file_type().is_socket() {
            return Ok(None);
        }
        self.step("ioctl")?;
        // SAFETY: sockets and /dev/net/tun take SIOCGSKNS, which has no argument.
        let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS, 0) };
        new_descriptor(fd.into()).map(|fd| Some(fd.into()))
    }

    /// The ids of all network namespaces that a process is in, a file is bound to or open on, as far as this process
    /// may see them. One that only a socket keeps alive is not among them. `ENOSYS` before kernel 6.19.
    pub(crate) fn list_netns(&self) -> io::Result<Vec<u64>> {
        let mut ids = vec![0_u64; LIST_ROOM];
        loop {
            self.step("listns")?;
            let request = ListRequest {
                size: 32,
                spare: 0,
                after: 0,
                kind: libc::CLONE_NEWNET.cast_unsigned(),
                spare2: 0,
                owner: 0,
            };
            // SAFETY: request is a live ns_id_req of the size that it says, and ids has the room that is said.
            let count = unsafe {
                libc::syscall(SYS_LISTNS, &raw const request, ids.as_mut_ptr(), ids.len(), 0)
            };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            if count < ids.len() {
                ids.truncate(count);
                return Ok(ids);
            }
            // All at once: a listing that goes on after an id ends early at a namespace that has just died.
            ids.resize(ids.len() * 4, 0);
        }
    }

    /// Opens a namespace by the id in its handle; kernel 6.18, which wants the inode too. `ESTALE` if no such
    /// namespace lives, or, from 6.19, if only a socket keeps it alive.
    pub(crate) fn open_netns_by_id(&self, id: u64, inode: Option<u64>) -> io::Result<File> {
        self.step("open_by_handle_at")?;
        // struct nsfs_file_handle: the id, then kind and inode with 32 bits each, both known or both 0.
        let kind_and_inode =
            inode.map_or(0, |inode| (inode << 32) | u64::from(libc::CLONE_NEWNET.cast_unsigned()));
        let mut handle = Handle { bytes: 16, kind: FILEID_NSFS, data: [0; 16] };
        [handle.data[0], handle.data[1]] = [id, kind_and_inode];
        // SAFETY: handle starts as struct file_handle does and has more than the bytes that its first word says.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                FD_NSFS_ROOT,
                &raw const handle,
                libc::O_RDONLY | libc::O_CLOEXEC,
            )
        };
        new_descriptor(fd).map(File::from)
    }

    /// Whether `ESTALE` for a namespace's handle proves that it is dead. From 6.19 it can also mean that nothing but a
    /// socket keeps it alive.
    pub(crate) fn stale_is_dead(&self) -> bool {
        self.release() == Some((6, 18))
    }
}
