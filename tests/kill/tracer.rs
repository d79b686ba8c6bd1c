//! What stops a process before its system calls (ptrace(2)).

use super::call::Call;
use super::puppet::Puppet;
use super::sieve;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Follows a process from call to call, and with it the threads that it starts: while one of them runs, the one that
/// started it is held, so that the calls come in the same order each time. Of the thread that started the process, as
/// ptrace(2) wants it.
pub(super) struct Tracer {
    process: Pid,
    /// How a thread goes on to its next stop.
    resume: fn(Pid, Option<Signal>) -> nix::Result<()>,
    /// The thread that goes on next, and the signal it gets then.
    stopped: Option<(Pid, Option<Signal>)>,
    /// The threads that wait for one that they have started.
    held: Vec<Pid>,
    ended: Vec<Pid>,
}

impl Tracer {
    /// Follows the newest thread: before it there is at most the one that the test harness waits in.
    pub(super) fn seize(process: u32) -> Result<Self> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_EXITKILL;
        let mut newest = 0;
        for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = entry?.file_name().into_string().ok().context("a thread")?;
            newest = newest.max(thread.parse()?);
        }
        let newest = Pid::from_raw(newest);
        ptrace::seize(newest, options).context("seizing the victim")?;
        ptrace::interrupt(newest)?;
        Ok(Self::new(Pid::from_raw(process.try_into()?), None))
    }

    fn new(process: Pid, stopped: Option<(Pid, Option<Signal>)>) -> Self {
        let (held, ended) = (Vec::new(), Vec::new());
        Self { process, resume: ptrace::syscall, stopped, held, ended }
    }

    /// Follows a copy of the process, which has no thread but the one that has been stopped before a call: that call
    /// is its first.
    pub(super) fn copy(&self) -> Result<Self> {
        let (thread, _) = self.stopped.context("no thread is stopped")?;
        let copy = Puppet::new(thread)?.fork().context("a copy of the victim")?;
        Ok(Self::new(copy, Some((copy, None))))
    }

    /// From now on stops only before calls like this one and before answers: a stop takes as long as many calls. To be
    /// used where a thread has been stopped before a call.
    pub(super) fn stop_only_before(&mut self, call: Call) -> Result<()> {
        let (thread, _) = self.stopped.context("no thread is stopped")?;
        sieve::install(thread, call).context("a filter for the victim's calls")?;
        self.resume = ptrace::cont;
        Ok(())
    }

    /// Goes on to the next stop before a system call.
    pub(super) fn next(&mut self) -> Result<Call> {
        loop {
            if let Some((thread, signal)) = self.stopped.take() {
                (self.resume)(thread, signal)?;
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
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_SECCOMP) => {
                    self.stopped = Some((thread, None));
                    return Call::of(thread);
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

    /// What the thread that has been stopped before a write is about to write.
    pub(super) fn written(&self) -> Result<String> {
        let (thread, _) = self.stopped.context("no thread is stopped")?;
        Puppet::new(thread)?.written()
    }

    /// Kills the process, and waits until nothing of it is left. The call before which it stands is not made.
    pub(super) fn kill(&self) -> Result<()> {
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
