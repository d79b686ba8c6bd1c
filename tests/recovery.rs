//! What was lost or left behind is put right, on real kernels: inventory, plan, apply.

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{
    AttachBy, Done, EmptyDispatcher, ErrorKind, Interface, Legacy, Mode, NetnsInode, Occupant,
    Program, RecoveryAction, RecoveryPlan, Xdp,
};
use std::path::{Path, PathBuf};
use support::lab::{Namespace, Pair, UPLINK, ip, received, soon};
use support::peer::Peer;
use support::{BPFFS, Baseline, chain, counter, filter, id, kernel, names, pins};

const BLOCKED: u16 = 7777;
const OPEN: u16 = 8888;

fn xdp() -> Result<Xdp> {
    Ok(Xdp::builder().mount_bpffs(true).layout(NetnsInode).build()?)
}

fn plan(xdp: &Xdp) -> Result<RecoveryPlan> {
    let inventory = xdp.inventory()?;
    ensure!(inventory.gaps.is_empty(), "{:?}", inventory.gaps);
    Ok(inventory.plan(EmptyDispatcher::Remove))
}

/// The lines that would change something.
fn changes(plan: &RecoveryPlan) -> Vec<RecoveryAction> {
    let actions = plan.lines.iter().map(|line| line.action.clone());
    actions.filter(RecoveryAction::is_change).collect()
}

/// Carries out a plan of which every change must succeed; after it there is nothing left to do.
fn recover(xdp: &Xdp) -> Result<Vec<RecoveryAction>> {
    let plan = plan(xdp)?;
    for applied in xdp.apply(&plan)? {
        let is_done = match applied.done {
            Done::Changed => applied.line.action.is_change(),
            Done::Nothing => !applied.line.action.is_change(),
            _ => false,
        };
        ensure!(is_done, "{}: {:?}", applied.line, applied.done);
    }
    let again = self::plan(xdp)?;
    ensure!(!again.is_change(), "left to do:\n{again}");
    Ok(changes(&plan))
}

/// A filter against [`BLOCKED`] and a counter behind it.
fn guarded(xdp: &Xdp, interface: &Interface) -> Result<u32> {
    let (mut filter, mut counter) = (filter(BLOCKED)?, counter()?);
    xdp.attach_all(interface, &mut [&mut filter, &mut counter], Mode::Native)?;
    Ok(id(&filter))
}

fn blocks(pair: &Pair) -> Result<bool> {
    Ok(pair.through(BLOCKED)? == 0 && pair.through(OPEN)? == 10)
}

fn pins_of(xdp: &Xdp, interface: &Interface) -> Result<PathBuf> {
    chain(xdp, interface)?.pins.context("it is pinned")
}

/// Somewhere in bpffs where nobody looks for pins: what is moved there is lost and yet alive.
struct Hidden(PathBuf);

impl Hidden {
    fn take(pins: &Path) -> Result<Self> {
        let place = Path::new(BPFFS).join(format!("hidden-{}", std::process::id()));
        std::fs::rename(pins, &place)?;
        Ok(Self(place))
    }

    fn remove(self) -> Result<()> {
        support::remove_pins(&self.0)
    }
}

fn tells_targets() -> Result<bool> {
    Ok(kernel()? >= (5, 13))
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_is_whole_is_left_as_it_is() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (one, two) = (Pair::new("whole", 10)?, Pair::new("whole2", 10)?);
        let xdp = xdp()?;
        let legacy = Xdp::builder().layout(Legacy).build()?;
        guarded(&xdp, &one.interface()?)?;
        guarded(&legacy, &two.interface()?)?;
        let (before, pinned) = (chain(&xdp, &one.interface()?)?, pins()?);
        ensure!(recover(&xdp)?.is_empty());
        ensure!(chain(&xdp, &one.interface()?)? == before && pins()? == pinned);
        let inventory = xdp.inventory()?;
        let seen = inventory.namespaces.iter().find(|netns| netns.label == one.near.name);
        ensure!(seen.is_some_and(|netns| netns.interfaces.len() == 1), "{inventory:?}");
        xdp.detach_all(&one.interface()?)?;
        legacy.detach_all(&two.interface()?)?;
    }
    baseline.assert_restored()
}

/// The pins are lost, and somebody still holds the links: they are pinned again, and no packet gets through.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_whose_pins_are_lost_is_adopted() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("adopt", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        guarded(&xdp, &interface)?;
        let before = chain(&xdp, &interface)?;
        let hidden = Hidden::take(before.pins.as_deref().context("pins")?)?;
        ensure!(!chain(&xdp, &interface)?.is_whole());
        let error = xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::DamagedChain { .. }), "{error}");
        if tells_targets()? {
            let done = recover(&xdp)?;
            ensure!(
                matches!(&done[..], [.., RecoveryAction::Adopt { slots, .. }] if *slots == [0, 1]),
                "{done:?}"
            );
            hidden.remove()?;
            let after = chain(&xdp, &interface)?;
            ensure!(after.dispatcher == before.dispatcher && after.is_whole(), "{after:?}");
            ensure!(names(&after) == ["udp_filter", "packet_counter"]);
            ensure!(blocks(&pair)?);
            xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        } else {
            // Which links are in it this kernel does not tell: left alone, and said so.
            let plan = plan(&xdp)?;
            ensure!(plan.to_string().contains("this kernel does not tell"), "{plan}");
            ensure!(
                !plan.lines.iter().any(|line| line.action.chain().is_some_and(|at| at.dispatcher
                    == before.dispatcher
                    && line.action.is_change())),
                "{plan}"
            );
            hidden.remove()?;
        }
        xdp.detach_all(&interface)?;
        recover(&xdp)?;
    }
    baseline.assert_restored()
}

/// One pin of four is lost, of each kind: only that is made again.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_single_lost_pin_is_made_again() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("single", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        guarded(&xdp, &interface)?;
        let pins = pins_of(&xdp, &interface)?;
        for pin in ["prog0-prog", "prog1-link"] {
            // Only a program's pin: its link holds it. And a link's, held elsewhere.
            let aside = Path::new(BPFFS).join("aside");
            std::fs::rename(pins.join(pin), &aside)?;
            if pin.ends_with("prog") || tells_targets()? {
                let done = recover(&xdp)?;
                ensure!(matches!(&done[..], [RecoveryAction::Adopt { .. }]), "{pin}: {done:?}");
                std::fs::remove_file(&aside)?;
            } else {
                ensure!(!plan(&xdp)?.is_change());
                std::fs::rename(&aside, pins.join(pin))?;
            }
            ensure!(chain(&xdp, &interface)?.is_whole() && blocks(&pair)?, "{pin}");
        }
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Pins and links are lost: the dispatcher passes everything. It is replaced by the next attach, kept or removed.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn an_empty_dispatcher_is_replaced_kept_or_removed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("empty", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        let empty = || -> Result<u32> {
            guarded(&xdp, &interface)?;
            let dead = chain(&xdp, &interface)?;
            support::remove_pins(dead.pins.as_deref().context("pins")?)?;
            ensure!(soon(|| Ok(pair.through(BLOCKED)? == 10))?, "it passes everything");
            Ok(dead.dispatcher)
        };
        let dead = empty()?;
        let outcome = xdp.attach(&interface, &mut filter(BLOCKED)?, Mode::Native)?;
        ensure!(outcome.replaced == Some(dead) && outcome.dropped == [0, 1], "{outcome:?}");
        ensure!(names(&chain(&xdp, &interface)?) == ["udp_filter"] && blocks(&pair)?);
        xdp.detach_all(&interface)?;

        let dead = empty()?;
        let kept = xdp.inventory()?.plan(EmptyDispatcher::Keep);
        ensure!(kept.to_string().contains("the next attach replaces it"), "{kept}");
        xdp.apply(&kept)?;
        ensure!(chain(&xdp, &interface)?.dispatcher == dead);
        let done = recover(&xdp)?;
        let detached = |action: &RecoveryAction| matches!(action, RecoveryAction::Detach { chain } if chain.dispatcher == dead);
        ensure!(done.iter().any(detached), "{done:?}");
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        recover(&xdp)?;
    }
    baseline.assert_restored()
}

/// A slot whose link is lost runs nothing: it goes, and the others stay where packets are concerned.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_slot_whose_program_died_is_dropped() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("slot", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        for by_attach in [false, true] {
            guarded(&xdp, &interface)?;
            std::fs::remove_file(pins_of(&xdp, &interface)?.join("prog1-link"))?;
            // The kernel takes its time; until then a kernel before 5.13 cannot tell where that link is.
            ensure!(soon(|| Ok(plan(&xdp)?.is_change()))?);
            if by_attach {
                let mut another = counter()?;
                let outcome = xdp.attach(&interface, &mut another, Mode::Native)?;
                ensure!(outcome.dropped == [1], "{outcome:?}");
                xdp.detach(&interface, id(&another))?;
            } else {
                let done = recover(&xdp)?;
                ensure!(
                    matches!(&done[..], [RecoveryAction::DropSlots { slots, .. }] if *slots == [1]),
                    "{done:?}"
                );
            }
            let after = chain(&xdp, &interface)?;
            ensure!(names(&after) == ["udp_filter"] && after.is_whole(), "{after:?}");
            ensure!(blocks(&pair)?);
            xdp.detach_all(&interface)?;
        }
    }
    baseline.assert_restored()
}

/// `ip` took the dispatcher off and knows nothing of pins: a generation that nobody runs, beside one that runs.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn old_generations_are_removed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("old", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        guarded(&xdp, &interface)?;
        let old = pins_of(&xdp, &interface)?;
        ip(&format!("-n {} link set {UPLINK} xdp off", pair.near.name))?;
        guarded(&xdp, &interface)?;
        let new = chain(&xdp, &interface)?;
        let done = recover(&xdp)?;
        ensure!(
            matches!(&done[..], [RecoveryAction::RemovePins { path, .. }] if *path == old),
            "{done:?}"
        );
        ensure!(chain(&xdp, &interface)? == new && blocks(&pair)?);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// C libxdp attaches a dispatcher without the lock under which it pinned it, but has it open all the while: who has it open
/// may be about to attach it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_dispatcher_that_a_process_has_open_keeps_its_pins() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("open", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        guarded(&xdp, &interface)?;
        let pinned = chain(&xdp, &interface)?;
        let open = Program::from_id(pinned.dispatcher)?;
        ip(&format!("-n {} link set {UPLINK} xdp off", pair.near.name))?;
        let plan = plan(&xdp)?;
        let refused = |applied: &oxdp::Applied| match &applied.done {
            Done::Outdated { why } => why.contains("has the dispatcher open"),
            _ => false,
        };
        ensure!(xdp.apply(&plan)?.iter().any(refused) && pins()?.len() > 4, "{plan}");
        drop(open);
        recover(&xdp)?;
    }
    baseline.assert_restored()
}

/// A namespace dies with its interface; pins, programs and scope go.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_a_dead_namespace_left_is_removed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (dying, living) = (Pair::new("dying", 10)?, Pair::new("living", 10)?);
        let xdp = xdp()?;
        guarded(&xdp, &dying.interface()?)?;
        guarded(&xdp, &living.interface()?)?;
        let left = pins_of(&xdp, &dying.interface()?)?;
        let before = chain(&xdp, &living.interface()?)?;
        drop(dying);
        ensure!(soon(|| Ok(plan(&xdp)?.is_change()))?);
        let done = recover(&xdp)?;
        ensure!(
            matches!(&done[..], [RecoveryAction::RemovePins { path, .. }] if *path == left),
            "{done:?}"
        );
        ensure!(!left.parent().context("scope")?.exists());
        ensure!(chain(&xdp, &living.interface()?)? == before && blocks(&living)?);
        xdp.detach_all(&living.interface()?)?;
    }
    baseline.assert_restored()
}

/// A new namespace has the inode of a dead one: neither it nor `recover` takes the one for the other.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_reused_inode_is_noticed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let xdp = xdp()?;
        let first = Pair::new("first", 10)?;
        let inode = first.near.netns.inode();
        guarded(&xdp, &first.interface()?)?;
        let left = pins_of(&xdp, &first.interface()?)?;
        drop(first);
        let mut second = None;
        for _ in 0..200 {
            let pair = Pair::new("second", 10)?;
            if pair.near.netns.inode() == inode {
                second = Some(pair);
                break;
            }
        }
        let second = second.context("the inode never came again")?;
        let interface = second.interface()?;
        // Before kernel 5.14 nothing tells two namespaces of one inode apart but what is attached in them.
        let is_told = kernel()? >= (5, 14);
        let reason = plan(&xdp)?.to_string();
        ensure!(reason.contains("its namespace is dead") == is_told, "{reason}");
        // Before any recovery: the dead one's pins are set aside, not taken over.
        guarded(&xdp, &interface)?;
        let new = chain(&xdp, &interface)?;
        ensure!(left.exists() != is_told && new.is_whole() && blocks(&second)?);
        let done = recover(&xdp)?;
        ensure!(
            matches!(&done[..], [RecoveryAction::RemovePins { path, .. }] if path.to_string_lossy().contains("dead-netns-") == is_told),
            "{done:?}"
        );
        ensure!(chain(&xdp, &interface)? == new && blocks(&second)?);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// An interface moves to another namespace, with another name and number: its pins follow, by recovery or with the
/// next change.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_moved_interface_s_pins_follow_it() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        for by_change in [false, true] {
            let (xdp, pair, to) = (xdp()?, Pair::new("moving", 10)?, Namespace::new("there")?);
            guarded(&xdp, &pair.interface()?)?;
            let old = pins_of(&xdp, &pair.interface()?)?;
            let (from, there) = (&pair.near.name, &to.name);
            // Its number is taken there, so it gets another one.
            ip(&format!("-n {there} link add dummy0 index 10 type dummy"))?;
            ip(&format!("-n {from} link set {UPLINK} netns {there} name moved"))?;
            ip(&format!("-n {there} addr add 10.77.0.1/24 dev moved"))?;
            ip(&format!("-n {there} link set moved up"))?;
            let moved = Interface::by_name(&to.netns, "moved")?;
            ensure!(moved.index() != 10);
            ensure!(pins_of(&xdp, &moved)? == old, "found by its id");
            if by_change {
                xdp.attach(&moved, &mut counter()?, Mode::Native)?;
                ensure!(chain(&xdp, &moved)?.members.len() == 3);
            } else {
                let before = chain(&xdp, &moved)?.dispatcher;
                let done = recover(&xdp)?;
                ensure!(
                    matches!(&done[..], [RecoveryAction::Rehome { from, .. }] if *from == old),
                    "{done:?}"
                );
                ensure!(chain(&xdp, &moved)?.dispatcher == before);
            }
            let after = chain(&xdp, &moved)?;
            let scope = Path::new(BPFFS).join(format!("xdp/netns-{}", to.netns.inode()));
            let home = scope.join(format!("dispatch-{}-{}", moved.index(), after.dispatcher));
            ensure!(after.is_whole() && after.pins == Some(home), "{after:?}");
            ensure!(!old.parent().context("scope")?.exists());
            ensure!(!plan(&xdp)?.is_change());
            let socket = to.netns.run(|| std::net::UdpSocket::bind(("10.77.0.1", BLOCKED)))??;
            socket.set_nonblocking(true)?;
            pair.send(BLOCKED, 10)?;
            std::thread::sleep(std::time::Duration::from_millis(50));
            ensure!(received(&socket)? == 0, "the filter let a packet through");
            xdp.detach_all(&moved)?;
        }
    }
    baseline.assert_restored()
}

/// A bpf file system that is unmounted takes pins and programs with it, and leaves dispatchers that run nothing.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_bpffs_mounted_again_is_recovered() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("mount", 10)?;
        let bpffs = tempfile::tempdir()?;
        let xdp =
            Xdp::builder().bpffs(bpffs.path()).mount_bpffs(true).layout(NetnsInode).build()?;
        let interface = pair.interface()?;
        guarded(&xdp, &interface)?;
        ensure!(blocks(&pair)?);
        nix::mount::umount(bpffs.path())?;
        let dead = |plan: &RecoveryPlan| {
            changes(plan).iter().any(|a| matches!(a, RecoveryAction::Detach { .. }))
        };
        ensure!(soon(|| Ok(dead(&plan(&xdp)?)))?);
        guarded(&xdp, &interface)?;
        ensure!(chain(&xdp, &interface)?.is_whole() && blocks(&pair)?);
        nix::mount::umount(bpffs.path())?;
        ensure!(soon(|| Ok(dead(&plan(&xdp)?)))?);
        // Without any bpf file system: taking off what is empty needs none.
        recover(&Xdp::builder().bpffs(bpffs.path()).layout(NetnsInode).build()?)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// A chain of C libxdp's is none of ours to move, and what C left behind is removed.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn chains_of_c_libxdp_are_kept_and_its_remains_removed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("theirs", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        let mut peer = Peer::start("1.3", &pair.near.name)?;
        let object = support::object("packet_counter.o");
        let attach = format!("attach {UPLINK} native {}", object.display());
        peer.tell(&attach)?;
        let theirs = chain(&xdp, &interface)?;
        ensure!(recover(&xdp)?.is_empty());
        ensure!(chain(&xdp, &interface)? == theirs);
        ip(&format!("-n {} link set {UPLINK} xdp off", pair.near.name))?;
        peer.tell(&attach)?;
        let done = recover(&xdp)?;
        ensure!(
            matches!(&done[..], [RecoveryAction::RemovePins { path, .. }] if theirs.pins.as_ref() == Some(path)),
            "{done:?}"
        );
        ensure!(chain(&xdp, &interface)?.is_whole());
        // They go on with it.
        peer.tell(&format!("detach-all {UPLINK}"))?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// What a link holds cleans up after itself; what was held by one and has lost its pins is taken off with it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn self_cleaning_chains_clean_themselves() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("link", 10)?;
        let interface = pair.interface()?;
        let xdp = Xdp::builder()
            .mount_bpffs(true)
            .layout(NetnsInode)
            .attach_by(AttachBy::Link)
            .build()?;
        guarded(&xdp, &interface)?;
        ensure!(recover(&xdp)?.is_empty());
        support::remove_pins(&pins_of(&xdp, &interface)?)?;
        ensure!(soon(|| Ok(xdp.inspect(&interface)? == Occupant::Empty))?);
        recover(&xdp)?;
    }
    baseline.assert_restored()
}

/// Pins that the protocol did not make, and programs that are in no chain, are left alone and told.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_is_somebody_s_is_left_alone() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("foreign", 10)?;
        let (xdp, interface) = (xdp()?, pair.interface()?);
        let mut single = support::program("xdp_pass.o")?;
        xdp.edit(&interface).insert(&mut single).policy(oxdp::Policy::Single).commit()?;
        let mut other = filter(BLOCKED)?;
        let second = Pair::new("foreign2", 10)?;
        xdp.attach(&second.interface()?, &mut other, Mode::Native)?;
        let odd = Path::new(BPFFS).join("xdp/dispatch-77-4000000000");
        std::fs::create_dir(&odd)?;
        other.pin(odd.join("somebody_s"))?;
        let plan = plan(&xdp)?;
        ensure!(!plan.is_change(), "{plan}");
        let text = plan.to_string();
        ensure!(text.contains("is part of no chain") && text.contains("somebody_s"), "{text}");
        xdp.apply(&plan)?;
        ensure!(odd.join("somebody_s").exists());
        ensure!(
            matches!(xdp.inspect(&interface)?, Occupant::Foreign(found) if found.id == id(&single))
        );
        std::fs::remove_file(odd.join("somebody_s"))?;
        std::fs::remove_dir(odd)?;
        xdp.detach(&interface, id(&single))?;
        xdp.detach_all(&second.interface()?)?;
    }
    baseline.assert_restored()
}
