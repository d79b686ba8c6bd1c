//! A thread that is stopped before a call, and made to do another one instead (ptrace(2)).

use anyhow::{Context, Result, bail, ensure};
use libc::user_regs_struct as Registers;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt;
use syscalls::Sysno;

/// So far below the stack a thread has nothing of its own, and the stack has been there already.
const BELOW_STACK: u64 = 2048;
/// Length of the instruction `syscall`.
const SYSCALL_LENGTH: u64 = 2;

pub(super) struct Puppet {
    thread: Pid,
    registers: Registers,
}

impl Puppet {
    pub(super) fn new(thread: Pid) -> Result<Self> {
        Ok(Self { thread, registers: ptrace::getregs(thread)? })
    }

    /// Where it has room for so many bytes.
    pub(super) fn room(&self, length: usize) -> Result<u64> {
        ensure!((length as u64) < BELOW_STACK, "{length} bytes");
        Ok(self.registers.rsp - BELOW_STACK)
    }

    pub(super) fn write(&self, bytes: &[u8], address: u64) -> Result<()> {
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.thread))?;
        Ok(memory.write_all_at(bytes, address)?)
    }

    /// What it is about to write.
    pub(super) fn written(&self) -> Result<String> {
        let mut bytes = vec![0; self.registers.rdx.try_into()?];
        let memory = File::open(format!("/proc/{}/mem", self.thread))?;
        memory.read_exact_at(&mut bytes, self.registers.rsi)?;
        Ok(String::from_utf8(bytes)?)
    }

    /// Does a call that must succeed. After it, the thread goes on with the one that it was stopped before.
    pub(super) fn call(&self, call: Sysno, arguments: [u64; 3]) -> Result<()> {
        self.begin(call, arguments)?;
        self.end()?;
        ensure!(ptrace::getregs(self.thread)?.rax == 0, "{call} has failed");
        self.go_back(self.thread)
    }

    /// Makes a copy of the process that goes on with the same call, as does the thread, which is stopped before it again.
    /// The copy is a child of the same parent's.
    pub(super) fn fork(&self) -> Result<Pid> {
        let flags = libc::CLONE_PARENT | Signal::SIGCHLD as i32;
        self.begin(Sysno::clone, [flags.try_into()?, 0, 0])?;
        match wait_for(self.thread)? {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_FORK) => {}
            status => bail!("no copy: {status:?}"),
        }
        let copy = Pid::from_raw(ptrace::getevent(self.thread)?.try_into()?);
        match wait_for(copy)? {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => self.go_back(copy)?,
            status => bail!("a copy that does not start: {status:?}"),
        }
        ptrace::syscall(self.thread, None)?;
        self.end()?;
        self.go_back(self.thread)?;
        ptrace::syscall(self.thread, None)?;
        self.end().context("back before the call")?;
        Ok(copy)
    }

    /// Goes on into another call than the thread has been stopped before.
    fn begin(&self, call: Sysno, [rdi, rsi, rdx]: [u64; 3]) -> Result<()> {
        let (orig_rax, r10, r8) = (call as u64, 0, 0);
        let registers = Registers { orig_rax, rdi, rsi, rdx, r10, r8, ..self.registers };
        ptrace::setregs(self.thread, registers)?;
        Ok(ptrace::syscall(self.thread, None)?)
    }

    /// The next stop must be one at a call.
    fn end(&self) -> Result<()> {
        match wait_for(self.thread)? {
            WaitStatus::PtraceSyscall(_) => Ok(()),
            status => bail!("it does not come to a call: {status:?}"),
        }
    }

    /// Has the thread, or its copy, do the call that was held up.
    fn go_back(&self, thread: Pid) -> Result<()> {
        let rip = self.registers.rip - SYSCALL_LENGTH;
        let registers = Registers { rip, rax: self.registers.orig_rax, ..self.registers };
        Ok(ptrace::setregs(thread, registers)?)
    }
}

fn wait_for(thread: Pid) -> Result<WaitStatus> {
    Ok(waitpid(thread, Some(WaitPidFlag::__WALL))?)
}
