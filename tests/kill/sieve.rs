//! Has a thread filter its own system calls (seccomp(2)), so that most of them go on without a stop.

use super::call::Call;
use super::puppet::Puppet;
use anyhow::Result;
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use syscalls::Sysno;

/// Size of `struct sock_fprog`.
const HEAD: usize = size_of::<libc::sock_fprog>();

/// From now on, the thread, which is stopped before a call, stops only before those like this one, before
/// it listens and before it answers. Threads that it starts inherit the filter.
pub(super) fn install(thread: Pid, call: Call) -> Result<()> {
    let (puppet, instructions) = (Puppet::new(thread)?, instructions(&program(call)?));
    let address = puppet.room(HEAD + instructions.len())?;
    let length = instructions.len() / size_of::<libc::sock_filter>();
    puppet.write(&head(length.try_into()?, address + HEAD as u64), address)?;
    puppet.write(&instructions, address + HEAD as u64)?;
    puppet.call(Sysno::seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, address])
}

fn program(call: Call) -> Result<BpfProgram> {
    let mut rules = BTreeMap::new();
    rules.insert(Sysno::read as i64, vec![first_argument_is(0)?]);
    rules.insert(Sysno::write as i64, vec![first_argument_is(1)?]);
    let is_bpf = call.is(Sysno::bpf);
    // No rule is one that always matches, and if the call is a read or a write, it takes the place of the other one.
    let like = if is_bpf { vec![first_argument_is(call.first_argument)?] } else { Vec::new() };
    rules.insert(call.number.try_into()?, like);
    let stop = SeccompAction::Trace(0);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, stop, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn first_argument_is(value: u64) -> Result<SeccompRule> {
    let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    Ok(SeccompRule::new(vec![SeccompCondition::new(0, length, equal, value)?])?)
}

/// `struct sock_fprog`: how many instructions there are, and where.
fn head(length: u16, address: u64) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[8..].copy_from_slice(&address.to_ne_bytes());
    bytes
}

/// Each a `struct sock_filter`.
fn instructions(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::new();
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}
