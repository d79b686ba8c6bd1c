//! Chains on real interfaces. Needs a kernel that permits freplace, so `make test` runs these in VMs:
//! `tests/vm/run 6.12 -- target/debug/deps/chains-… --ignored --test-threads=1`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{
    ChainActions, ErrorKind, Features, Interface, Legacy, MAX_PROGRAMS, Mode, Netns, NetnsId,
    NetnsInode, Occupant, PinLayout, Program, Select, Support, Xdp,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::lab::{Pair, ip, received};
use support::{BPFFS, Baseline, chain, counter, filter, id, names, object, program, seen, xdp};

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
        ensure!(pair.through(7777)? == 10);
        ensure!(seen(&counter)? == 11, "ten and the last: {}", seen(&counter)?);

        let second = xdp.attach(&interface, &mut filter, Mode::Unspecified)?;
        ensure!(second.replaced == first.dispatcher && second.mode == mode);
        let both = chain(&xdp, &interface)?;
        ensure!(names(&both) == ["udp_filter", "packet_counter"], "{both:?}");
        ensure!(both.is_whole() && both.version == 3 && both.mode == mode && !both.has_frags);
        ensure!(both.pins == second.pins && Some(both.dispatcher) == second.dispatcher);
        ensure!(both.members[0].priority == 10 && both.members[1].priority == 20);
        ensure!(both.members[0].actions == ChainActions::PASS);
        ensure!(pair.through(7777)? == 0);
        ensure!(seen(&counter)? == 12, "only the last one more");

        xdp.detach(&interface, id(&counter))?;
        ensure!(names(&chain(&xdp, &interface)?) == ["udp_filter"]);
        ensure!(pair.through(7777)? == 0);
        ensure!(seen(&counter)? == 12);

        // A program that was loaded before goes back in.
        xdp.attach(&interface, &mut counter, mode)?;
        ensure!(pair.through(7777)? == 0);
        ensure!(seen(&counter)? == 13);

        xdp.detach(&interface, id(&filter))?;
        let last = xdp.detach(&interface, id(&counter))?;
        ensure!(last.dispatcher.is_none() && last.leftover.is_none());
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        ensure!(pair.through(7777)? == 10);
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
        ensure!(pairs[0].through(7777)? == 10);
        ensure!(chain(&xdp, &interfaces[1])? == chains[1]);
        ensure!(pairs[1].through(7777)? == 0);
        // A program is in no chain but its own.
        let error = xdp.detach(&interfaces[1], id(&filters[0])).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotInChain { .. }), "{error}");
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
            program.set_priority(number);
            xdp.attach(&interface, &mut program, Mode::Native)?;
            programs.push(program);
        }
        let full = chain(&xdp, &interface)?;
        let priorities: Vec<_> = full.members.iter().map(|member| member.priority).collect();
        ensure!(priorities == (0..10).collect::<Vec<_>>() && full.is_whole());
        ensure!(pair.through(7777)? == 10);
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
        let again = xdp.attach(&interface, &mut counter, Mode::Native).unwrap_err();
        ensure!(
            matches!(again.kind(), ErrorKind::AlreadyAttached { id } if *id == support::id(&counter)),
            "{again}"
        );
        ensure!(chain(&xdp, &interface)? == both);
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
        ensure!(pair.through(7777)? == 10, "XDP_DROP goes on, and the chain's end passes");
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        ensure!(pair.through(7777)? == 10);
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
        ensure!(pair.through(7777)? == 10);
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
        ensure!(alone.has_frags == (support::kernel()? >= (5, 18)), "{alone:?}");
        ensure!(alone.members[0].has_frags);
        xdp.attach(&interface, &mut counter()?, Mode::Native)?;
        let both = chain(&xdp, &interface)?;
        ensure!(!both.has_frags && both.members[1].has_frags && !both.members[0].has_frags);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
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

/// Where C libxdp looks for them.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_initial_namespace_keeps_the_classic_paths() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        ip("link add oxdp-near type veth peer name oxdp-far")?;
        let near = Interface::by_name(&Netns::current()?, "oxdp-near")?;
        let xdp = xdp()?;
        let attached = xdp.attach(&near, &mut counter()?, Mode::Unspecified)?;
        ensure!(attached.mode == Mode::Native, "the kernel's choice: {attached:?}");
        let name = format!("dispatch-{}-{}", near.index(), attached.dispatcher.unwrap());
        ensure!(attached.pins == Some(Path::new(BPFFS).join("xdp").join(name)), "{attached:?}");
        xdp.detach_all(&near)?;
        ip("link del oxdp-near")?;
    }
    baseline.assert_restored()
}

/// By the environment; and by a call, whatever that says.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_layout_is_chosen() -> Result<()> {
    for layout in ["legacy", "netns-inode", "auto"] {
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", "child_that_chooses_a_layout", "--ignored", "--nocapture"])
            .env("OXDP_PIN_LAYOUT", layout)
            .output()?;
        ensure!(output.status.success(), "{layout}: {output:?}");
    }
    Ok(())
}

/// By itself, without that environment, with the default.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn child_that_chooses_a_layout() -> Result<()> {
    let (xdp, pair) = (xdp()?, Pair::new("chosen", 10)?);
    let interface = pair.interface()?;
    let around = |xdp: &Xdp| -> Result<PathBuf> {
        let pins = xdp.attach(&interface, &mut counter()?, Mode::Native)?.pins.unwrap();
        xdp.detach_all(&interface)?;
        Ok(pins.parent().unwrap().to_owned())
    };
    let root = Path::new(BPFFS).join("xdp");
    let own = root.join(format!("netns-{}", interface.netns().inode()));
    let is_legacy = std::env::var("OXDP_PIN_LAYOUT").is_ok_and(|layout| layout == "legacy");
    ensure!(around(&xdp)? == *if is_legacy { &root } else { &own });
    ensure!(around(&xdp.with_layout(NetnsInode))? == own);
    ensure!(around(&xdp.with_layout(Legacy))? == root);
    Ok(())
}

/// A directory for each namespace below one for all, as an agent would want it.
#[derive(Debug)]
struct Agent;

impl PinLayout for Agent {
    fn scope(&self, netns: &NetnsId) -> PathBuf {
        format!("agent/pods/{}", netns.inode).into()
    }

    fn netns_inode(&self, scope: &Path) -> Option<u64> {
        scope.strip_prefix("agent/pods").ok()?.to_str()?.parse().ok()
    }
}

/// One that would have pins made outside of bpffs's `xdp`.
#[derive(Debug)]
struct Outside;

impl PinLayout for Outside {
    fn scope(&self, _: &NetnsId) -> PathBuf {
        "../elsewhere".into()
    }

    fn netns_inode(&self, _: &Path) -> Option<u64> {
        None
    }
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_layout_of_one_s_own() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("agent", 10)?;
        let interface = pair.interface()?;
        let agent = Xdp::builder().layout(Agent).build()?;
        agent.attach(&interface, &mut counter()?, Mode::Native)?;
        let scope = Agent.scope(interface.netns().id()?);
        let of_agent = chain(&agent, &interface)?;
        let pins = of_agent.pins.clone().unwrap();
        ensure!(pins.parent() == Some(Path::new(BPFFS).join("xdp").join(scope).as_path()));
        // Whoever does not know the layout finds the chain all the same, and leaves it where it is.
        let (other, mut second) = (xdp()?, filter(7777)?);
        ensure!(chain(&other, &interface)? == of_agent);
        other.attach(&interface, &mut second, Mode::Native)?;
        ensure!(chain(&other, &interface)?.pins.unwrap().parent() == pins.parent());
        agent.detach_all(&interface)?;

        let outside = Xdp::builder().layout(Outside).build()?;
        let error = outside.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::BadLayout(_)), "{error}");
    }
    baseline.assert_restored()
}

/// `examples/pod_layout.rs`: each pod's pins in a directory of its own, which goes with them; a dot in a UID does no harm.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn pods_have_their_own_pins() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pairs = [Pair::new("pod", 10)?, Pair::new("pod", 10)?];
        let uids = ["6c84fb90-12c4-11e1-840d-7b25c5ee775a", "static.pod"];
        let pods = pairs.iter().zip(uids);
        let arguments = pods.clone().map(|(pair, uid)| format!("{}={uid}", pair.near.name));
        let output = Command::new(example("pod_layout")?).arg("uplink").args(arguments).output()?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout)?;
        let xdp = xdp()?;
        let root = Path::new(BPFFS).join("xdp/pods");
        ensure!(said.lines().count() == uids.len(), "{said}");
        for ((pair, uid), line) in pods.zip(said.lines()) {
            let (interface, uid) = (pair.interface()?, uid.replace('.', "_"));
            let chain = chain(&xdp, &interface)?;
            let pins = chain.pins.as_deref().unwrap();
            ensure!(
                chain.is_whole() && pins.parent() == Some(root.join(&uid).as_path()),
                "{chain:?}"
            );
            ensure!(line == format!("{uid} {}", pins.display()), "{said}");
            xdp.detach_all(&interface)?;
        }
        ensure!(!root.exists());
    }
    baseline.assert_restored()
}

/// An example's binary, which lies beside the tests'.
fn example(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("target/PROFILE/deps/TEST")?;
    Ok(profile.join("examples").join(name))
}

/// A chain of Debian's C libxdp (protocol version 2): read, added to, and taken off.
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
        ensure!(pair.through(7777)? == 0);
        let mut counter = counter()?;
        xdp.attach(&interface, &mut counter, Mode::Native)?;
        let both = chain(&xdp, &interface)?;
        ensure!(names(&both) == ["packet_counter", "udp_filter"] && both.version == 2, "{both:?}");
        xdp.detach(&interface, theirs.members[0].component.as_ref().unwrap().id)?;
        ensure!(pair.through(7777)? == 10);
        xdp.detach(&interface, id(&counter))?;
    }
    baseline.assert_restored()
}
