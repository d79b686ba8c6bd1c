//! Links: what holds a program in a function of another one, or on an interface.

use super::attr::{LinkCreateAttr, LinkUpdateAttr, XdpLinkAttr};
use super::{bpf, bpf_fd, fd_by_id, object_info, raw};
use crate::sys::Kernel;
use libbpf_sys as bpf_sys;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// How often a link that is being made is asked for again: for about a second.
const SETTLING: u32 = 1000;

/// What the kernel tells of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program: u32,
    pub(crate) kind: LinkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// Holds a program on an interface; ifindex 0 once that is gone.
    Xdp {
        ifindex: u32,
    },
    /// Holds a program in a function of the kernel or of another program; zeroes before kernel 5.13.
    Tracing {
        /// 0 for an extension program, as a rule: from kernel 6.17 it is what its maker said.
        attach_type: u32,
        target: u32,
        function: u32,
    },
    Other,
}

/// `struct bpf_link_info`: its head, and the words of whatever kind the link is.
#[repr(C, align(8))]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    detail: [u32; 28],
}

impl Kernel {
    /// `BPF_LINK_CREATE` of an extension program into function `btf_id` of `target`.
    pub(crate) fn link_extension(
        &self,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        btf_id: u32,
    ) -> io::Result<OwnedFd> {
        self.step("BPF_LINK_CREATE")?;
        let mut attr = LinkCreateAttr {
            prog_fd: raw(program),
            target_fd: raw(target),
            target_btf_id: btf_id,
            ..Default::default()
        };
        // SAFETY: LinkCreateAttr is what BPF_LINK_CREATE reads, and holds no pointer.
        unsafe { bpf_fd(bpf_sys::BPF_LINK_CREATE, &mut attr) }
    }

    /// `BPF_LINK_CREATE` of an XDP program onto an interface of the calling thread's namespace: `EBUSY` if
    /// anything is attached there. Kernel 5.9.
    pub(crate) fn link_xdp(
        &self,
        program: BorrowedFd<'_>,
        ifindex: u32,
        flags: u32,
    ) -> io::Result<OwnedFd> {
        self.step("BPF_LINK_CREATE of XDP")?;
        let mut attr = XdpLinkAttr {
            prog_fd: raw(program),
            target_ifindex: ifindex,
            attach_type: bpf_sys::BPF_XDP,
            flags,
        };
        // SAFETY: XdpLinkAttr is what BPF_LINK_CREATE reads, and holds no pointer.
        unsafe { bpf_fd(bpf_sys::BPF_LINK_CREATE, &mut attr) }
    }

    /// `BPF_LINK_UPDATE`: puts `new` in the place of `old`; `EPERM` if it is not `old` that the link holds.
    pub(crate) fn link_update(
        &self,
        link: BorrowedFd<'_>,
        new: BorrowedFd<'_>,
        old: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.step("BPF_LINK_UPDATE")?;
        let mut attr = LinkUpdateAttr {
            link_fd: raw(link),
            new_prog_fd: raw(new),
            flags: bpf_sys::BPF_F_REPLACE,
            old_prog_fd: raw(old),
        };
        // SAFETY: LinkUpdateAttr is what BPF_LINK_UPDATE reads, and holds no pointer.
        unsafe { bpf(bpf_sys::BPF_LINK_UPDATE, &mut attr) }.map(drop)
    }

    /// `BPF_LINK_DETACH`: takes the program off, though the link goes on to exist. Kernel 5.9.
    pub(crate) fn link_detach(&self, link: BorrowedFd<'_>) -> io::Result<()> {
        self.step("BPF_LINK_DETACH")?;
        let mut attr = LinkUpdateAttr { link_fd: raw(link), ..Default::default() };
        // SAFETY: the command reads only link_fd; the rest is zero.
        unsafe { bpf(bpf_sys::BPF_LINK_DETACH, &mut attr) }.map(drop)
    }

    /// `BPF_LINK_GET_FD_BY_ID`. A link that is just being made is waited for.
    pub(crate) fn link_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_LINK_GET_FD_BY_ID")?;
        let mut attempts = 0;
        loop {
            match fd_by_id(bpf_sys::BPF_LINK_GET_FD_BY_ID, id) {
                // kernel/bpf/syscall.c, bpf_link_by_id(): it has an id and is not settled.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < SETTLING => {
                    attempts += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other,
            }
        }
    }

    /// `BPF_OBJ_GET_INFO_BY_FD` of a link.
    pub(crate) fn link_info(&self, link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = RawLinkInfo::default();
        // SAFETY: RawLinkInfo starts as bpf_link_info does and is as long as all that a kernel may write into
        // it with its pointers NULL.
        unsafe { object_info(link, &mut info) }?;
        let [first, second, third, ..] = info.detail;
        let kind = match info.kind {
            bpf_sys::BPF_LINK_TYPE_XDP => LinkKind::Xdp { ifindex: first },
            bpf_sys::BPF_LINK_TYPE_TRACING => {
                LinkKind::Tracing { attach_type: first, target: second, function: third }
            }
            _ => LinkKind::Other,
        };
        Ok(LinkInfo { id: info.id, program: info.program, kind })
    }
}
