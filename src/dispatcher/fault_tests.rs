//! Failures and races at chosen calls, on a real kernel: everything is rolled back, or done.

use super::{Outcome, Xdp};
use crate::support::lab::{Pair, ip, received, soon};
use crate::support::{Baseline, chain, counter, filter, names, pins, remove_pins};
use crate::sys::Kernel;
use crate::sys::fault::Plan;
use crate::{AttachBy, ErrorKind, Interface, Legacy, Mode, NetnsInode, Occupant, Policy, Program};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::sync::Arc;

/// An errno that no call of ours gives a meaning.
const ERRNO: i32 = libc::EIO;
const BLOCKED: u16 = 7777;
/// How often each race is forced.
const RACES: usize = 25;

fn with(kernel: Kernel) -> Result<Xdp> {
    held_by(kernel, AttachBy::Netlink)
}

fn held_by(kernel: Kernel, by: AttachBy) -> Result<Xdp> {
    let builder = Xdp::builder().mount_bpffs(true).layout(NetnsInode);
    Ok(builder.attach_by(by).kernel(kernel).build()?)
}

/// A change, on a chain that starts with `programs` (a filter, then counters) and ends with `after`.
struct Case {
    name: &'static str,
    by: AttachBy,
    programs: usize,
    after: usize,
    change: Change,
    /// The call after whose last occurrence a failure no longer undoes the change.
    point: &'static str,
}

type Change = fn(&Xdp, &Interface, &mut [Program]) -> crate::Result<Outcome>;

const CASES: [Case; 11] = [
    case("attach to an empty interface", AttachBy::Netlink, 0, 1, add, SWAP),
    case("add to a chain of two", AttachBy::Netlink, 2, 3, add, SWAP),
    case("replace one of two", AttachBy::Netlink, 2, 2, replace, SWAP),
    case("change a priority", AttachBy::Netlink, 2, 2, set_priority, SWAP),
    case("take one of two out", AttachBy::Netlink, 2, 1, remove, SWAP),
    case("take everything off", AttachBy::Netlink, 2, 0, remove_all, SWAP),
    case("attach by a link", AttachBy::Link, 0, 1, add, "BPF_OBJ_PIN"),
    case("add to a chain of two on a link", AttachBy::Link, 2, 3, add, "BPF_LINK_UPDATE"),
    case("take everything off a link", AttachBy::Link, 2, 0, remove_all, "BPF_LINK_DETACH"),
    case("attach one alone", AttachBy::Netlink, 0, 1, add_alone, SWAP),
    case("attach one alone by a link", AttachBy::Link, 0, 1, add_alone, "BPF_OBJ_GET_INFO_BY_FD"),
];

const SWAP: &str = "RTM_SETLINK";

const fn case(
    name: &'static str,
    by: AttachBy,
    programs: usize,
    after: usize,
    change: Change,
    point: &'static str,
) -> Case {
    Case { name, by, programs, after, change, point }
}

fn add(xdp: &Xdp, interface: &Interface, _: &mut [Program]) -> crate::Result<Outcome> {
    xdp.attach(interface, &mut counter().unwrap(), Mode::Native)
}

fn replace(xdp: &Xdp, interface: &Interface, old: &mut [Program]) -> crate::Result<Outcome> {
    xdp.edit(interface).replace(old[1].id().unwrap(), &mut counter().unwrap()).commit()
}

fn set_priority(xdp: &Xdp, interface: &Interface, of: &mut [Program]) -> crate::Result<Outcome> {
    xdp.edit(interface).set_priority(of[1].id().unwrap(), 3).commit()
}

fn remove(xdp: &Xdp, interface: &Interface, from: &mut [Program]) -> crate::Result<Outcome> {
    xdp.detach(interface, from[1].id().unwrap())
}

fn remove_all(xdp: &Xdp, interface: &Interface, _: &mut [Program]) -> crate::Result<Outcome> {
    xdp.detach_all(interface)
}

fn add_alone(xdp: &Xdp, interface: &Interface, _: &mut [Program]) -> crate::Result<Outcome> {
    let mut program = counter().unwrap();
    let edit = xdp.edit(interface).insert(&mut program).policy(Policy::Single);
    edit.mode(Mode::Native).commit()
}

/// Everything that a failure must not change.
fn state(xdp: &Xdp, interface: &Interface) -> Result<(Occupant, Vec<PathBuf>)> {
    Ok((xdp.inspect(interface)?, pins()?))
}

/// Does the change with `plan` on a chain made for it. Afterwards nothing may be left.
fn run(case: &Case, pair: &Pair, plan: Arc<Plan>) -> Result<bool> {
    let baseline = Baseline::take()?;
    let done = {
        let of = |kernel| held_by(kernel, case.by);
        let (xdp, interface) = (of(Kernel::default())?, pair.interface()?);
        let mut programs = Vec::new();
        for number in 0..case.programs {
            programs.push(if number == 0 { filter(BLOCKED)? } else { counter()? });
            xdp.attach(&interface, &mut programs[number], Mode::Native)?;
        }
        let before = state(&xdp, &interface)?;
        let result = (case.change)(&of(Kernel::with_fault(plan))?, &interface, &mut programs);
        let after = state(&xdp, &interface)?;
        if let Err(error) = &result {
            ensure!(error.errno() == Some(ERRNO), "another error: {error}");
            ensure!(after == before, "changed by a failure: {after:?}, before {before:?}");
        } else {
            let size = match &after.0 {
                Occupant::Empty => 0,
                Occupant::Chain(chain) => chain.members.len(),
                Occupant::Foreign(_) => 1,
            };
            ensure!(size == case.after && after.0 != before.0, "half done: {after:?}");
            ensure!(after.0.chain().is_none_or(super::Chain::is_whole), "not whole: {after:?}");
        }
        if !programs.is_empty() && after.0 != Occupant::Empty {
            ensure!(blocked(pair)?, "the filter let a packet through");
        }
        match after.0 {
            Occupant::Empty => {}
            Occupant::Chain(_) => drop(xdp.detach_all(&interface)?),
            Occupant::Foreign(program) => drop(xdp.detach(&interface, program.id)?),
        }
        result.is_ok()
    };
    baseline.assert_restored()?;
    Ok(done)
}

fn blocked(pair: &Pair) -> Result<bool> {
    let (socket, last) = (pair.listen(BLOCKED)?, pair.listen(9)?);
    pair.send(BLOCKED, 3)?;
    pair.send(9, 1)?;
    ensure!(soon(|| Ok(received(&last)? > 0))?, "the last packet never came");
    Ok(received(&socket)? == 0)
}

/// Makes every call of every change fail in turn, before it reaches the kernel; and the swap's answer get lost
/// after it did.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_failure_at_any_call_leaves_the_old_chain_or_the_new_one() -> Result<()> {
    let pair = Pair::new("fault", 10)?;
    for case in &CASES {
        let plan = Arc::new(Plan::record());
        ensure!(run(case, &pair, Arc::clone(&plan))?, "{} fails without a fault", case.name);
        let calls = plan.seen();
        let mut done = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            let outcome = run(case, &pair, Arc::new(Plan::fail(index..index + 1, ERRNO)));
            let outcome = outcome.map_err(|error| {
                error.context(format!("{}: call {index}, {call}, of {calls:?}", case.name))
            })?;
            if outcome {
                done.push(*call);
            }
        }
        let swap = calls.iter().rposition(|call| *call == case.point);
        let after_swap = swap.map_or(&[][..], |swap| &calls[swap + 1..]);
        ensure!(
            swap.is_some() && done == after_swap,
            "{}: done in spite of {done:?} of {calls:?}",
            case.name
        );
        println!(
            "{}: {} calls, {} rolled back, {} done in spite of it ({})",
            case.name,
            calls.len(),
            calls.len() - done.len(),
            done.len(),
            done.join(" ")
        );
    }
    Ok(())
}

/// Ends a process at every single call of an attach: the old chain runs, whole, or the new one, and the next change
/// works. What the dead process left in bpffs is for recovery to clean.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_process_that_dies_at_any_call_leaves_the_old_chain_or_the_new_one() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("death", 10)?;
        let interface = pair.interface()?;
        for programs in [0, 1] {
            let mut outcomes = [0, 0];
            for call in 0.. {
                let (died, after) = attach_and_die(&pair, &interface, programs, call)?;
                if !died {
                    ensure!(call > 30 && after == programs + 1, "{call} calls, {after} programs");
                    break;
                }
                ensure!(after == programs || after == programs + 1, "{after} programs");
                outcomes[after - programs] += 1;
            }
            println!(
                "attach to a chain of {programs}: died {outcomes:?} times before and after the swap"
            );
            ensure!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
        }
    }
    baseline.assert_restored()
}

/// Whether the process died, and how many programs are in the chain after it.
fn attach_and_die(
    pair: &Pair,
    interface: &Interface,
    programs: usize,
    call: usize,
) -> Result<(bool, usize)> {
    let xdp = with(Kernel::default())?;
    let mut filter = filter(BLOCKED)?;
    if programs > 0 {
        xdp.attach(interface, &mut filter, Mode::Native)?;
    }
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "dispatcher::fault_tests::an_attach_in_a_process_of_its_own"])
        .args(["--ignored", "--nocapture"])
        .env(NETNS, &pair.near.name)
        .env(DIE_AT, call.to_string())
        .output()?;
    let occupant = xdp.inspect(interface)?;
    let state = || format!("call {call}: {occupant:?} {output:?}");
    ensure!(occupant.chain().is_none_or(super::Chain::is_whole), "{}", state());
    if programs > 0 {
        ensure!(blocked(pair)?, "the filter let a packet through: {}", state());
    }
    let after = occupant.chain().map_or(0, |chain| chain.members.len());
    xdp.attach(interface, &mut counter()?, Mode::Native)?;
    ensure!(chain(&xdp, interface)?.members.len() == after + 1, "{}", state());
    xdp.detach_all(interface)?;
    sweep()?;
    Ok((!output.status.success(), after))
}

/// Removes all pins, as nobody is attached any more.
fn sweep() -> Result<()> {
    for path in pins()?.into_iter().rev() {
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

const NETNS: &str = "OXDP_TEST_NETNS";
const DIE_AT: &str = "OXDP_TEST_DIE_AT";

/// The process that dies, if it is told to; by itself, an attach like any other.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn an_attach_in_a_process_of_its_own() -> Result<()> {
    let Some(call) = std::env::var(DIE_AT).ok() else {
        let pair = Pair::new("own", 10)?;
        let (xdp, interface) = (with(Kernel::default())?, pair.interface()?);
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        xdp.detach_all(&interface)?;
        return Ok(());
    };
    let netns = crate::Netns::by_name(&std::env::var(NETNS)?)?;
    let interface = Interface::by_name(&netns, crate::support::lab::UPLINK)?;
    let xdp = with(Kernel::with_fault(Arc::new(Plan::die_at(call.parse()?))))?;
    xdp.attach(&interface, &mut counter()?, Mode::Native)?;
    Ok(())
}

/// Between our look at an empty interface and our attach, somebody else attaches a chain: we join it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_first_attach_that_is_overtaken_starts_over() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("first", 10)?;
        let interface = pair.interface()?;
        for _ in 0..RACES {
            let other = pair.interface()?;
            let plan = Arc::new(Plan::interrupt("RTM_SETLINK", move || {
                let legacy = Xdp::builder().layout(Legacy).build().unwrap();
                legacy.attach(&other, &mut filter(BLOCKED).unwrap(), Mode::Native).unwrap();
            }));
            let xdp = with(Kernel::with_fault(Arc::clone(&plan)))?;
            xdp.attach(&interface, &mut counter()?, Mode::Native)?;
            let swaps = plan.seen().iter().filter(|call| **call == "RTM_SETLINK").count();
            ensure!(swaps == 2, "{swaps} attempts");
            let both = chain(&xdp, &interface)?;
            ensure!(
                names(&both) == ["udp_filter", "packet_counter"] && both.is_whole(),
                "{both:?}"
            );
            ensure!(blocked(&pair)?);
            xdp.detach_all(&interface)?;
        }
    }
    baseline.assert_restored()
}

/// Between our look at a chain and our swap, somebody takes it off: we start a new one.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_swap_that_is_overtaken_starts_over() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("swap", 10)?;
        let interface = pair.interface()?;
        let xdp = with(Kernel::default())?;
        for _ in 0..RACES {
            xdp.attach(&interface, &mut filter(BLOCKED)?, Mode::Native)?;
            let old_pins = chain(&xdp, &interface)?.pins.unwrap();
            let off = format!("-n {} link set uplink xdp off", pair.near.name);
            let plan = Arc::new(Plan::interrupt("RTM_SETLINK", move || ip(&off).unwrap()));
            let overtaken = with(Kernel::with_fault(Arc::clone(&plan)))?;
            overtaken.attach(&interface, &mut counter()?, Mode::Native)?;
            let swaps = plan.seen().iter().filter(|call| **call == "RTM_SETLINK").count();
            ensure!(swaps == 2, "{swaps} attempts");
            let new = chain(&xdp, &interface)?;
            ensure!(names(&new) == ["packet_counter"] && new.is_whole(), "{new:?}");
            // `ip` knows nothing of pins: those of the chain that it took off are still there.
            remove_pins(&old_pins)?;
            xdp.detach_all(&interface)?;
        }
    }
    baseline.assert_restored()
}

/// The calls of an attach to an empty interface.
fn calls_of_an_attach(interface: &Interface) -> Result<Vec<&'static str>> {
    let plan = Arc::new(Plan::record());
    let xdp = with(Kernel::with_fault(Arc::clone(&plan)))?;
    xdp.attach(interface, &mut filter(BLOCKED)?, Mode::Native)?;
    with(Kernel::default())?.detach_all(interface)?;
    Ok(plan.seen())
}

/// The swap is done, its answer is lost, and so is the answer to the question whether it is done: an error, but
/// the chain that may run (and does) keeps its pins.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_that_may_run_keeps_its_pins() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("unknown", 10)?;
        let interface = pair.interface()?;
        let calls = calls_of_an_attach(&interface)?;
        let answer = calls.iter().position(|call| *call == "RTM_SETLINK answer").unwrap();
        let plan = Arc::new(Plan::fail(answer..answer + 2, ERRNO));
        let result = with(Kernel::with_fault(Arc::clone(&plan)))?.attach(
            &interface,
            &mut filter(BLOCKED)?,
            Mode::Native,
        );
        ensure!(result.unwrap_err().errno() == Some(ERRNO));
        ensure!(plan.seen()[answer..answer + 2] == ["RTM_SETLINK answer", "RTM_GETLINK"]);
        let xdp = with(Kernel::default())?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        ensure!(blocked(&pair)?);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Old pins that cannot be removed, twice: the change is done, and what is left is told.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_cannot_be_removed_is_told() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("leftover", 10)?;
        let interface = pair.interface()?;
        let xdp = with(Kernel::default())?;
        let add = |plan: &Arc<Plan>| -> Result<Outcome> {
            xdp.attach(&interface, &mut filter(BLOCKED)?, Mode::Native)?;
            let faulty = with(Kernel::with_fault(Arc::clone(plan)))?;
            Ok(faulty.attach(&interface, &mut counter()?, Mode::Native)?)
        };
        let plan = Arc::new(Plan::record());
        ensure!(add(&plan)?.leftover.is_none());
        xdp.detach_all(&interface)?;
        let unlink = plan.seen().iter().position(|call| *call == "unlinkat").unwrap();

        let outcome = add(&Arc::new(Plan::fail(unlink..unlink + 2, ERRNO)))?;
        let leftover = outcome.leftover.unwrap();
        ensure!(chain(&xdp, &interface)?.is_whole() && blocked(&pair)?);
        remove_pins(&leftover)?;
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Between our look at a chain that is pinned elsewhere (so we do not hold its lock) and the search for its pins,
/// its owner replaces it: it only looks damaged.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_replaced_while_it_is_looked_for_is_not_damaged() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("elsewhere", 10)?;
        let interface = pair.interface()?;
        let legacy = Xdp::builder().mount_bpffs(true).layout(Legacy).build()?;
        legacy.attach(&interface, &mut filter(BLOCKED)?, Mode::Native)?;
        let (owner, other) = (legacy.clone(), pair.interface()?);
        let plan = Arc::new(Plan::interrupt("BPF_MAP_LOOKUP_ELEM", move || {
            owner.attach(&other, &mut counter().unwrap(), Mode::Native).unwrap();
        }));
        with(Kernel::with_fault(plan))?.attach(&interface, &mut counter()?, Mode::Native)?;
        let three = chain(&legacy, &interface)?;
        ensure!(three.members.len() == 3 && three.is_whole(), "{three:?}");
        legacy.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// EBUSY has other causes than a race; then it is the error, and the change is not tried again.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_busy_interface_that_nobody_changed_is_an_error() -> Result<()> {
    let pair = Pair::new("busy", 10)?;
    let interface = pair.interface()?;
    let plan = Arc::new(Plan::record());
    with(Kernel::with_fault(Arc::clone(&plan)))?.attach(
        &interface,
        &mut counter()?,
        Mode::Native,
    )?;
    let swap = plan.seen().iter().position(|call| *call == "RTM_SETLINK").unwrap();
    let xdp = with(Kernel::default())?;
    xdp.detach_all(&interface)?;

    let plan = Arc::new(Plan::fail(swap..swap + 1, libc::EBUSY));
    let busy = with(Kernel::with_fault(Arc::clone(&plan)))?;
    let error = busy.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::Os { .. }), "{error}");
    ensure!(error.errno() == Some(libc::EBUSY));
    ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    Ok(())
}
