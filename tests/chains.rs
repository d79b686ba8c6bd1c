//! Chains on real interfaces. Needs a kernel that permits freplace, so `make test` runs these in VMs:
//! `tests/vm/run 6.12 -- target/debug/deps/chains-… --ignored --test-threads=1`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{
    ChainActions, Error, ErrorKind, Features, Interface, Legacy, MAX_PROGRAMS, Mode, NetnsInode,
    Occupant, Program, Select, Support, Xdp,
};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::lab::{Pair, ip, received, soon};
use support::{BPFFS, Baseline, chain, counter, filter, names, object, pins, program, seen};

fn xdp() -> Result<Xdp> {
    Ok(Xdp::builder().mount_bpffs(true).build()?)
}

fn id(program: &Program) -> u32 {
    program.id().unwrap()
}

/// The packets that get through to a port, of ten that are sent.
fn through(pair: &Pair, port: u16) -> Result<usize> {
    let (socket, last) = (pair.listen(port)?, pair.listen(9)?);
    pair.send(port, 10)?;
    pair.send(9, 1)?;
    ensure!(soon(|| Ok(received(&last)? > 0))?, "the last packet never came");
    received(&socket)
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_kernel_under_test_has_freplace() -> Result<()> {
    let baseline = Baseline::take()?;
    ensure!(Features::probe()?.freplace == Support::Yes, "{:?}", Features::probe()?);
    baseline.assert_restored()
}

/// Attach to an empty interface, add to a live chain, take one out, take the last one out.
fn life_of_a_chain(mode: Mode) -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("life", 10)?);
        let interface = pair.interface()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);

        let first = xdp.attach(&interface, &mut counter, mode)?;
        ensure!(first.replaced.is_none() && first.mode == mode && first.leftover.is_none());
        ensure!(names(&chain(&xdp, &interface)?) == ["packet_counter"]);
        ensure!(through(&pair, 7777)? == 10);
        ensure!(seen(&counter)? == 11, "ten and the last: {}", seen(&counter)?);

        let second = xdp.attach(&interface, &mut filter, Mode::Unspecified)?;
        ensure!(second.replaced == first.dispatcher && second.mode == mode);
        let both = chain(&xdp, &interface)?;
        ensure!(names(&both) == ["udp_filter", "packet_counter"], "{both:?}");
        ensure!(both.is_whole() && both.version == 3 && both.mode == mode && !both.has_frags);
        ensure!(both.pins == second.pins && Some(both.dispatcher) == second.dispatcher);
        ensure!(both.members[0].priority == 10 && both.members[1].priority == 20);
        ensure!(both.members[0].actions == ChainActions::PASS);
        ensure!(through(&pair, 7777)? == 0);
        ensure!(seen(&counter)? == 12, "only the last one more");

        xdp.detach(&interface, id(&counter))?;
        ensure!(names(&chain(&xdp, &interface)?) == ["udp_filter"]);
        ensure!(through(&pair, 7777)? == 0);
        ensure!(seen(&counter)? == 12);

        // A program that was loaded before goes back in.
        xdp.attach(&interface, &mut counter, mode)?;
        ensure!(through(&pair, 7777)? == 0);
        ensure!(seen(&counter)? == 13);

        xdp.detach(&interface, id(&filter))?;
        let last = xdp.detach(&interface, id(&counter))?;
        ensure!(last.dispatcher.is_none() && last.leftover.is_none());
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        ensure!(through(&pair, 7777)? == 10);
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_lives_in_native_mode() -> Result<()> {
    life_of_a_chain(Mode::Native)
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_lives_in_skb_mode() -> Result<()> {
    life_of_a_chain(Mode::Skb)
}

/// The reason why this library exists.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn two_namespaces_with_the_same_ifindex_do_not_touch_each_other() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let xdp = xdp()?;
        let pairs = [Pair::new("one", 10)?, Pair::new("two", 10)?];
        let interfaces = [pairs[0].interface()?, pairs[1].interface()?];
        let mut filters = [filter(7777)?, filter(7777)?];
        for (interface, filter) in interfaces.iter().zip(&mut filters) {
            xdp.attach(interface, filter, Mode::Native)?;
        }
        let chains = [chain(&xdp, &interfaces[0])?, chain(&xdp, &interfaces[1])?];
        for (chain, interface) in chains.iter().zip(&interfaces) {
            let scope = format!("netns-{}", interface.netns().inode());
            let expected = Path::new(BPFFS).join("xdp").join(scope);
            ensure!(chain.pins.as_ref().and_then(|pins| pins.parent()) == Some(expected.as_path()));
        }
        xdp.detach_all(&interfaces[0])?;
        ensure!(through(&pairs[0], 7777)? == 10);
        ensure!(chain(&xdp, &interfaces[1])? == chains[1]);
        ensure!(through(&pairs[1], 7777)? == 0);
        // A program is in no chain but its own.
        let error = xdp.detach(&interfaces[1], id(&filters[0])).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
        xdp.detach_all(&interfaces[1])?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_calling_thread_never_changes_its_namespace() -> Result<()> {
    let of_thread = || std::fs::read_link("/proc/thread-self/ns/net");
    let before = of_thread()?;
    let (xdp, pair) = (xdp()?, Pair::new("thread", 10)?);
    xdp.attach(&pair.interface()?, &mut counter()?, Mode::Native)?;
    ensure!(of_thread()? == before);
    xdp.detach_all(&pair.interface()?)?;
    ensure!(of_thread()? == before);
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn ten_programs_fit_in_order_and_the_eleventh_changes_nothing() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("full", 10)?);
        let interface = pair.interface()?;
        let mut programs = Vec::new();
        // Added in an order that is not the one in which they run.
        for number in [7, 2, 9, 0, 5, 1, 8, 3, 6, 4] {
            let mut program = counter()?;
            program.set_priority(number)?;
            xdp.attach(&interface, &mut program, Mode::Native)?;
            programs.push(program);
        }
        let full = chain(&xdp, &interface)?;
        let priorities: Vec<_> = full.members.iter().map(|member| member.priority).collect();
        ensure!(priorities == (0..10).collect::<Vec<_>>() && full.is_whole());
        ensure!(through(&pair, 7777)? == 10);
        for program in &programs {
            ensure!(seen(program)? >= 11);
        }
        let error = xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::ChainFull { max: MAX_PROGRAMS }), "{error}");
        ensure!(error.to_string().contains("uplink"), "{error}");
        ensure!(chain(&xdp, &interface)? == full);
        // From the middle, the end and the start.
        for program in [&programs[4], &programs[2], &programs[3]] {
            xdp.detach(&interface, id(program))?;
        }
        let rest: Vec<_> = chain(&xdp, &interface)?.members.iter().map(|m| m.priority).collect();
        ensure!(rest == [1, 2, 3, 4, 6, 7, 8], "{rest:?}");
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn several_programs_in_one_change() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("several", 10)?);
        let interface = pair.interface()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        let outcome = xdp.attach_all(&interface, &mut [&mut counter, &mut filter], Mode::Native)?;
        let both = chain(&xdp, &interface)?;
        ensure!(Some(both.dispatcher) == outcome.dispatcher);
        ensure!(names(&both) == ["udp_filter", "packet_counter"]);
        let error = xdp.attach_all(&interface, &mut [], Mode::Native).unwrap_err();
        ensure!(error.errno() == Some(libc::EINVAL));
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// What a verdict does to the chain: with the program alone, where it replaces the dispatcher itself or, because
/// it continues after more than `XDP_PASS`, only a slot; and with another one behind it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn actions_decide_whether_the_chain_goes_on() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("actions", 10)?);
        let interface = pair.interface()?;
        let both = object("two_programs.o");
        let mut go_on = Program::from_file(&both, Select::Function("drop_and_go_on"))?;
        let mut stop = Program::from_file(&both, Select::Section("xdp/other"))?;
        ensure!((go_on.priority(), go_on.chain_actions()) == (5, ChainActions::DROP));
        ensure!((stop.priority(), stop.chain_actions()) == (50, ChainActions::PASS));

        xdp.attach(&interface, &mut go_on, Mode::Native)?;
        ensure!(through(&pair, 7777)? == 10, "XDP_DROP goes on, and the chain's end passes");
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        ensure!(through(&pair, 7777)? == 10);
        ensure!(seen(&counter)? == 11);
        xdp.detach_all(&interface)?;

        xdp.attach(&interface, &mut stop, Mode::Native)?;
        let socket = pair.listen(7777)?;
        pair.send(7777, 10)?;
        std::thread::sleep(Duration::from_millis(200));
        ensure!(received(&socket)? == 0, "XDP_DROP ends the chain");
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_that_moves_the_packet_fits_every_slot() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("moves", 10)?);
        let interface = pair.interface()?;
        for _ in 0..3 {
            xdp.attach(&interface, &mut program("moves_packet.o")?, Mode::Native)?;
        }
        ensure!(through(&pair, 7777)? == 10);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Fragments are for a chain whose programs all read them, on a kernel that has them (5.18); a long name is
/// completed from BTF.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn fragments_and_long_names() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("frags", 10)?);
        let interface = pair.interface()?;
        let mut frags = program("frags_pass.o")?;
        ensure!(frags.has_frags());
        xdp.attach(&interface, &mut frags, Mode::Native)?;
        let alone = chain(&xdp, &interface)?;
        ensure!(names(&alone) == ["frags_pass_with_a_long_name"], "{alone:?}");
        ensure!(alone.has_frags == kernel_at_least(5, 18)?, "{alone:?}");
        ensure!(alone.members[0].has_frags);
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        let both = chain(&xdp, &interface)?;
        ensure!(!both.has_frags && both.members[1].has_frags && !both.members[0].has_frags);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

fn kernel_at_least(major: u32, minor: u32) -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    let mut part = || parts.next().context("a release of two numbers")?.context("a number");
    Ok((part()?, part()?) >= (major, minor))
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_keeps_its_mode() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("mode", 10)?);
        let interface = pair.interface()?;
        xdp.attach(&interface, &mut counter()?, Mode::Skb)?;
        let before = chain(&xdp, &interface)?;
        let error = xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::ModeConflict { attached: "skb", asked: "native" }),
            "{error}"
        );
        ensure!(chain(&xdp, &interface)? == before);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Every attach that is refused leaves the chain, the kernel and bpffs as they were.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn refused_programs_change_nothing() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("refused", 10)?);
        let interface = pair.interface()?;
        let refused = |error: &Error| {
            let ErrorKind::Rejected { log, .. } = error.kind() else { bail!("{error}") };
            ensure!(log.contains("invalid"), "{log}");
            ensure!(error.to_string().contains("rejected"), "names the program: {error}");
            Ok(())
        };
        let error = xdp.attach(&interface, &mut program("rejected.o")?, Mode::Native).unwrap_err();
        refused(&error)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        baseline_pins(&baseline)?;
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        let before = (chain(&xdp, &interface)?, pins()?);
        let mut program = program("rejected.o")?;
        for _ in 0..2 {
            // A program whose load has failed can be tried again, with the same answer.
            refused(&xdp.attach(&interface, &mut program, Mode::Native).unwrap_err())?;
        }
        ensure!((chain(&xdp, &interface)?, pins()?) == before);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

fn baseline_pins(baseline: &Baseline) -> Result<()> {
    ensure!(pins()? == baseline.pins(), "{:?}", pins()?);
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_with_lost_pins_is_told_and_left_alone() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("lost", 10)?);
        let interface = pair.interface()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        for name in ["prog0-link", "prog0-prog"] {
            std::fs::remove_file(pins.join(name))?;
            let damaged = chain(&xdp, &interface)?;
            ensure!(!damaged.is_whole() && damaged.members[1].component.is_some(), "{damaged:?}");
            let error = xdp.attach(&interface, &mut support::counter()?, Mode::Native).unwrap_err();
            ensure!(
                matches!(error.kind(), ErrorKind::DamagedChain { missing, .. } if *missing == [0]),
                "{error}"
            );
        }
        // Without any pin it is still known for what it is, and can be taken off.
        std::fs::remove_file(pins.join("prog1-prog"))?;
        std::fs::remove_file(pins.join("prog1-link"))?;
        std::fs::remove_dir(&pins)?;
        let orphan = chain(&xdp, &interface)?;
        ensure!(orphan.pins.is_none() && orphan.members.len() == 2 && !orphan.is_whole());
        let error = xdp.attach(&interface, &mut support::counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::DamagedChain { .. }), "{error}");
        xdp.detach_all(&interface)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn hostile_pins_are_refused_by_name() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("hostile", 10)?);
        let interface = pair.interface()?;
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let pins = chain(&xdp, &interface)?.pins.unwrap();
        let pin = pins.join("prog0-prog");
        std::fs::rename(&pin, pins.join("kept"))?;
        // A link where the program should be; then an entry that the protocol does not know.
        std::fs::rename(pins.join("prog0-link"), &pin)?;
        let error = xdp.inspect(&interface).unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::UnexpectedPin { path, .. } if *path == pin),
            "{error}"
        );
        std::fs::rename(&pin, pins.join("prog0-link"))?;
        std::fs::rename(pins.join("kept"), &pin)?;
        std::os::unix::fs::symlink("/etc/passwd", pins.join("foreign"))?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        let outcome = xdp.detach_all(&interface)?;
        ensure!(outcome.leftover == Some(pins.clone()), "{outcome:?}");
        ensure!(std::fs::read_dir(&pins)?.count() == 1, "only the foreign entry is left");
        std::fs::remove_file(pins.join("foreign"))?;
        std::fs::remove_dir(&pins)?;
        std::fs::remove_file(pins.with_file_name("identity"))?;
        std::fs::remove_dir(pins.parent().unwrap())?;
    }
    baseline.assert_restored()
}

/// Who reads a chain does not need to know the layout it was made with, and who changes it leaves it there.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_stays_where_it_was_made() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("home", 10)?;
        let interface = pair.interface()?;
        let legacy = Xdp::builder().mount_bpffs(true).layout(Legacy).build()?;
        let namespaced = Xdp::builder().layout(NetnsInode).build()?;
        let (mut filter, mut counter) = (filter(7777)?, counter()?);
        legacy.attach(&interface, &mut filter, Mode::Native)?;
        let outcome = namespaced.attach(&interface, &mut counter, Mode::Native)?;
        let root = Path::new(BPFFS).join("xdp");
        ensure!(outcome.pins.as_ref().and_then(|pins| pins.parent()) == Some(root.as_path()));
        ensure!(chain(&legacy, &interface)? == chain(&namespaced, &interface)?);
        namespaced.detach(&interface, id(&filter))?;
        legacy.detach_all(&interface)?;

        namespaced.attach(&interface, &mut filter, Mode::Native)?;
        let scope = root.join(format!("netns-{}", interface.netns().inode()));
        legacy.attach(&interface, &mut counter, Mode::Native)?;
        ensure!(chain(&legacy, &interface)?.pins.unwrap().parent() == Some(scope.as_path()));
        legacy.detach_all(&interface)?;
        ensure!(!scope.exists());
    }
    baseline.assert_restored()
}

/// A chain of Debian's C libxdp (protocol version 2): read, not added to, and taken off.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_of_c_libxdp_is_read() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("c", 10)?);
        let interface = pair.interface()?;
        let status = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", pair.near.name))
            .args(["xdp-loader", "load", "-m", "native", "-P", "33", "-s", "xdp", "uplink"])
            .arg(object("udp_filter.o"))
            .status()
            .context("running xdp-loader (package xdp-tools)")?;
        ensure!(status.success(), "xdp-loader: {status}");
        let theirs = chain(&xdp, &interface)?;
        ensure!(theirs.is_whole() && theirs.version == 2 && theirs.mode == Mode::Native);
        ensure!(names(&theirs) == ["udp_filter"] && theirs.members[0].priority == 33, "{theirs:?}");
        ensure!(through(&pair, 7777)? == 0);
        let error = xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::ProtocolVersion { found: 2, written: 3 }),
            "{error}"
        );
        ensure!(chain(&xdp, &interface)? == theirs);
        xdp.detach(&interface, theirs.members[0].component.as_ref().unwrap().id)?;
        ensure!(through(&pair, 7777)? == 10);
    }
    baseline.assert_restored()
}

/// The lock is the one that C libxdp takes: flock(2) on the directory.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_held_lock_is_waited_for_no_longer_than_allowed() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("lock", 10)?;
        let interface = pair.interface()?;
        let limit = Duration::from_millis(200);
        let legacy = Xdp::builder().mount_bpffs(true).layout(Legacy).lock_timeout(limit).build()?;
        let root = Path::new(BPFFS).join("xdp");
        let mut holder = Command::new("flock")
            .arg(&root)
            .args(["sh", "-c", "echo held; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut held = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held)?;
        let start = Instant::now();
        let error = legacy.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(start.elapsed() >= limit);
        ensure!(
            matches!(error.kind(), ErrorKind::LockTimeout { path, .. } if *path == root),
            "{error}"
        );
        ensure!(legacy.inspect(&interface)? == Occupant::Empty, "reading takes no lock");
        drop(holder.stdin.take());
        holder.wait()?;
        legacy.attach(&interface, &mut counter()?, Mode::Native)?;
        legacy.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// While others are added and removed, a filter never lets a packet through that it must drop.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_filter_holds_while_its_chain_changes() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("holds", 10)?);
        let interface = pair.interface()?;
        let mut filter = filter(7777)?;
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        let socket = pair.listen(7777)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let sender = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    pair.send(7777, 10)?;
                    sent += 10;
                }
                Ok(sent)
            });
            let changes = (|| -> Result<()> {
                for _ in 0..20 {
                    let mut counter = counter()?;
                    xdp.attach(&interface, &mut counter, Mode::Native)?;
                    xdp.detach(&interface, id(&counter))?;
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            let sent = sender.join().unwrap()?;
            changes?;
            ensure!(sent > 100, "hardly any traffic: {sent}");
            ensure!(soon(|| Ok(seen(&filter)? >= sent))?, "{} of {sent}", seen(&filter)?);
            ensure!(received(&socket)? == 0, "a packet got past the filter");
            Ok(())
        })?;
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// Threads that add and remove on one interface at once, half of them with pins, and so locks, elsewhere: what
/// the lock does not order, the compare-and-swap does.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn many_changes_at_once_lose_nothing() -> Result<()> {
    const THREADS: usize = 4;
    const ROUNDS: usize = 6;
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("many", 10)?;
        let interface = pair.interface()?;
        let work = |number: usize| -> Result<()> {
            let xdp = Xdp::builder().mount_bpffs(true);
            let xdp =
                if number.is_multiple_of(2) { xdp.layout(Legacy) } else { xdp.layout(NetnsInode) };
            let xdp = xdp.build()?;
            for _ in 0..ROUNDS {
                let mut program = counter()?;
                again(|| xdp.attach(&interface, &mut program, Mode::Native).map(drop))?;
                let id = id(&program);
                again(|| xdp.detach(&interface, id).map(drop))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap())
        })?;
        ensure!(xdp()?.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// `Contended` is the documented answer to a race that was lost ten times in a row; nothing else is.
fn again(mut change: impl FnMut() -> oxdp::Result<()>) -> Result<()> {
    for _ in 0..20 {
        match change() {
            Err(error) if matches!(error.kind(), ErrorKind::Contended { .. }) => {}
            other => return Ok(other?),
        }
    }
    bail!("contended for ever")
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn an_interface_that_goes_away_is_told() -> Result<()> {
    let (xdp, pair) = (xdp()?, Pair::new("gone", 10)?);
    let interface = pair.interface()?;
    ip(&format!("-n {} link del uplink", pair.near.name))?;
    let gone = |error: Error| {
        ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
        Ok(())
    };
    gone(xdp.inspect(&interface).unwrap_err())?;
    gone(xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err())?;
    gone(xdp.detach_all(&interface).unwrap_err())?;
    gone(Interface::by_name(interface.netns(), "uplink").unwrap_err())
}
