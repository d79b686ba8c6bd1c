//! `examples/netns_agent`: its policy is true on namespaces and devices that come and go, while it is killed and started
//! again. The tests that need freplace run in VMs; the others anywhere.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Chain, Features, Interface, Mode, Netns, Occupant, Xdp};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::lab::{Pair, UPLINK, ip, received, soon};
use support::{Baseline, counter, names, object, xdp};
use tempfile::TempDir;

const BLOCKED: u16 = 7777;
const OTHER: u16 = 7778;
const OPEN: u16 = 8888;
/// Where agents of this name have their programs.
const NAME: &str = "test";
const STOCK: &str = "/sys/fs/bpf/netns-agent";
/// What it says of a policy that it takes.
const IN_FORCE: &str = ": in force, with ";

/// The example, which lies beside the tests. Cargo builds it only when asked: under it we do so, and in a VM it was
/// built before.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("the target directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", "netns_agent"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success());
    }
    Ok(profile.join("examples/netns_agent"))
}

/// A policy's file and what the agents that run it have said.
struct Lab {
    folder: TempDir,
    binary: PathBuf,
}

impl Lab {
    fn new(policy: &str) -> Result<Self> {
        let lab = Self { folder: tempfile::tempdir()?, binary: binary()? };
        lab.write(policy)?;
        Ok(lab)
    }

    fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    fn write(&self, policy: &str) -> Result<()> {
        Ok(fs::write(self.policy(), policy)?)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log())?)
    }

    /// How often something was said.
    fn count(&self, words: &str) -> Result<usize> {
        Ok(self.said()?.matches(words).count())
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(self.policy()).args(["--name", NAME]).args(arguments.split_whitespace());
        command.stdin(Stdio::null());
        command
    }

    /// Runs an agent that ends by itself.
    fn run(&self, arguments: &str) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    fn once(&self) -> Result<()> {
        let output = self.run("--once")?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    fn spawn(&self, arguments: &str) -> Result<Agent> {
        let log = File::options().create(true).append(true).open(self.log())?;
        Ok(Agent(self.command(arguments).stderr(log).spawn()?))
    }

    /// An agent whose policy is in force.
    fn start(&self, arguments: &str) -> Result<Agent> {
        let agent = self.spawn(arguments)?;
        let is_up = || Ok(self.count(IN_FORCE)? > 0);
        // Its programs wait for RCU of a kernel that may have little of a processor.
        ensure!(soon(is_up)? || soon(is_up)? || soon(is_up)?, "{}", self.said()?);
        Ok(agent)
    }
}

/// An agent that runs. Killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.0.id().to_string();
        ensure!(Command::new("kill").args([name, &pid]).status()?.success());
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        Ok(self.0.wait().map(drop)?)
    }

    /// Ends it, which must succeed.
    fn end(mut self) -> Result<()> {
        self.signal("-TERM")?;
        let status = self.0.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A filter against a port on every interface of that name in namespaces of our labs.
fn filter_on(port: u16, priority: u32, interfaces: &str) -> String {
    let object = object("udp_filter.o");
    format!(
        "[[program]]
         name = 'filter'
         object = '{}'
         priority = {priority}
         globals = {{ blocked_port = {port} }}
         on = [{{ netns = ['oxdp-agent-*'], interfaces = ['{interfaces}'] }}]\n",
        object.display()
    )
}

/// A policy with another object in the place of the filter's.
fn with(policy: &str, other: &Path) -> String {
    policy.replace(&*object("udp_filter.o").to_string_lossy(), &other.to_string_lossy())
}

fn counter_on(interfaces: &str) -> String {
    filter_on(0, 20, interfaces)
        .replace("udp_filter", "packet_counter")
        .replace("'filter'", "'counter'")
        .replace("globals = { blocked_port = 0 }", "")
}

fn is(chain: Option<&Chain>, expected: &[&str]) -> bool {
    chain.map(names).unwrap_or_default() == expected
}

/// Whether these programs are soon on an interface, and what is there if not.
fn becomes(xdp: &Xdp, interface: &Interface, expected: &[&str]) -> Result<Option<Chain>> {
    let find = || Ok::<_, anyhow::Error>(xdp.inspect(interface)?.chain().cloned());
    let came = soon(|| Ok(is(find()?.as_ref(), expected)))?;
    let found = find()?;
    ensure!(came, "{expected:?}, but {found:?}");
    Ok(found)
}

fn chain_becomes(xdp: &Xdp, interface: &Interface, expected: &[&str]) -> Result<Chain> {
    becomes(xdp, interface, expected)?.context("a chain")
}

fn ids(chain: &Chain) -> Vec<u32> {
    let members = chain.members.iter();
    members.map(|member| member.component.as_ref().map_or(0, |component| component.id)).collect()
}

/// Fails if anything is left, after the last agent has taken out what it had put in.
fn nothing_is_left(baseline: &Baseline) -> Result<()> {
    ensure!(!Path::new(STOCK).exists(), "{STOCK} is left");
    baseline.assert_restored()
}

/// Takes out all that agents have put in.
fn clear(lab: &Lab) -> Result<()> {
    lab.write("")?;
    lab.once()
}

fn fails(output: &Output, words: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.lines().count() == 1 && said.starts_with("netns_agent: error: "), "{said}");
    ensure!(said.contains(words), "{said:?} has no {words:?}");
    Ok(())
}

#[test]
fn a_policy_that_is_wrong_is_told_in_one_line() -> Result<()> {
    let lab = Lab::new("")?;
    let good = filter_on(BLOCKED, 10, UPLINK);
    for (policy, words) in [
        ("nonsense".to_owned(), "policy.toml: line 1: "),
        (good.replace("priority", "prio"), "line 4: unknown field `prio`"),
        (with(&good, Path::new("absent.o")), "absent.o: No such file"),
        (good.replace("7777", "70000"), "it has 2 bytes, the value 8"),
        (good.replace("blocked_port", "port"), "nothing called port in the object"),
        (good.replace("priority = 10", "function = 'absent'"), "it has udp_filter"),
        (with(&good, &object("two_programs.o")), "several programs"),
        (with(&good, Path::new("/etc/passwd")), "not a usable"),
    ] {
        lab.write(&policy)?;
        for mode in ["--once", "--dry-run", ""] {
            fails(&lab.run(mode)?, words)?;
        }
    }
    fs::remove_file(lab.policy())?;
    fails(&lab.run("--once")?, "policy.toml: No such file")
}

#[test]
fn wrong_words_are_told_before_anything_is_done() -> Result<()> {
    let lab = Lab::new("")?;
    for words in ["--period 0", "--layout other", "--name a.b", "--name a/b", "more words"] {
        let output = lab.run(words)?;
        ensure!(output.status.code() == Some(2), "{words}: {output:?}");
    }
    let help = String::from_utf8(lab.run("--help")?.stdout)?;
    ensure!(help.contains("SIGHUP") && help.contains("--detach-on-exit"), "{help}");
    Ok(())
}

/// Where no programs can be chained, that is said, and nothing is done.
#[test]
fn a_kernel_without_freplace_is_told() -> Result<()> {
    let lab = Lab::new(&filter_on(BLOCKED, 10, UPLINK))?;
    let Err(error) = Features::probe()?.require_freplace() else { return Ok(()) };
    for mode in ["--once", "--dry-run", ""] {
        fails(&lab.run(mode)?, &error.to_string())?;
    }
    ensure!(!Path::new(STOCK).exists());
    Ok(())
}

#[test]
fn what_is_no_bpf_file_system_is_told() -> Result<()> {
    let lab = Lab::new("")?;
    if Features::probe()?.require_freplace().is_ok() {
        fails(&lab.run("--once --bpffs /tmp")?, "/tmp: not a bpf file system")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn new_namespaces_get_their_filter_and_deleted_ones_leave_nothing() -> Result<()> {
    let baseline = Baseline::take()?;
    let lab = Lab::new(&(filter_on(BLOCKED, 10, UPLINK) + &counter_on(UPLINK)))?;
    let agent = lab.start("--period 3 --detach-on-exit")?;
    let xdp = xdp()?;
    for round in 0..3 {
        let pair = Pair::new("agent", 10)?;
        let start = Instant::now();
        becomes(&xdp, &pair.interface()?, &["udp_filter", "packet_counter"])?;
        ensure!(start.elapsed() < Duration::from_secs(5), "{round}: {:?}", start.elapsed());
        ensure!(pair.through(BLOCKED)? == 0 && pair.through(OPEN)? == 10);
        // The agent watches the namespace, and lets go of it.
        let Pair { near, far, .. } = pair;
        drop(near);
        let list =
            || Netns::by_name(&far.name)?.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
        ensure!(soon(|| Ok(!list()??.contains("wire:")))?, "it is kept alive: {}", list()??);
    }
    ensure!(lab.count("error")? == 0, "{}", lab.said()?);
    // Their pins are removed with the next look at everything.
    ensure!(soon(|| Ok(support::pins()? == baseline.pins()))?, "{:?}", support::pins()?);
    agent.end()?;
    nothing_is_left(&baseline)
}

/// One that only a process keeps is looked at from time to time, and does not live longer for it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_namespace_without_a_name_is_looked_at() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let policy = filter_on(BLOCKED, 10, "inner").replace("oxdp-agent-*", "pid *");
        let (lab, xdp) = (Lab::new(&policy)?, xdp()?);
        let mut process = Command::new("unshare").args(["--net", "sleep", "600"]).spawn()?;
        let (pid, own) = (process.id(), Netns::current()?);
        ensure!(soon(|| Ok(Netns::from_pid(pid)? != own))?);
        ip(&format!("link add outer type veth peer name inner netns {pid}"))?;
        let agent = lab.start("--period 1 --detach-on-exit")?;
        becomes(&xdp, &Interface::by_name(&Netns::from_pid(pid)?, "inner")?, &["udp_filter"])?;
        process.kill()?;
        process.wait()?;
        ensure!(soon(|| Ok(!Path::new("/sys/class/net/outer").exists()))?, "it is kept alive");
        agent.end()?;
    }
    nothing_is_left(&baseline)
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_device_that_is_renamed_comes_under_the_policy_and_leaves_it() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new(&filter_on(BLOCKED, 10, "up*"))?;
        let agent = lab.start("--detach-on-exit")?;
        let (xdp, pair) = (xdp()?, Pair::new("agent", 10)?);
        let interface = pair.interface()?;
        let first = chain_becomes(&xdp, &interface, &["udp_filter"])?;
        let rename = |from: &str, to: &str| {
            // A device is renamed when it is down, on kernels before 6.2.
            let n = &pair.near.name;
            ip(&format!("-n {n} link set {from} down"))?;
            ip(&format!("-n {n} link set {from} name {to}"))?;
            ip(&format!("-n {n} link set {to} up"))
        };
        rename(UPLINK, "lan0")?;
        becomes(&xdp, &interface, &[])?;
        rename("lan0", UPLINK)?;
        let again = chain_becomes(&xdp, &interface, &["udp_filter"])?;
        ensure!(ids(&again) == ids(&first), "the program stays loaded: {first:?} {again:?}");
        agent.end()?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    nothing_is_left(&baseline)
}

/// Policies follow one another while others' programs are in the same chain, and are never touched.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_new_policy_is_taken_and_a_broken_one_is_not() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new(&filter_on(BLOCKED, 10, UPLINK))?;
        let (xdp, pair) = (xdp()?, Pair::new("agent", 10)?);
        let interface = pair.interface()?;
        let mut foreign = support::filter(1)?;
        xdp.attach(&interface, &mut foreign, Mode::Native)?;
        let foreign = support::id(&foreign);
        let agent = lab.start("--detach-on-exit")?;
        let first = ids(&chain_becomes(&xdp, &interface, &["udp_filter", "udp_filter"])?);
        ensure!(first.contains(&foreign), "{first:?}");
        let own = *first.iter().find(|id| **id != foreign).unwrap();

        // Another place for the same program.
        let take = |policy: &str, round: usize| {
            lab.write(policy)?;
            agent.signal("-HUP")?;
            ensure!(soon(|| Ok(lab.count(IN_FORCE)? == 1 + round))?, "{}", lab.said()?);
            Ok(())
        };
        take(&filter_on(BLOCKED, 99, UPLINK), 1)?;
        let last = |id: u32, priority: u32| {
            let chain = xdp.inspect(&interface)?.chain().cloned().context("a chain")?;
            let member = chain.members.last().context("a member")?;
            let is_it = member.component.as_ref().is_some_and(|component| component.id == id);
            Ok(is_it && member.priority == priority)
        };
        ensure!(soon(|| last(own, 99))?, "{:?}", xdp.inspect(&interface)?);

        // Another program in the same place.
        take(&filter_on(OTHER, 99, UPLINK), 2)?;
        ensure!(soon(|| Ok(pair.through(OTHER)? == 0 && pair.through(BLOCKED)? == 10))?);
        let second = ids(&support::chain(&xdp, &interface)?);
        ensure!(second[0] == foreign && second[1] != own && second.len() == 2, "{second:?}");

        let rejected = with(&filter_on(OTHER, 10, UPLINK), &object("rejected.o"));
        let rejected = rejected.replace("globals = { blocked_port = 7778 }", "");
        for (round, broken) in [(1, "nonsense"), (2, rejected.as_str())] {
            lab.write(broken)?;
            agent.signal("-HUP")?;
            let said = soon(|| Ok(lab.count("old policy stays in force")? == round))?;
            ensure!(said, "{}", lab.said()?);
            ensure!(ids(&support::chain(&xdp, &interface)?) == second && pair.through(OTHER)? == 0);
        }
        ensure!(lab.count("error: the new policy: ")? == 2, "{}", lab.said()?);

        take("", 3)?;
        let rest = chain_becomes(&xdp, &interface, &["udp_filter"])?;
        ensure!(ids(&rest) == [foreign]);
        agent.end()?;
        xdp.detach(&interface, foreign)?;
    }
    nothing_is_left(&baseline)
}

/// What another agent, a restart or a dry run finds right is not touched: not even the dispatcher is another one.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_is_right_already_is_left_as_it_is() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new(&(filter_on(BLOCKED, 10, UPLINK) + &counter_on(UPLINK)))?;
        let (xdp, pair) = (xdp()?, Pair::new("agent", 10)?);
        let interface = pair.interface()?;
        let dry = lab.run("--dry-run")?;
        let told = String::from_utf8(dry.stdout)?;
        ensure!(dry.status.success() && told.contains(": attach filter\n"), "{told}");
        ensure!(xdp.inspect(&interface)? == Occupant::Empty && !Path::new(STOCK).exists());
        lab.once()?;
        let before = support::chain(&xdp, &interface)?;
        let dry = lab.run("--dry-run")?;
        ensure!(dry.status.success() && dry.stdout.is_empty(), "{dry:?}");
        lab.once()?;
        let agent = lab.start("")?;
        fails(&lab.run("--once")?, "another agent of this name runs")?;
        agent.end()?;
        ensure!(support::chain(&xdp, &interface)? == before);
        clear(&lab)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    nothing_is_left(&baseline)
}

/// An interface that cannot have what it should is told once; the others have it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn trouble_with_one_interface_is_told_once_and_does_not_stop_the_others() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new(&filter_on(BLOCKED, 10, UPLINK))?;
        let (xdp, pairs) = (xdp()?, [Pair::new("agent", 10)?, Pair::new("agent", 10)?]);
        let [taken, free] = [pairs[0].interface()?, pairs[1].interface()?];
        let alone = Xdp::builder().policy(oxdp::Policy::Single).build()?;
        let mut foreign = counter()?;
        alone.attach(&taken, &mut foreign, Mode::Native)?;
        let output = lab.run("--once")?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        becomes(&xdp, &free, &["udp_filter"])?;
        let agent = lab.start("--period 1 --detach-on-exit")?;
        let said = format!("error: {UPLINK} in netns {}: ", pairs[0].near.name);
        ensure!(soon(|| Ok(lab.count(&said)? == 1))?, "{}", lab.said()?);
        std::thread::sleep(Duration::from_secs(3));
        ensure!(lab.count(&said)? == 1 && lab.count("error")? == 1, "{}", lab.said()?);
        ensure!(matches!(xdp.inspect(&taken)?, Occupant::Foreign(_)));
        alone.detach(&taken, support::id(&foreign))?;
        becomes(&xdp, &taken, &["udp_filter"])?;
        ensure!(soon(|| Ok(lab.count("all is well again")? == 1))?, "{}", lab.said()?);
        // Who takes it off by hand does not get far.
        xdp.detach_all(&taken)?;
        becomes(&xdp, &taken, &["udp_filter"])?;
        agent.end()?;
    }
    nothing_is_left(&baseline)
}

/// Pins that are removed under the agent, as C's `clean` does it from another namespace.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn lost_pins_are_made_good() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new(&filter_on(BLOCKED, 10, UPLINK))?;
        let agent = lab.start("--period 1 --detach-on-exit")?;
        let (xdp, pair) = (xdp()?, Pair::new("agent", 10)?);
        let interface = pair.interface()?;
        for _ in 0..2 {
            let chain = chain_becomes(&xdp, &interface, &["udp_filter"])?;
            support::remove_pins(&chain.pins.unwrap())?;
            ensure!(soon(|| Ok(support::chain(&xdp, &interface).is_ok_and(|c| c.is_whole())))?);
            ensure!(soon(|| Ok(pair.through(BLOCKED)? == 0))?);
        }
        support::remove_pins(&Path::new(STOCK).join(NAME))?;
        ensure!(soon(|| Ok(lab.count("pinned again")? == 1))?, "{}", lab.said()?);
        agent.end()?;
    }
    nothing_is_left(&baseline)
}

/// Kills the agent again and again while it changes one policy for another. Both block the port, so whatever state it is
/// killed in, nothing gets through.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_killed_agent_never_opens_the_firewall() -> Result<()> {
    const INTERFACES: usize = 3;
    const ROUNDS: u64 = 40;
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new("")?;
        let filter = fs::read(object("udp_filter.o"))?;
        let changed = lab.folder.path().join("changed.o");
        fs::write(&changed, [&filter[..], b"more"].concat())?;
        let (old, new) = (filter_on(BLOCKED, 10, UPLINK), filter_on(BLOCKED, 30, UPLINK));
        let policies = [
            old.clone() + &counter_on(UPLINK),
            // Another version, in another place.
            with(&new, &changed),
            // Another rule.
            counter_on(UPLINK) + &new.replace("'filter'", "'firewall'"),
        ];
        lab.write(&policies[0])?;
        let (xdp, pairs) = (xdp()?, (0..INTERFACES).map(|_| Pair::new("agent", 10)));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        lab.once()?;
        let sockets = pairs.iter().map(|pair| pair.listen(BLOCKED)).collect::<Result<Vec<_>>>()?;
        let mut agent = lab.spawn("")?;
        for round in 0..ROUNDS {
            lab.write(&policies[usize::try_from(round)? % policies.len()])?;
            agent.signal("-HUP")?;
            let end = Instant::now() + Duration::from_millis(round * 37 % 400);
            while Instant::now() < end {
                pairs.iter().try_for_each(|pair| pair.send(BLOCKED, 5))?;
                std::thread::sleep(Duration::from_millis(2));
            }
            agent.kill()?;
            for (pair, socket) in pairs.iter().zip(&sockets) {
                pair.send(BLOCKED, 5)?;
                ensure!(received(socket)? == 0, "round {round}: {}", lab.said()?);
                ensure!(pair.through(OPEN)? == 10, "round {round}");
            }
            agent = lab.spawn("")?;
        }
        drop(sockets);
        lab.write(&policies[0])?;
        agent.kill()?;
        lab.once()?;
        for pair in &pairs {
            becomes(&xdp, &pair.interface()?, &["udp_filter", "packet_counter"])?;
            ensure!(pair.through(BLOCKED)? == 0);
        }
        clear(&lab)?;
    }
    nothing_is_left(&baseline)
}
