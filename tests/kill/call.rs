//! System calls, and at which of them to kill.

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::fmt;
use syscalls::Sysno;

/// The commands of bpf(2) by their numbers; include/uapi/linux/bpf.h.
const BPF_COMMANDS: [&str; 36] = [
    "BPF_MAP_CREATE",
    "BPF_MAP_LOOKUP_ELEM",
    "BPF_MAP_UPDATE_ELEM",
    "BPF_MAP_DELETE_ELEM",
    "BPF_MAP_GET_NEXT_KEY",
    "BPF_PROG_LOAD",
    "BPF_OBJ_PIN",
    "BPF_OBJ_GET",
    "BPF_PROG_ATTACH",
    "BPF_PROG_DETACH",
    "BPF_PROG_TEST_RUN",
    "BPF_PROG_GET_NEXT_ID",
    "BPF_MAP_GET_NEXT_ID",
    "BPF_PROG_GET_FD_BY_ID",
    "BPF_MAP_GET_FD_BY_ID",
    "BPF_OBJ_GET_INFO_BY_FD",
    "BPF_PROG_QUERY",
    "BPF_RAW_TRACEPOINT_OPEN",
    "BPF_BTF_LOAD",
    "BPF_BTF_GET_FD_BY_ID",
    "BPF_TASK_FD_QUERY",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
    "BPF_MAP_FREEZE",
    "BPF_BTF_GET_NEXT_ID",
    "BPF_MAP_LOOKUP_BATCH",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
    "BPF_MAP_UPDATE_BATCH",
    "BPF_MAP_DELETE_BATCH",
    "BPF_LINK_CREATE",
    "BPF_LINK_UPDATE",
    "BPF_LINK_GET_FD_BY_ID",
    "BPF_LINK_GET_NEXT_ID",
    "BPF_ENABLE_STATS",
    "BPF_ITER_CREATE",
    "BPF_LINK_DETACH",
    "BPF_PROG_BIND_MAP",
];

/// Kills at every so many of the calls before which nothing has changed.
const STRIDE: &str = "OXDP_KILL_STRIDE";

/// A system call, as it is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u64,
    /// An `int`, of all calls that are looked at closely.
    pub(super) first_argument: u64,
}

impl Call {
    /// The one that a stopped thread is about to make.
    pub(super) fn of(thread: Pid) -> Result<Self> {
        let registers = ptrace::getregs(thread)?;
        let first_argument = registers.rdi & u64::from(u32::MAX);
        Ok(Self { number: registers.orig_rax, first_argument })
    }

    pub(super) fn is(self, call: Sysno) -> bool {
        self.number == call as u64
    }

    /// Whether it waits for a command.
    pub(super) fn listens(self) -> bool {
        self.is(Sysno::read) && self.first_argument == 0
    }

    /// Whether it writes an answer.
    pub(super) fn answers(self) -> bool {
        self.is(Sysno::write) && self.first_argument == 1
    }

    /// Whether it may leave something behind in the kernel or in bpffs when the process has ended.
    pub(super) fn lasts(self) -> bool {
        let kinds = ["mkdir", "rmdir", "unlink", "rename", "symlink", "mount", "send"];
        let commands = ["BPF_OBJ_PIN", "BPF_LINK_CREATE", "BPF_LINK_UPDATE", "BPF_LINK_DETACH"];
        kinds.iter().any(|kind| self.name().starts_with(kind))
            || self.bpf_command().is_some_and(|command| commands.contains(&command))
    }

    /// Whether both are the same call, of bpf(2) the same command, whatever it is about.
    pub(super) fn is_like(self, other: Self) -> bool {
        let is_bpf = self.is(Sysno::bpf);
        self.number == other.number && (!is_bpf || self.first_argument == other.first_argument)
    }

    fn name(self) -> &'static str {
        let number = usize::try_from(self.number).ok();
        number.and_then(Sysno::new).map_or("unknown", |call| call.name())
    }

    fn bpf_command(self) -> Option<&'static str> {
        let number = usize::try_from(self.first_argument).ok().filter(|_| self.is(Sysno::bpf))?;
        BPF_COMMANDS.get(number).copied()
    }
}

/// As `unlinkat` or `bpf BPF_OBJ_PIN`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.bpf_command().map_or(Ok(()), |command| write!(f, " {command}"))
    }
}

/// At which calls to kill: at the first one after each that may have left something behind, and at every so many.
pub(super) fn points(calls: &[Call]) -> Result<Vec<usize>> {
    let stride: usize = std::env::var(STRIDE).map_or(Ok(1), |text| text.parse()).context(STRIDE)?;
    ensure!(stride > 0, "{STRIDE} is 0");
    let lasted = |index: usize| index.checked_sub(1).is_some_and(|before| calls[before].lasts());
    Ok((0..calls.len()).filter(|index| index % stride == 0 || lasted(*index)).collect())
}
