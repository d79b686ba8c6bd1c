//! A process that is killed in place of one of its system calls: the kernel stops it before each (ptrace(2)).

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
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
pub(crate) struct Call {
    number: u64,
    first_argument: u64,
}

impl Call {
    /// The one that a stopped thread is about to make.
    fn of(thread: Pid) -> Result<Self> {
        let registers = ptrace::getregs(thread)?;
        Ok(Self { number: registers.orig_rax, first_argument: registers.rdi })
    }

    fn is(self, call: Sysno) -> bool {
        self.number == call as u64
    }

    fn listens(self) -> bool {
        self.is(Sysno::read) && self.first_argument == 0
    }

    fn answers(self) -> bool {
        self.is(Sysno::write) && self.first_argument == 1
    }

    /// Whether it may leave something behind in the kernel or in bpffs when the process has ended.
    pub(crate) fn lasts(self) -> bool {
        let kinds = ["mkdir", "rmdir", "unlink", "rename", "symlink", "mount", "send"];
        let commands = ["BPF_OBJ_PIN", "BPF_LINK_CREATE", "BPF_LINK_UPDATE", "BPF_LINK_DETACH"];
        kinds.iter().any(|kind| self.name().starts_with(kind))
            || self.bpf_command().is_some_and(|command| commands.contains(&command))
    }

    /// Whether both are the same call, whatever it is about.
    pub(crate) fn is_like(self, other: Self) -> bool {
        self.number == other.number && self.bpf_command() == other.bpf_command()
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

/// A process that reads commands from its stdin, a line each, and answers with lines on its stdout, of which the last is
/// `ok` or starts with `error`. Killed at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Victim {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    is_reaped: bool,
}

impl Victim {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("a victim")?;
        let commands = process.stdin.take().context("stdin")?;
        let answers = BufReader::new(process.stdout.take().context("stdout")?);
        Ok(Self { process, commands, answers, is_reaped: false })
    }

    /// The answer to a command that must succeed.
    pub(crate) fn tell(&mut self, command: &str) -> Result<Vec<String>> {
        writeln!(self.commands, "{command}")?;
        self.answer().context(command.to_owned())
    }

    /// The lines up to the next `ok`.
    pub(crate) fn answer(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "it has ended after {lines:?}");
            match line.trim_end() {
                "ok" => return Ok(lines),
                line if line.starts_with("error") => bail!("{line}"),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The system calls that a command takes, which must succeed. The last one writes the answer.
    pub(crate) fn calls(mut self, command: &str) -> Result<Vec<Call>> {
        let mut tracer = self.trace(command)?;
        let mut calls = Vec::new();
        while !calls.last().copied().is_some_and(Call::answers) {
            calls.push(tracer.next()?);
        }
        tracer.next()?;
        self.answer().context(command.to_owned())?;
        self.kill(tracer)?;
        Ok(calls)
    }

    /// Gives a command, and kills the process in place of the `nth` call like this one, or of the answer if there is none
    /// that often: not every process reads as many directories.
    pub(crate) fn die(mut self, command: &str, call: Call, nth: usize) -> Result<()> {
        let mut tracer = self.trace(command)?;
        let mut left = nth;
        loop {
            let next = tracer.next()?;
            match left {
                0 if next.is_like(call) => break,
                _ if next.answers() => break,
                _ => left -= usize::from(next.is_like(call)),
            }
        }
        self.kill(tracer)
    }

    /// Waits until the process listens, and gives the command: the next call is its first.
    fn trace(&mut self, command: &str) -> Result<Tracer> {
        let mut tracer = Tracer::seize(&self.process)?;
        while !tracer.next()?.listens() {}
        writeln!(self.commands, "{command}")?;
        Ok(tracer)
    }

    fn kill(&mut self, tracer: Tracer) -> Result<()> {
        tracer.kill()?;
        self.is_reaped = true;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // The number of one that was waited for may be another's.
        if !self.is_reaped {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Follows a process from call to call, and with it the threads that it starts: while one of them runs, the one that
/// started it is held, so that the calls come in the same order each time. Of the thread that started the process, as
/// ptrace(2) wants it.
struct Tracer {
    process: Pid,
    /// The thread that goes on next, and the signal it gets then.
    stopped: Option<(Pid, Option<Signal>)>,
    /// The threads that wait for one that they have started.
    held: Vec<Pid>,
    ended: Vec<Pid>,
}

impl Tracer {
    /// Follows the newest thread: before it there is at most the one that the test harness waits in.
    fn seize(process: &Child) -> Result<Self> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        let mut newest = 0;
        for entry in std::fs::read_dir(format!("/proc/{}/task", process.id()))? {
            let thread = entry?.file_name().into_string().ok().context("a thread")?;
            newest = newest.max(thread.parse()?);
        }
        let newest = Pid::from_raw(newest);
        ptrace::seize(newest, options).context("seizing the victim")?;
        ptrace::interrupt(newest)?;
        let process = Pid::from_raw(process.id().try_into()?);
        Ok(Self { process, stopped: None, held: Vec::new(), ended: Vec::new() })
    }

    /// Goes on to the next system call, before it is made.
    fn next(&mut self) -> Result<Call> {
        loop {
            if let Some((thread, signal)) = self.stopped.take() {
                ptrace::syscall(thread, signal)?;
            }
            match wait()? {
                WaitStatus::PtraceSyscall(thread) => {
                    self.stopped = Some((thread, None));
                    let info = ptrace::syscall_info(thread)?;
                    if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                        return Call::of(thread);
                    }
                }
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_CLONE) => {
                    self.hold(thread)?;
                }
                WaitStatus::PtraceEvent(thread, ..) => self.stopped = Some((thread, None)),
                WaitStatus::Stopped(thread, signal) => self.stopped = Some((thread, Some(signal))),
                WaitStatus::Exited(thread, _) if thread != self.process => self.end(thread),
                status => bail!("the victim has ended by itself: {status:?}"),
            }
        }
    }

    /// Holds a thread that has started another one, unless that has ended already.
    fn hold(&mut self, thread: Pid) -> Result<()> {
        let started = Pid::from_raw(ptrace::getevent(thread)?.try_into()?);
        if self.ended.contains(&started) {
            self.stopped = Some((thread, None));
        } else {
            self.held.push(thread);
        }
        Ok(())
    }

    /// Lets the thread go on that waited for this one.
    fn end(&mut self, thread: Pid) {
        self.ended.push(thread);
        self.stopped = self.held.pop().map(|held| (held, None));
    }

    /// Kills the process, and waits until nothing of it is left. The call before which it stands is not made.
    fn kill(self) -> Result<()> {
        kill(self.process, Signal::SIGKILL)?;
        loop {
            match wait()? {
                WaitStatus::Signaled(thread, ..) if thread == self.process => return Ok(()),
                WaitStatus::Exited(thread, _) if thread == self.process => {
                    bail!("the victim ended before it was killed")
                }
                _ => {}
            }
        }
    }
}

/// For the children of this thread alone: those of other threads are theirs to wait for.
fn wait() -> Result<WaitStatus> {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitpid(None, Some(flags)) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}
