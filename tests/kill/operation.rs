//! What is killed: the ways to change a chain, and recovery.

use super::support::traffic::BLOCKED;
use super::support::{counter, filter, program};
use super::{NETNS, OPERATION, Original};
use anyhow::{Context, Result, bail};
use oxdp::{
    AttachBy, DefaultProgram, EmptyDispatcher, Interface, Mode, Program, ProgramOptions, Xdp,
};
use std::process::Command;

pub(super) const FILTER: &str = "udp_filter";
pub(super) const COUNTER: &str = "packet_counter";
const OTHER: &str = "frags_pass_with_a_long_name";
/// That of AF_XDP sockets.
const DEFAULT: &str = "xsk_def_prog";
/// In place of a program whose pins are lost.
pub(super) const LOST: &str = "-";

/// Something that is done to a chain.
pub(super) struct Operation {
    pub(super) name: &'static str,
    by: AttachBy,
    /// Names of the programs in the chain before it, in the order in which they run.
    pub(super) before: &'static [&'static str],
    /// The same, after it.
    pub(super) after: &'static [&'static str],
    /// The same, in the midst of it, if it passes through a chain that a recovery takes back.
    pub(super) passing: &'static [&'static str],
    change: Change,
    /// Whether it is a recovery: it is not for the next recovery to keep what it found.
    pub(super) mends: bool,
}

/// What is done, with the ids of the programs in the chain and one that is in none.
type Change = fn(&Xdp, &Interface, &[u32], &mut Program) -> Result<()>;

pub(super) const OPERATIONS: [Operation; 11] = [
    change("attach to an empty interface", &[], &[FILTER], add),
    change("add to a chain of one", &[FILTER], &[FILTER, COUNTER], add),
    change("replace one of two", &[FILTER, COUNTER], &[FILTER, OTHER], replace),
    change("take one of two out", &[FILTER, COUNTER], &[FILTER], remove),
    change("take everything off", &[FILTER, COUNTER], &[], remove_all),
    on_a_link("attach by a link", &[], &[FILTER], add),
    on_a_link("add to a chain of one on a link", &[FILTER], &[FILTER, COUNTER], add),
    on_a_link("take everything off a link", &[FILTER, COUNTER], &[], remove_all),
    Operation {
        passing: &[DEFAULT],
        ..change("join the default program and leave", &[], &[], sit)
    },
    Operation {
        passing: &[FILTER, DEFAULT],
        ..change("join the default program and leave, in a chain", &[FILTER], &[FILTER], sit)
    },
    Operation { mends: true, ..change("recover", &[FILTER, LOST], &[FILTER], recover_all) },
];

const fn change(
    name: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
    change: Change,
) -> Operation {
    Operation { name, by: AttachBy::Netlink, before, after, passing: &[], change, mends: false }
}

const fn on_a_link(
    name: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
    done: Change,
) -> Operation {
    Operation { by: AttachBy::Link, ..change(name, before, after, done) }
}

fn add(xdp: &Xdp, interface: &Interface, _: &[u32], new: &mut Program) -> Result<()> {
    xdp.attach(interface, new, Mode::Native)?;
    Ok(())
}

fn replace(xdp: &Xdp, interface: &Interface, old: &[u32], new: &mut Program) -> Result<()> {
    xdp.edit(interface).replace(old[1], new).commit()?;
    Ok(())
}

fn remove(xdp: &Xdp, interface: &Interface, old: &[u32], _: &mut Program) -> Result<()> {
    xdp.detach(interface, old[1])?;
    Ok(())
}

fn remove_all(xdp: &Xdp, interface: &Interface, _: &[u32], _: &mut Program) -> Result<()> {
    xdp.detach_all(interface)?;
    Ok(())
}

fn sit(xdp: &Xdp, interface: &Interface, _: &[u32], _: &mut Program) -> Result<()> {
    let options = ProgramOptions { mode: Mode::Native, ..ProgramOptions::default() };
    DefaultProgram::join(xdp, interface, &options)?.leave()?;
    Ok(())
}

fn recover_all(xdp: &Xdp, _: &Interface, _: &[u32], _: &mut Program) -> Result<()> {
    recover(xdp)?;
    Ok(())
}

/// Puts everything right that can be; whether anything had to be.
pub(super) fn recover(xdp: &Xdp) -> Result<bool> {
    let plan = xdp.inventory()?.plan(EmptyDispatcher::Remove);
    for applied in xdp.apply(&plan)? {
        match applied.done {
            oxdp::Done::Changed | oxdp::Done::Nothing => {}
            trouble => bail!("{}: {trouble:?}, of the plan\n{plan}", applied.line),
        }
    }
    Ok(plan.is_change())
}

pub(super) fn load(name: &str) -> Result<Program> {
    match name {
        FILTER => filter(BLOCKED),
        OTHER => program("frags_pass.o"),
        _ => counter(),
    }
}

impl Operation {
    pub(super) fn by_name(name: &str) -> Result<&'static Self> {
        let found = OPERATIONS.iter().find(|operation| operation.name == name);
        found.with_context(|| format!("no operation {name}"))
    }

    /// As the operation is done, and everything around it.
    pub(super) fn xdp(&self) -> Result<Xdp> {
        Ok(Xdp::builder().mount_bpffs(true).attach_by(self.by).build()?)
    }

    /// Whether a filter is in the chain before and after, so that it must hold all the while.
    pub(super) fn is_filtered(&self) -> bool {
        self.before.contains(&FILTER) && self.after.contains(&FILTER)
    }

    /// The program that it adds to the chain; any, if it adds none.
    pub(super) fn new_program(&self) -> Result<Program> {
        let coming = self.after.iter().find(|name| !self.before.contains(name));
        load(coming.unwrap_or(&COUNTER))
    }

    /// With the ids of the programs in the chain.
    pub(super) fn carry_out(
        &self,
        xdp: &Xdp,
        interface: &Interface,
        ids: &[u32],
        new: &mut Program,
    ) -> Result<()> {
        (self.change)(xdp, interface, ids, new)
    }

    /// A process that is about to do it on `uplink` in this namespace.
    pub(super) fn original(&self, netns: &str) -> Result<Original> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "a_process_of_its_own", "--ignored", "--nocapture"]);
        Original::start(command.env(NETNS, netns).env(OPERATION, self.name), None, Some("prepare"))
    }
}
