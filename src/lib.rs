//! Many XDP programs on one network interface, in many network namespaces.
//!
//! The kernel runs one XDP program per interface. `oxdp` puts a *dispatcher* there, which calls up to ten
//! component programs in the order of their priorities; each is an extension program (freplace) in a slot of
//! the dispatcher, and goes on living in bpffs when the process ends. The protocol is that of C libxdp, which works on the
//! same chains. What C libxdp cannot do: many network namespaces on one bpffs. Here the
//! namespace is part of the pin's path, by way of a [`PinLayout`].
//!
//! ```no_run
//! use oxdp::{Interface, Mode, Netns, Program, Select, Xdp};
//!
//! # fn main() -> oxdp::Result<()> {
//! let xdp = Xdp::new()?;
//! let pod = Netns::from_pid(4711)?;
//! let eth0 = Interface::by_name(&pod, "eth0")?;
//!
//! let mut filter = Program::from_file("udp_filter.o", Select::Only)?;
//! filter.set_priority(10);
//! xdp.attach(&eth0, &mut filter, Mode::Native)?;
//!
//! for member in &xdp.inspect(&eth0)?.chain().expect("just attached").members {
//!     println!("{}: {:?} after {}", member.slot, member.component, member.actions);
//! }
//! xdp.detach(&eth0, filter.id().expect("loaded"))?;
//! # Ok(())
//! # }
//! ```
//!
//! AF_XDP sockets, which take packets past the network stack to a program, are in [`xsk`].
//!
//! # What it promises
//!
//! - A change takes effect between two packets, or not at all. Every error leaves the interface, the kernel
//!   and bpffs as they were; a process that is killed leaves the old chain or the new one. (If the kernel's answer
//!   to the swap is lost, and what is attached cannot be asked for either, the change may be done: then the pins of
//!   the new chain stay, and the error is that of the swap.)
//! - The calling thread never changes its namespaces. Work in another one is done on a short-lived thread.
//! - Nothing is printed. What happens on the way goes to the [`log`] facade, targets `oxdp::…`. libbpf, which
//!   opens ELF objects, prints by one callback for the whole process; the first object that is opened here
//!   sets it to go to `log` too (target `oxdp::libbpf`). A logger that panics there aborts the process.
//!
//! # What it needs
//!
//! Linux 5.10 or newer, little-endian; `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`; a bpf file system (mounted on
//! `/sys/fs/bpf`, or where `LIBXDP_BPFFS` says). A locked-down kernel (lockdown "integrity") refuses extension
//! programs: [`Features::probe`] tells. On kernels before 5.11 `RLIMIT_MEMLOCK` is lifted when it is in the way.
//! Building needs a C compiler, libelf and zlib, for libbpf, and no clang: the BPF programs are prebuilt.

#[cfg(not(all(target_os = "linux", target_endian = "little")))]
compile_error!("oxdp is for little-endian Linux: its BPF programs are prebuilt for that");

// The tests' lab speaks of the crate by its name.
#[cfg(test)]
extern crate self as oxdp;

#[cfg(feature = "capi")]
mod capi;
mod census;
mod dispatcher;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod net;
mod openers;
mod pins;
mod program;
mod recover;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which need more of it")]
mod support;
mod sys;
pub mod xsk;

pub use census::Census;
pub use dispatcher::{
    Builder, Chain, ChainFeature, Component, Downgrade, DowngradeCause, Edit, Features,
    ForeignProgram, MAX_PROGRAMS, Member, Occupant, Outcome, Policy, ProtocolVersion, Single,
    SlotLink, Support, Xdp,
};
pub use error::{Error, ErrorKind, LockHolder, Result};
pub use net::{AttachBy, AttachedBy, BpffsMount, Interface, Link, Mode, Netns, NetnsId, Survey};
pub use pins::{Auto, Legacy, NetnsInode, PinKey, PinLayout, PinPath};
pub use program::{Action, ChainActions, Map, Program, Select, TestRun, TestRunOutcome};
pub use recover::{
    Action as RecoveryAction, Applied, ChainAt, Done, EmptyDispatcher, Inventory, PinnedElsewhere,
    PinnedSlot, PlanLine, RecoveryPlan, Scope, ScopeOwner, SeenChain, SeenDefault, SeenInterface,
    SeenNetns, SeenPins, SeenProgram,
};
pub use sys::object::LibbpfObject;
pub use xsk::{DefaultProgram, ProgramOptions};

/// The example of the front page, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
