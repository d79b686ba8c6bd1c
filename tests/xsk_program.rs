//! The default AF_XDP program: shared with others and with C libxdp, in chains and alone, and rid of by whoever comes after a
//! process that was killed. Alone on every kernel; the chains need freplace, so `make test` runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{
    DefaultProgram, EmptyDispatcher, ErrorKind, Interface, Legacy, Map, Mode, Occupant, Policy,
    Program, ProgramOptions, ProtocolVersion, RecoveryAction, SeenDefault, Xdp,
};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use support::lab::{Pair, UPLINK, ip, soon};
use support::peer::Peer;
use support::xsk::Xsk;
use support::{Baseline, chain, child, counter, filter, id, names};

const NATIVE: ProgramOptions = ProgramOptions { mode: Mode::Native, multi_buffer: false };
const FRAGS: ProgramOptions = ProgramOptions { mode: Mode::Native, multi_buffer: true };
/// The third is ours, as C programs have it.
const LIBRARIES: [(&str, ProtocolVersion); 3] =
    [("1.3", ProtocolVersion::V2), ("1.6", ProtocolVersion::V3), ("own", ProtocolVersion::V3)];

/// With a dispatcher or without, where C libxdp looks for pins and in its version.
fn xdp(policy: Policy, version: ProtocolVersion) -> Result<Xdp> {
    let builder = Xdp::builder().mount_bpffs(true).layout(Legacy).policy(policy);
    Ok(builder.protocol_version(version).build()?)
}

/// An interface, and what it takes to share its default program.
struct Bench {
    pair: Pair,
    interface: Interface,
    xdp: Xdp,
    policy: Policy,
}

impl Bench {
    fn new(role: &str, policy: Policy) -> Result<Self> {
        Self::in_version(role, policy, ProtocolVersion::V3)
    }

    fn in_version(role: &str, policy: Policy, version: ProtocolVersion) -> Result<Self> {
        let pair = Pair::new(role, 10)?;
        let (interface, xdp) = (pair.interface()?, xdp(policy, version)?);
        Ok(Self { pair, interface, xdp, policy })
    }

    fn join(&self) -> Result<DefaultProgram> {
        Ok(DefaultProgram::join(&self.xdp, &self.interface, &NATIVE)?)
    }

    fn peer(&self, library: &str) -> Result<Peer> {
        Peer::start(library, &self.pair.near.name)
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.xdp.inspect(&self.interface)? == Occupant::Empty)
    }

    /// The default programs that a recovery sees on the interface.
    fn seen(&self) -> Result<Vec<SeenDefault>> {
        let netns = self.interface.netns().id()?.clone();
        let inventory = self.xdp.inventory()?;
        let ours = inventory.namespaces.into_iter().filter(|seen| seen.id == netns);
        let interfaces = ours.flat_map(|seen| seen.interfaces);
        Ok(interfaces.flat_map(|interface| interface.defaults).collect())
    }

    /// The only one.
    fn only(&self) -> Result<SeenDefault> {
        let mut seen = self.seen()?;
        ensure!(seen.len() == 1, "{seen:?}");
        seen.pop().context("one")
    }

    fn counts(&self, expected: i32) -> Result<()> {
        let seen = self.only()?;
        ensure!(seen.count == Some(expected), "{expected} users, not {seen:?}");
        Ok(())
    }

    /// Sends ten packets, which are to come to a socket.
    fn reach(&self, socket: &mut Xsk) -> Result<()> {
        self.pair.send(4000, 10)?;
        let mut count = 0;
        let all = soon(|| {
            count += socket.received();
            Ok(count >= 10)
        })?;
        ensure!(all, "{count} packets of ten");
        Ok(())
    }

    /// What a recovery would take off.
    fn planned(&self) -> Result<Vec<u32>> {
        let plan = self.xdp.inventory()?.plan(EmptyDispatcher::Remove);
        let program = |line: &oxdp::PlanLine| match line.action {
            RecoveryAction::DropDefault { program, .. } => Some(program),
            _ => None,
        };
        Ok(plan.lines.iter().filter_map(program).collect())
    }

    fn recover(&self) -> Result<()> {
        let plan = self.xdp.inventory()?.plan(EmptyDispatcher::Remove);
        for applied in self.xdp.apply(&plan)? {
            ensure!(!matches!(applied.done, oxdp::Done::Failed(_)), "{applied:?}");
        }
        Ok(())
    }

    /// A map of a default program, in the kernel.
    fn map(&self, name: &str) -> Result<Map> {
        Ok(Program::from_id(self.only()?.program)?.map(name)?)
    }
}

/// Runs a test with a dispatcher, or without, and checks that nothing is left.
fn check(role: &str, policy: Policy, test: fn(&Bench) -> Result<()>) -> Result<()> {
    let baseline = Baseline::take()?;
    test(&Bench::new(role, policy)?)?;
    baseline.assert_restored()
}

macro_rules! alone_and_in_chains {
    ($($test:ident)*) => {
        mod alone {
            $(#[test]
            fn $test() -> anyhow::Result<()> {
                super::check("alone", super::Policy::Single, super::$test)
            })*
        }

        mod in_chains {
            $(#[test]
            #[ignore = "needs freplace; run in a VM by make test"]
            fn $test() -> anyhow::Result<()> {
                super::check("chained", super::Policy::Chain, super::$test)
            })*
        }
    };
}

alone_and_in_chains! {
    packets_reach_the_socket_of_their_queue
    the_last_of_several_takes_it_off
    a_killed_user_is_noticed_by_the_next
    a_killed_user_is_noticed_by_the_last
    a_killed_user_is_noticed_by_a_recovery
    who_is_there_without_a_socket_is_not_taken_for_dead
    a_program_about_to_go_is_joined_by_nobody
    fragments_are_read_when_asked_for
    many_come_and_go_at_once
    another_mode_is_refused
    c_libxdp_joins_ours_and_we_join_theirs
    a_killed_c_program_is_noticed
}

fn packets_reach_the_socket_of_their_queue(bench: &Bench) -> Result<()> {
    let mut socket = Xsk::bind(&bench.interface, 0)?;
    let program = bench.join()?;
    ensure!(program.mode() == Mode::Native && !program.has_frags() && program.queues() == 1);
    ensure!(bench.pair.through(4000)? == 10, "without a socket they pass");
    program.insert(0, socket.as_fd())?;
    bench.reach(&mut socket)?;
    ensure!(program.insert(1, socket.as_fd()).unwrap_err().errno() == Some(libc::E2BIG));
    ensure!(program.insert(0, std::io::stdin().as_fd()).is_err());
    program.remove(0)?;
    program.remove(0)?;
    ensure!(bench.pair.through(4000)? == 10);
    program.insert(0, socket.as_fd())?;
    if bench.policy == Policy::Chain {
        let chain = chain(&bench.xdp, &bench.interface)?;
        ensure!(names(&chain) == ["xsk_def_prog"] && chain.members[0].priority == 20);
    }
    program.leave()?;
    ensure!(bench.is_empty()? && bench.pair.through(4000)? == 10);
    Ok(())
}

fn the_last_of_several_takes_it_off(bench: &Bench) -> Result<()> {
    let mut socket = Xsk::bind(&bench.interface, 0)?;
    let [first, second, third] = [bench.join()?, bench.join()?, bench.join()?];
    bench.counts(3)?;
    second.insert(0, socket.as_fd())?;
    bench.reach(&mut socket)?;
    drop(first);
    third.leave()?;
    bench.counts(1)?;
    bench.reach(&mut socket)?;
    drop(second);
    ensure!(bench.is_empty()?);
    // One that was taken off behind our back.
    let program = bench.join()?;
    bench.xdp.detach(&bench.interface, bench.only()?.program)?;
    program.leave()?;
    ensure!(bench.is_empty()?);
    Ok(())
}

const VICTIM: &str = "OXDP_XSK_VICTIM";

/// Joins, and waits for its end; with a socket in the map if it is told so.
#[test]
#[ignore = "run by others, to be killed"]
fn victim() -> Result<()> {
    let Ok(how) = std::env::var(VICTIM) else { return Ok(()) };
    let mut words = how.split(' ');
    let mut word = || words.next().context("three words");
    let netns = oxdp::Netns::by_name(word()?)?;
    let policy = if word()? == "chain" { Policy::Chain } else { Policy::Single };
    let interface = Interface::by_name(&netns, UPLINK)?;
    let program = DefaultProgram::join(&xdp(policy, ProtocolVersion::V3)?, &interface, &NATIVE)?;
    let socket = match word()? {
        "socket" => Some(Xsk::bind(&interface, 0)?),
        _ => None,
    };
    if let Some(socket) = &socket {
        program.insert(0, socket.as_fd())?;
    }
    println!("joined");
    std::thread::sleep(std::time::Duration::from_secs(600));
    Ok(())
}

/// Whether all processes show what they have open, so that a user who is dead can be told from one who is not seen.
fn all_show() -> Result<bool> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let Ok(descriptors) = std::fs::read_dir(path.join("fd")) else {
            if name[0].is_ascii_digit() && path.exists() {
                return Ok(false);
            }
            continue;
        };
        let is_closed =
            |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        let mut links = descriptors.flatten().map(|entry| std::fs::read_link(entry.path()));
        if links.any(|link| link.is_err_and(is_closed)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where not all show it, the program of a killed user stays, and why is told.
fn left_alone(bench: &Bench) -> Result<()> {
    Victim::new(bench, "nothing")?.kill()?;
    let program = bench.join()?;
    bench.counts(2)?;
    program.leave()?;
    let seen = bench.only()?;
    ensure!(seen.in_use.is_some_and(|who| who.contains("do not show what they have open")));
    bench.recover()?;
    bench.counts(1)?;
    bench.xdp.detach(&bench.interface, seen.program)?;
    Ok(())
}

struct Victim(Child);

impl Victim {
    fn new(bench: &Bench, what: &str) -> Result<Self> {
        let policy = if bench.policy == Policy::Chain { "chain" } else { "single" };
        let how = format!("{} {policy} {what}", bench.pair.near.name);
        let mut process = child("victim").env(VICTIM, how).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(process.stdout.take().context("stdout")?).lines();
        let victim = Self(process);
        for line in lines {
            if line?.contains("joined") {
                return Ok(victim);
            }
        }
        bail!("the victim did not join")
    }

    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_killed_user_is_noticed_by_the_next(bench: &Bench) -> Result<()> {
    if !all_show()? {
        return left_alone(bench);
    }
    for what in ["socket", "nothing"] {
        let victims = [Victim::new(bench, what)?, Victim::new(bench, "nothing")?];
        bench.counts(2)?;
        victims.into_iter().try_for_each(Victim::kill)?;
        bench.counts(2)?;
        let program = bench.join()?;
        bench.counts(1)?;
        program.leave()?;
        ensure!(bench.is_empty()?);
    }
    Ok(())
}

fn a_killed_user_is_noticed_by_the_last(bench: &Bench) -> Result<()> {
    if !all_show()? {
        return left_alone(bench);
    }
    let survivor = bench.join()?;
    let victim = Victim::new(bench, "socket")?;
    let other = bench.join()?;
    bench.counts(3)?;
    victim.kill()?;
    other.leave()?;
    bench.counts(2)?;
    survivor.leave()?;
    ensure!(bench.is_empty()?);
    Ok(())
}

fn a_killed_user_is_noticed_by_a_recovery(bench: &Bench) -> Result<()> {
    if !all_show()? {
        return left_alone(bench);
    }
    let victim = Victim::new(bench, "socket")?;
    let seen = bench.only()?;
    let in_use = seen.in_use.clone().context("in use")?;
    ensure!(in_use.contains("socket") && bench.planned()?.is_empty(), "{in_use}");
    victim.kill()?;
    ensure!(bench.only()?.in_use.is_none() && bench.planned()? == [seen.program]);
    // Somebody comes between the plan and its execution.
    let plan = bench.xdp.inventory()?.plan(EmptyDispatcher::Remove);
    let program = bench.join()?;
    let applied = bench.xdp.apply(&plan)?;
    let outdated =
        |done: &oxdp::Done| matches!(done, oxdp::Done::Outdated { why } if why.contains("in use"));
    ensure!(applied.iter().any(|applied| outdated(&applied.done)), "{applied:?}");
    bench.counts(1)?;
    drop(program);
    ensure!(bench.is_empty()?);
    Victim::new(bench, "nothing")?.kill()?;
    bench.recover()?;
    ensure!(bench.is_empty()? && bench.seen()?.is_empty());
    Ok(())
}

fn who_is_there_without_a_socket_is_not_taken_for_dead(bench: &Bench) -> Result<()> {
    if !all_show()? {
        return left_alone(bench);
    }
    let victim = Victim::new(bench, "nothing")?;
    ensure!(bench.planned()?.is_empty());
    let program = bench.join()?;
    bench.counts(2)?;
    program.leave()?;
    bench.counts(1)?;
    // Nor is one whose map waits in a bpf file system.
    let map = bench.map("xsks_map")?;
    let path = std::path::Path::new(support::BPFFS).join("oxdp-test-pinned");
    let pin = std::ffi::CString::new(path.to_str().context("a path")?)?;
    // SAFETY: the path ends in NUL, and the descriptor is open.
    let pinned = unsafe {
        libbpf_sys::bpf_obj_pin(std::os::fd::AsRawFd::as_raw_fd(&map.as_fd()), pin.as_ptr())
    };
    drop(map);
    victim.kill()?;
    let planned = bench.planned();
    let seen = bench.only();
    std::fs::remove_file(&path)?;
    ensure!(pinned == 0 && planned?.is_empty());
    let in_use = seen?.in_use.context("in use")?;
    ensure!(in_use.contains("oxdp-test-pinned"), "{in_use}");
    bench.recover()?;
    ensure!(bench.is_empty()?);
    Ok(())
}

fn a_program_about_to_go_is_joined_by_nobody(bench: &Bench) -> Result<()> {
    Victim::new(bench, "nothing")?.kill()?;
    let old = bench.only()?.program;
    bench.map("xsk_def_.data")?.update(&[0; 4], &0_i32.to_ne_bytes())?;
    let program = bench.join()?;
    let new = bench.only()?;
    ensure!(new.program != old && new.count == Some(1), "{new:?}");
    program.leave()?;
    ensure!(bench.is_empty()?);
    Ok(())
}

fn fragments_are_read_when_asked_for(bench: &Bench) -> Result<()> {
    let mut socket = Xsk::bind(&bench.interface, 0)?;
    let plain = bench.join()?;
    let first = bench.only()?.program;
    plain.insert(0, socket.as_fd())?;
    if bench.policy == Policy::Single && !all_show()? {
        // Somebody may go by the program's id.
        let error = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NoFrags { .. }), "{error}");
        return Ok(plain.leave()?);
    }
    let frags = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS)?;
    let again = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS)?;
    bench.counts(3)?;
    let can = support::kernel()? >= (5, 18);
    ensure!(!plain.has_frags() && frags.has_frags() == can && again.has_frags() == can);
    // In a chain its slot says so, and it stays what it is.
    let is_same = bench.only()?.program == first;
    ensure!(is_same == (!can || bench.policy == Policy::Chain));
    bench.reach(&mut socket)?;
    if can {
        // Its MTU would be too large for one that reads none.
        ip(&format!("-n {} link set {UPLINK} mtu 9000", bench.pair.near.name))?;
    }
    plain.leave()?;
    frags.leave()?;
    again.leave()?;
    ensure!(bench.is_empty()?);
    let fresh = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS)?;
    ensure!(fresh.has_frags() == can);
    let other = bench.join()?;
    ensure!(other.has_frags() == can || bench.policy == Policy::Single);
    drop((other, fresh));
    ensure!(bench.is_empty()?);
    Ok(())
}

fn many_come_and_go_at_once(bench: &Bench) -> Result<()> {
    let come_and_go = || {
        for _ in 0..5 {
            bench.join()?.leave()?;
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(come_and_go)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    ensure!(bench.is_empty()?, "{:?}", bench.seen()?);
    Ok(())
}

fn another_mode_is_refused(bench: &Bench) -> Result<()> {
    let program = bench.join()?;
    let options = ProgramOptions { mode: Mode::Skb, ..NATIVE };
    let error = DefaultProgram::join(&bench.xdp, &bench.interface, &options).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::ModeConflict { .. }), "{error}");
    let any = DefaultProgram::join(&bench.xdp, &bench.interface, &ProgramOptions::default())?;
    ensure!(any.mode() == Mode::Native);
    bench.counts(2)?;
    drop((program, any));
    ensure!(bench.is_empty()?);
    Ok(())
}

/// C libxdp makes chains of its own version only, and finds no program in others.
fn with_peers(bench: &Bench, test: impl Fn(&Bench, &mut Peer) -> Result<()>) -> Result<()> {
    for (library, version) in LIBRARIES {
        let bench = Bench::in_version("peers", bench.policy, version)?;
        let mut peer = bench.peer(library)?;
        test(&bench, &mut peer).with_context(|| format!("libxdp {library}"))?;
    }
    Ok(())
}

fn create(peer: &mut Peer) -> Result<String> {
    let lines = peer.tell(&format!("xsk-create {UPLINK} 0 native"))?;
    Ok(lines[0].strip_prefix("socket ").context("a number")?.to_owned())
}

fn their_socket_is_reached(bench: &Bench, peer: &mut Peer, socket: &str) -> Result<()> {
    bench.pair.send(4000, 10)?;
    let mut count = 0;
    let all = soon(|| {
        let lines = peer.tell(&format!("xsk-received {socket}"))?;
        count += lines[0].strip_prefix("received ").context("a number")?.parse::<u32>()?;
        Ok(count >= 10)
    })?;
    ensure!(all, "{count} packets of ten");
    Ok(())
}

fn c_libxdp_joins_ours_and_we_join_theirs(bench: &Bench) -> Result<()> {
    with_peers(bench, |bench, peer| {
        // Theirs; without a dispatcher only where the kernel has none.
        let socket = create(peer)?;
        let theirs = bench.only()?.program;
        let program = bench.join()?;
        let two = bench.only()?;
        ensure!(two.count == Some(2) && two.program == theirs, "{two:?}");
        their_socket_is_reached(bench, peer, &socket)?;
        program.leave()?;
        bench.counts(1)?;
        let program = bench.join()?;
        peer.tell(&format!("xsk-delete {socket}"))?;
        bench.counts(1)?;
        program.leave()?;
        ensure!(bench.is_empty()?, "{:?}", bench.seen()?);
        // Ours.
        let program = bench.join()?;
        let ours = bench.only()?.program;
        let socket = create(peer)?;
        let two = bench.only()?;
        ensure!(two.count == Some(2) && two.program == ours, "{two:?}");
        their_socket_is_reached(bench, peer, &socket)?;
        program.leave()?;
        bench.counts(1)?;
        their_socket_is_reached(bench, peer, &socket)?;
        peer.tell(&format!("xsk-delete {socket}"))?;
        ensure!(bench.is_empty()?, "{:?}", bench.seen()?);
        Ok(())
    })
}

fn a_killed_c_program_is_noticed(bench: &Bench) -> Result<()> {
    if !all_show()? {
        return left_alone(bench);
    }
    for (library, version) in LIBRARIES {
        let bench = Bench::in_version("killed", bench.policy, version)?;
        let mut peer = bench.peer(library)?;
        create(&mut peer)?;
        ensure!(bench.planned()?.is_empty());
        drop(peer);
        let program = bench.join()?;
        bench.counts(1)?;
        program.leave()?;
        ensure!(bench.is_empty()?);
        let mut peer = bench.peer(library)?;
        create(&mut peer)?;
        drop(peer);
        bench.recover()?;
        ensure!(bench.is_empty()?, "{:?}", bench.seen()?);
    }
    Ok(())
}

/// C libxdp takes off by its id the one that it has open.
#[test]
fn alone_no_other_takes_the_place_of_what_c_libxdp_has_open() -> Result<()> {
    if support::kernel()? < (5, 18) {
        return Ok(());
    }
    let baseline = Baseline::take()?;
    {
        let bench = Bench::new("open", Policy::Single)?;
        let program = bench.join()?;
        let mut peer = bench.peer("1.6")?;
        let socket = create(&mut peer)?;
        let error = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NoFrags { .. }), "{error}");
        bench.counts(2)?;
        program.leave()?;
        peer.tell(&format!("xsk-delete {socket}"))?;
        ensure!(bench.is_empty()?);
    }
    baseline.assert_restored()
}

#[test]
fn somebody_else_s_program_is_left_alone() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let bench = Bench::new("foreign", Policy::Single)?;
        let mut other = counter()?;
        bench.xdp.attach(&bench.interface, &mut other, Mode::Native)?;
        let error = DefaultProgram::join(&bench.xdp, &bench.interface, &NATIVE).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::ForeignProgram(_)), "{error}");
        bench.xdp.detach(&bench.interface, id(&other))?;
        ensure!(bench.seen()?.is_empty());
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn it_has_its_place_among_others() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let bench = Bench::new("among", Policy::Chain)?;
        let mut socket = Xsk::bind(&bench.interface, 0)?;
        let (mut first, mut last) = (filter(7777)?, counter()?);
        last.set_priority(30);
        bench.xdp.attach_all(&bench.interface, &mut [&mut last, &mut first], Mode::Native)?;
        let program = DefaultProgram::join(&bench.xdp, &bench.interface, &FRAGS)?;
        ensure!(!program.has_frags(), "the others read none");
        let order = names(&chain(&bench.xdp, &bench.interface)?).join(" ");
        ensure!(order == "udp_filter xsk_def_prog packet_counter", "{order}");
        ensure!(bench.pair.through(4000)? == 10 && bench.pair.through(7777)? == 0);
        program.insert(0, socket.as_fd())?;
        bench.reach(&mut socket)?;
        Victim::new(&bench, "nothing")?.kill()?;
        program.leave()?;
        ensure!(bench.seen()?.is_empty());
        ensure!(names(&chain(&bench.xdp, &bench.interface)?).len() == 2);
        // Out of a chain that others are in, a recovery takes only what nobody uses.
        Victim::new(&bench, "nothing")?.kill()?;
        bench.recover()?;
        ensure!(names(&chain(&bench.xdp, &bench.interface)?) == ["udp_filter", "packet_counter"]);
        bench.xdp.detach_all(&bench.interface)?;
    }
    baseline.assert_restored()
}

#[test]
fn its_map_has_room_for_every_queue() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let bench = Bench::new("queues", Policy::Single)?;
        let near = &bench.pair.near.name;
        ip(&format!(
            "-n {near} link add many numrxqueues 3 numtxqueues 5 type veth peer name other numrxqueues 5 numtxqueues 3"
        ))?;
        let many = Interface::by_name(bench.interface.netns(), "many")?;
        let options = ProgramOptions { mode: Mode::Skb, multi_buffer: false };
        let program = DefaultProgram::join(&bench.xdp, &many, &options)?;
        ensure!(program.queues() == 5, "{}", program.queues());
        // Its interface goes.
        ip(&format!("-n {near} link del many"))?;
        program.leave()?;
        let lo = Interface::by_name(bench.interface.netns(), "lo")?;
        let program = DefaultProgram::join(&bench.xdp, &lo, &options)?;
        ensure!(program.queues() == 1);
        // In another namespace than this thread's, and renamed.
    }
    baseline.assert_restored()
}
