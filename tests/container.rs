//! The end of a container, played for real, and devices that move between namespaces. Needs freplace and a network card
//! that outlives its namespace, so `make test` runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oxdp::{
    Action, AttachBy, Done, EmptyDispatcher, Interface, Mode, Netns, Occupant, RecoveryAction,
    RecoveryPlan, TestRun, Xdp,
};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use support::lab::{Namespace, ip, soon};
use support::{BPFFS, Baseline, chain, counter, filter, id, kernel, names, udp, xdp};

const BLOCKED: u16 = 7777;
const OPEN: u16 = 8888;

/// What tells the init of a container how to attach, and in which mode.
const ATTACH_BY: &str = "OXDP_TEST_ATTACH_BY";
const MODE: &str = "OXDP_TEST_MODE";

/// The VM's network card.
const CARD: &str = "eth0";

/// The VM's network card: it has a driver of its own, so no namespace can take it along when it ends.
fn card() -> Result<Interface> {
    let loaded = Command::new("modprobe").arg("virtio_net").status()?;
    ensure!(loaded.success(), "modprobe virtio_net: {loaded}");
    ensure!(soon(|| Ok(here(CARD).is_ok()))?, "no network card");
    here(CARD)
}

/// An interface in the namespace of the test.
fn here(name: &str) -> Result<Interface> {
    Ok(Interface::by_name(&Netns::current()?, name)?)
}

/// How XDP can run on the card: before 5.13 its driver wants more queues than it has.
fn modes() -> Result<Vec<Mode>> {
    Ok(if kernel()? >= (5, 13) { vec![Mode::Native, Mode::Skb] } else { vec![Mode::Skb] })
}

fn plan(xdp: &Xdp) -> Result<RecoveryPlan> {
    Ok(xdp.inventory()?.plan(EmptyDispatcher::Remove))
}

/// Carries out a plan whose changes must all succeed, and tells them. After it there is nothing left to do.
fn recover(xdp: &Xdp) -> Result<Vec<RecoveryAction>> {
    let plan = plan(xdp)?;
    let mut changes = Vec::new();
    for applied in xdp.apply(&plan)? {
        match applied.done {
            Done::Nothing => {}
            Done::Changed => changes.push(applied.line.action),
            trouble => bail!("{}: {trouble:?}", applied.line),
        }
    }
    let again = self::plan(xdp)?;
    ensure!(!again.is_change(), "still to be done:\n{again}");
    Ok(changes)
}

/// Whether what runs on an interface is a filter, by its verdicts.
fn filters(xdp: &Xdp, interface: &Interface) -> Result<bool> {
    let verdict = |port| {
        Ok::<_, anyhow::Error>(xdp.test_run_attached(interface, &TestRun::new(&udp(port)))?.action)
    };
    Ok((verdict(BLOCKED)?, verdict(OPEN)?) == (Action::Drop, Action::Pass))
}

/// A process with mount, PID and network namespaces of its own, and a bpffs.
struct Container {
    /// unshare(1), which waits for it.
    outer: Child,
    /// Process 1 of the container, as the host numbers it.
    init: Pid,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Container {
    fn start(by: AttachBy, mode: Mode) -> Result<Self> {
        let become_init = "exec 2>&1; mount -t bpf bpf /sys/fs/bpf && exec \"$@\"";
        let mut outer = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--mount-proc"])
            .args(["sh", "-c", become_init, "sh"])
            .arg(std::env::current_exe()?)
            .args(["--exact", "the_init_of_a_container", "--ignored", "--nocapture"])
            .env(ATTACH_BY, format!("{by:?}"))
            .env(MODE, format!("{mode:?}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // unshare(1) of util-linux 2.38 complains about itself when the container is killed.
            .stderr(Stdio::null())
            .spawn()
            .context("running unshare (package util-linux)")?;
        let commands = outer.stdin.take().context("stdin")?;
        let mut answers = BufReader::new(outer.stdout.take().context("stdout")?);
        answer(&mut answers)?;
        let id = outer.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let init = Pid::from_raw(children.trim().parse().context(children)?);
        Ok(Self { outer, init, commands, answers })
    }

    /// Gives it a device, to which it attaches a filter.
    fn take(&mut self, device: &str) -> Result<()> {
        ip(&format!("link set {device} netns {}", self.init))?;
        writeln!(self.commands, "attach to {device}")?;
        answer(&mut self.answers)
    }

    /// The namespace that it lives in.
    fn netns(&self) -> Result<Netns> {
        Ok(Netns::from_pid(self.init.as_raw().try_into()?)?)
    }

    /// Ends it as a container ends that is out of time.
    fn end(mut self) -> Result<()> {
        kill(self.init, Signal::SIGKILL)?;
        self.outer.wait()?;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The test has had its say; unshare(1) ends after the container.
        if self.outer.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill(self.init, Signal::SIGKILL);
            let _ = self.outer.wait();
        }
    }
}

/// Waits until the container has done what it was told.
fn answer(answers: &mut impl BufRead) -> Result<()> {
    let mut said = String::new();
    while !said.ends_with("\nok\n") {
        ensure!(answers.read_line(&mut said)? > 0, "it has ended: {said}");
    }
    Ok(())
}

/// Process 1 of a container; by itself, one that finds it has nothing to do.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_init_of_a_container() -> Result<()> {
    let Ok(by) = std::env::var(ATTACH_BY) else {
        return Ok(());
    };
    ensure!(std::process::id() == 1, "not in a PID namespace of its own");
    let by = if by == "Link" { AttachBy::Link } else { AttachBy::Netlink };
    let mode = if std::env::var(MODE)? == "Native" { Mode::Native } else { Mode::Skb };
    println!("\nok");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let device = line.trim().strip_prefix("attach to ").context("nothing to do")?;
    ip(&format!("link set {device} up"))?;
    let xdp = Xdp::builder().attach_by(by).build()?;
    xdp.attach(&here(device)?, &mut filter(BLOCKED)?, mode)?;
    println!("\nok");
    std::io::stdin().read_line(&mut line)?;
    bail!("nobody has killed it")
}

/// A container takes the card, attaches to it, and is killed: the card comes back.
fn end_of_a_container(by: AttachBy, after: impl Fn(&Xdp, &Interface) -> Result<()>) -> Result<()> {
    drop(card()?);
    for mode in modes()? {
        // So that the host has nothing of the protocol's own yet.
        let _ = std::fs::remove_dir(Path::new(BPFFS).join("xdp"));
        let baseline = Baseline::take()?;
        {
            let xdp = xdp()?;
            let mut container = Container::start(by, mode)?;
            container.take(CARD)?;
            let inside = Interface::by_name(&container.netns()?, CARD)?;
            // While it lives it is its own business, though its pins are not to be seen from here.
            ensure!(recover(&xdp)?.is_empty());
            ensure!(filters(&xdp, &inside)?, "{mode}");
            drop(inside);
            container.end()?;
            ensure!(soon(|| Ok(here(CARD).is_ok()))?, "the card does not come back");
            after(&xdp, &here(CARD)?).context(mode)?;
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

/// Attached by a link, which is pinned in the container's bpffs alone, the card is clean.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_device_on_a_link_comes_back_clean_from_a_container() -> Result<()> {
    end_of_a_container(AttachBy::Link, |xdp, card| {
        ensure!(soon(|| Ok(xdp.inspect(card)? == Occupant::Empty))?, "{:?}", xdp.inspect(card)?);
        ensure!(recover(xdp)?.is_empty());
        Ok(())
    })
}

/// Attached the protocol's way, it comes back with a dispatcher whose programs have died.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_device_that_comes_back_with_a_dead_chain_is_recovered() -> Result<()> {
    end_of_a_container(AttachBy::Netlink, |xdp, card| {
        let dead = chain(xdp, card)?;
        ensure!(!dead.is_whole() && dead.pins.is_none() && names(&dead) == ["-"], "{dead:?}");
        // Its links are freed some time after their pins.
        ensure!(soon(|| Ok(!filters(xdp, card)?))?, "its filter lives");
        let done = recover(xdp)?;
        let is_it = |action: &RecoveryAction| {
            matches!(action, RecoveryAction::Detach { chain } if chain.dispatcher == dead.dispatcher
                && chain.interface == CARD)
        };
        ensure!(done.len() == 1 && done.iter().all(is_it), "{done:?}");
        ensure!(xdp.inspect(card)? == Occupant::Empty);
        xdp.attach(card, &mut counter()?, dead.mode)?;
        xdp.detach_all(card)?;
        Ok(())
    })
}

/// A namespace by the way `ip` calls it, and a name that a device has there.
struct Place<'a> {
    ip: String,
    netns: &'a Netns,
    device: &'static str,
}

impl Place<'_> {
    fn interface(&self) -> Result<Interface> {
        Ok(Interface::by_name(self.netns, self.device)?)
    }

    /// Takes a device away to another place, where it has another name; and another number, since there its own is taken.
    fn send_to(&self, other: &Self) -> Result<()> {
        let index = self.interface()?.index();
        let is_taken = Interface::by_index(other.netns, index).is_ok();
        if !is_taken {
            ip(&format!("{} link add blocker index {index} type dummy", other.ip))?;
        }
        let target = other.ip.strip_prefix("-n ").unwrap_or("1");
        ip(&format!("{} link set {} netns {target} name {}", self.ip, self.device, other.device))?;
        if !is_taken {
            ip(&format!("{} link del blocker", other.ip))?;
        }
        ensure!(other.interface()?.index() != index, "it has the same ifindex");
        Ok(())
    }

    /// Where the layout wants the pins of a dispatcher on this device.
    fn home(&self, dispatcher: u32) -> Result<PathBuf> {
        let root = Path::new(BPFFS).join("xdp");
        let scope = format!("netns-{}", self.netns.inode());
        let scope = if self.ip.is_empty() { root } else { root.join(scope) };
        Ok(scope.join(format!("dispatch-{}-{dispatcher}", self.interface()?.index())))
    }
}

/// A device with a filter moves to another namespace and back; each time it is found, stays as it is, and is made at home
/// there: by recovery, or by the next change.
fn moves_and_stays_managed(
    from: &Place<'_>,
    to: &Place<'_>,
    by: AttachBy,
    mode: Mode,
) -> Result<()> {
    let xdp = Xdp::builder().mount_bpffs(true).attach_by(by).build()?;
    let mut filter = filter(BLOCKED)?;
    xdp.attach(&from.interface()?, &mut filter, mode)?;
    let first = chain(&xdp, &from.interface()?)?;
    ensure!(first.pins == Some(from.home(first.dispatcher)?), "{first:?}");

    from.send_to(to)?;
    let moved = to.interface()?;
    ensure!(chain(&xdp, &moved)? == first, "{:?}, not {first:?}", chain(&xdp, &moved)?);
    ensure!(filters(&xdp, &moved)?);
    let done = recover(&xdp)?;
    let home = to.home(first.dispatcher)?;
    let is_it = |action: &RecoveryAction| {
        matches!(action, RecoveryAction::Rehome { chain, from, to } if *to == home
            && Some(from) == first.pins.as_ref() && chain.ifindex == moved.index())
    };
    ensure!(done.iter().any(is_it), "{done:?}");
    let recovered = chain(&xdp, &moved)?;
    ensure!(recovered.pins == Some(home) && recovered.is_whole(), "{recovered:?}");
    ensure!(recovered.dispatcher == first.dispatcher && filters(&xdp, &moved)?);

    to.send_to(from)?;
    let back = from.interface()?;
    let mut counter = counter()?;
    xdp.attach(&back, &mut counter, mode)?;
    let second = chain(&xdp, &back)?;
    ensure!(names(&second) == ["udp_filter", "packet_counter"] && second.is_whole(), "{second:?}");
    ensure!(second.pins == Some(from.home(second.dispatcher)?), "{second:?}");
    ensure!(filters(&xdp, &back)?);
    ensure!(recover(&xdp)?.is_empty(), "the next change has left something");

    from.send_to(to)?;
    let moved = to.interface()?;
    xdp.detach(&moved, id(&counter))?;
    ensure!(names(&chain(&xdp, &moved)?) == ["udp_filter"] && filters(&xdp, &moved)?);
    xdp.detach_all(&moved)?;
    to.send_to(from)
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_veth_that_moves_stays_managed() -> Result<()> {
    for by in [AttachBy::Netlink, AttachBy::Link] {
        let baseline = Baseline::take()?;
        {
            let (one, two) = (Namespace::new("one")?, Namespace::new("two")?);
            ip(&format!("-n {} link add mover type veth peer name far", one.name))?;
            let from = Place { ip: format!("-n {}", one.name), netns: &one.netns, device: "mover" };
            let to = Place { ip: format!("-n {}", two.name), netns: &two.netns, device: "moved" };
            moves_and_stays_managed(&from, &to, by, Mode::Native)?;
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_network_card_that_moves_stays_managed() -> Result<()> {
    drop(card()?);
    for mode in modes()? {
        for by in [AttachBy::Netlink, AttachBy::Link] {
            let baseline = Baseline::take()?;
            {
                let (here, there) = (Netns::current()?, Namespace::new("there")?);
                let from = Place { ip: String::new(), netns: &here, device: CARD };
                let ip = format!("-n {}", there.name);
                let to = Place { ip, netns: &there.netns, device: "moved" };
                moves_and_stays_managed(&from, &to, by, mode)?;
                from.send_to(&to)?;
                moves_and_stays_managed(&to, &from, by, mode)?;
                to.send_to(&from)?;
            }
            baseline.assert_restored()?;
        }
    }
    Ok(())
}
