//! The default program: the one that all AF_XDP sockets of an interface share, whichever library they are of.
//!
//! It is found by its name, and keeps a counter of its users in its first global variable, which C libxdp and we change
//! under the same lock. A process that is killed cannot count itself out: so a counter is only believed as far as there is
//! somebody who can be seen to use the program (`usage`).

mod code;
#[cfg(test)]
mod fault_tests;
mod frags;
mod join;
mod leave;
mod pinned;
mod seen;
mod shared;
mod usage;

pub(crate) use leave::Dropped;
pub(crate) use seen::look;
pub(crate) use usage::{Usage, Watch};

use crate::dispatcher::Xdp;
use crate::error::{Context, ErrorKind, Result};
use crate::net::{Interface, Mode};
use join::Joiner;
use leave::Leaver;
use shared::Shared;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

/// How the program is called, in every version of every library.
const NAME: &str = "xsk_def_prog";

/// How a [`DefaultProgram`] is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramOptions {
    /// Where; a program that is there must run there.
    pub mode: Mode,
    /// Whether it is to read packets of several fragments, for sockets that are bound with `XDP_USE_SG` (kernel 6.6); it
    /// can from kernel 5.18, and in a chain if all others can.
    pub multi_buffer: bool,
}

/// A share in the program that gives the packets of each receive queue to the AF_XDP socket that was
/// [inserted](Self::insert) for it, and lets those of other queues pass.
///
/// An interface has one for all its sockets, also those of C libxdp, 1.3 and later: who comes first attaches it, in the
/// chain with priority 20 or alone as the [`Policy`](crate::Policy) of the [`Xdp`] says, and who goes last detaches it. That
/// is [`leave`](Self::leave), or the drop of this value, whose errors go to the log. It counts for as long as this value
/// exists; a process that is killed is noticed by the next that joins or leaves, and by
/// [`Xdp::inventory`](crate::Xdp::inventory).
///
/// ```no_run
/// # use std::os::fd::AsFd;
/// # fn main() -> oxdp::Result<()> {
/// # let (xdp, socket) = (oxdp::Xdp::new()?, std::io::stdin());
/// # let eth0 = oxdp::Interface::by_name(&oxdp::Netns::current()?, "eth0")?;
/// use oxdp::{DefaultProgram, ProgramOptions};
///
/// let program = DefaultProgram::join(&xdp, &eth0, &ProgramOptions::default())?;
/// program.insert(0, socket.as_fd())?;
/// // … packets of queue 0 are in the socket's RX ring …
/// program.leave()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DefaultProgram {
    xdp: Xdp,
    interface: Interface,
    shared: Shared,
    mode: Mode,
    has_frags: bool,
    /// Queues for which a socket was inserted.
    queues: Mutex<BTreeSet<u32>>,
    has_left: bool,
}

impl DefaultProgram {
    /// Joins the users of the program on an interface; attaches it if it is not there.
    ///
    /// Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, a bpf file system for the lock, and kernel 5.10.
    ///
    /// # Errors
    /// Those of [`Xdp::attach`]; [`ErrorKind::ModeConflict`] for another mode than that of what is there;
    /// [`ErrorKind::NoFrags`] for a program that runs alone and reads no fragments, while others depend on it;
    /// [`ErrorKind::DefaultProgramVersion`] for one of a later version of the protocol; [`ErrorKind::NoBpffs`].
    #[doc(alias = "xsk_setup_xdp_prog")]
    pub fn join(xdp: &Xdp, interface: &Interface, options: &ProgramOptions) -> Result<Self> {
        Self::join_by(Joiner::new(xdp, interface, *options)?, xdp, interface, options.mode)
    }

    /// The same, but one that is there is joined in whatever mode it runs, as C libxdp does.
    #[cfg(feature = "capi")]
    pub(crate) fn join_in_any_mode(
        xdp: &Xdp,
        interface: &Interface,
        options: ProgramOptions,
    ) -> Result<Self> {
        let mut joiner = Joiner::new(xdp, interface, options)?;
        joiner.takes_any_mode = true;
        Self::join_by(joiner, xdp, interface, options.mode)
    }

    fn join_by(
        mut joiner: Joiner<'_>,
        xdp: &Xdp,
        interface: &Interface,
        mode: Mode,
    ) -> Result<Self> {
        let mut program = joiner.fresh();
        if let Err(error) = xdp.host(interface, Some(&mut program), mode, &mut joiner) {
            joiner.undo();
            return Err(error);
        }
        let (shared, mode, has_frags) = joiner.finish(interface)?;
        Ok(Self {
            xdp: xdp.clone(),
            interface: interface.clone(),
            shared,
            mode,
            has_frags,
            queues: Mutex::default(),
            has_left: false,
        })
    }

    /// Gives the packets of a receive queue to a socket that is bound to it, in place of one that may have them. The socket
    /// is taken out by [`remove`](Self::remove), by leaving, or by the kernel when it is closed and its rings are unmapped.
    ///
    /// # Errors
    /// `E2BIG` for a queue beyond those that the interface had room for when the program was loaded; `EOPNOTSUPP` for another
    /// kind of socket.
    #[doc(alias = "xsk_socket__update_xskmap")]
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let inserted = self.xdp.kernel().map_put_object(&self.shared.sockets, queue, socket);
        inserted.during(
            "give to an AF_XDP socket",
            format_args!("queue {queue} of {}", self.interface),
        )?;
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(queue);
        Ok(())
    }

    /// Lets the packets of a queue pass. No error if no socket has them; `EINVAL` for a queue beyond the map's.
    pub fn remove(&self, queue: u32) -> Result<()> {
        let what = format_args!("queue {queue} of {}", self.interface);
        let removed = self.xdp.kernel().map_delete_object(&self.shared.sockets, queue);
        removed.during("take an AF_XDP socket off", what)?;
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(&queue);
        Ok(())
    }

    /// Leaves: takes the sockets out that were inserted by this value, and the program off the interface if nobody else
    /// uses it.
    ///
    /// # Errors
    /// Those of [`Xdp::detach`]. Then the program stays, without a user, and what joins next or a recovery takes it off.
    pub fn leave(mut self) -> Result<()> {
        self.let_go()
    }

    /// Forgets that a socket was inserted for a queue, where somebody else's has taken its place.
    #[cfg(feature = "capi")]
    pub(crate) fn forget(&self, queue: u32) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(&queue);
    }

    /// Goes without leaving: its user goes on counting, as whoever has a descriptor of the map.
    #[cfg(feature = "capi")]
    pub(crate) fn stay(mut self) {
        self.has_left = true;
    }

    fn let_go(&mut self) -> Result<()> {
        self.has_left = true;
        let queues = self.queues.get_mut().unwrap_or_else(PoisonError::into_inner);
        for queue in std::mem::take(queues) {
            if let Err(error) = self.remove(queue) {
                log::warn!("{error}");
            }
        }
        let mut leaver = Leaver::new(&self.xdp, &self.shared);
        let mut leave =
            || match self.xdp.host(&self.interface, None, Mode::Unspecified, &mut leaver) {
                // Then it is gone from there, too.
                Err(error) if matches!(error.kind(), ErrorKind::NoInterface) => leaver.count(),
                other => other.map(drop),
            };
        // Nobody else will do it until the next comes, or a recovery.
        leave().or_else(|error| {
            log::debug!("{error}; a second time");
            leave()
        })
    }

    /// Where it runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it takes packets of several fragments to the sockets: where that was asked for by whoever, the kernel can, and
    /// all programs of the chain can.
    pub fn has_frags(&self) -> bool {
        self.has_frags
    }

    /// How many queues its map has room for.
    pub fn queues(&self) -> u32 {
        self.shared.sockets.info().max_entries
    }
}

/// The map from queues to sockets, as of type `BPF_MAP_TYPE_XSKMAP`.
impl AsFd for DefaultProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.sockets.as_fd()
    }
}

impl Drop for DefaultProgram {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        if let Err(error) = self.let_go() {
            log::warn!("the default AF_XDP program is left behind: {error}");
        }
    }
}
