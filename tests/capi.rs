//! C programs do not notice which libxdp they run with: the same binaries, compiled against Debian's headers, say the same of
//! every call with C libxdp 1.3.1, with 1.6, and with ours. What differs is in [`ALLOWED`], with the reason.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "capi/allowed.rs"]
mod allowed;
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use allowed::ALLOWED;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::lab::{Namespace, ip, soon};
use support::{Baseline, kernel};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    V1_3,
    V1_6,
    Own,
}

use Library::{Own, V1_3, V1_6};

impl Library {
    fn name(self) -> &'static str {
        match self {
            V1_3 => "1.3",
            V1_6 => "1.6",
            Own => "own",
        }
    }

    /// Where the file is, without links.
    fn is_at(self, path: &Path) -> bool {
        match self {
            V1_3 => path.starts_with("/usr/lib") && is_named(path, "libxdp.so.1.3"),
            V1_6 => path.starts_with(real(&target().join("peers/1.6"))),
            Own => path.starts_with(real(&target().join("capi/lib"))),
        }
    }

    /// What starts a C program with this library, and nothing of the environment that would lead it elsewhere.
    fn command(self, program: &str) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let program = text(target().join("capi/same").join(program));
        let peer = target().join("peers/1.6");
        // As in tests/peers/run.
        let objects = |path: PathBuf| format!("LIBXDP_OBJECT_PATH={}", path.display());
        let mut command = vec!["env".to_owned()];
        match self {
            V1_3 => command.push(objects(PathBuf::from("/usr/lib/x86_64-linux-gnu/bpf"))),
            V1_6 => {
                let loader = peer.join("ld-linux-x86-64.so.2");
                command.extend([objects(peer.join("bpf")), text(loader)]);
                command.extend(["--library-path".to_owned(), text(peer)]);
            }
            Own => command.push(format!("LD_LIBRARY_PATH={}", text(target().join("capi/lib")))),
        }
        command.push(program);
        command
    }
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path))
}

/// Builds our library and the programs; in a VM, which has no compiler, tests/suite has done so.
fn build() -> Result<()> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capi/same/build");
    let built =
        BUILT.get_or_init(|| Command::new(script).status().is_ok_and(|status| status.success()));
    ensure!(built, "tests/capi/same/build has failed");
    Ok(())
}

fn require_build() -> Result<()> {
    let there = target().join("capi/same/sockets").exists();
    ensure!(there, "the C programs are not built: run tests/capi/same/build");
    Ok(())
}

/// Two namespaces, and two wires between them, of two queues and of one.
struct Lab {
    near: Namespace,
    far: Namespace,
}

impl Lab {
    fn new() -> Result<Self> {
        let lab = Self { near: Namespace::new("capi")?, far: Namespace::new("capi-far")? };
        let (n, f) = (&lab.near.name, &lab.far.name);
        ip(&format!("-n {n} link set lo up"))?;
        let wires = [("uplink", "wire", 10, 2), ("second", "second-wire", 11, 1)];
        for (near, far, index, queues) in wires {
            let (own, other) =
                (format!("02:00:00:00:{index}:01"), format!("02:00:00:00:{index}:02"));
            ip(&format!(
                "-n {n} link add {near} index {index} address {own} numrxqueues {queues} numtxqueues {queues} \
                 type veth peer name {far} address {other} numrxqueues {queues} numtxqueues {queues} netns {f}"
            ))?;
            ip(&format!("-n {n} link set {near} up"))?;
            ip(&format!("-n {f} link set {far} up"))?;
        }
        Ok(lab)
    }

    /// See [`run`].
    fn run(
        &self,
        library: Library,
        program: &str,
        scenario: &str,
        bpffs: Bpffs,
    ) -> Result<Vec<String>> {
        let netns = |namespace: &Namespace| format!("/run/netns/{}", namespace.name);
        run(library, program, scenario, bpffs, (&netns(&self.near), &netns(&self.far)))
    }
}

/// What a program says in a scenario, without the first line, which must name the library, and the last. It runs in the first
/// namespace, and what it sends packets to or from is in the other.
fn run(
    library: Library,
    program: &str,
    scenario: &str,
    bpffs: Bpffs,
    (near, far): (&str, &str),
) -> Result<Vec<String>> {
    let mut command = Command::new("timeout");
    command.args(["120", "nsenter", &format!("--net={near}")]);
    let mount = match bpffs {
        Bpffs::Shared => None,
        Bpffs::OfItsOwn => Some(r#"mount -t bpf bpf /sys/fs/bpf && exec "$@""#),
        Bpffs::AndNoProc => {
            Some(r#"mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs none /proc && exec "$@""#)
        }
    };
    if let Some(mount) = mount {
        command.args(["unshare", "--mount", "sh", "-c", mount, "sh"]);
    }
    command.args(library.command(program)).args([scenario, far]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("LIBXDP_OBJECT_PATH");
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
    let label = format!("{program} {scenario} with {}", library.name());
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_whole = output.status.success() && lines.last().is_some_and(|line| line == "end");
    ensure!(is_whole, "{label}: {}\n{said}{errors}", output.status);
    lines.pop();
    let path = lines.remove(0);
    let path = path.strip_prefix("library ").context("a path")?;
    ensure!(library.is_at(Path::new(path)), "{label}: it was {path}");
    Ok(lines)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bpffs {
    Shared,
    /// Empty, and gone afterwards with all its pins.
    OfItsOwn,
    /// The same, and `/proc` is empty.
    AndNoProc,
}

/// A line that two libraries do not have in common.
#[derive(Debug)]
struct Difference<'a> {
    scenario: &'a str,
    peer: Library,
    call: &'a str,
    theirs: &'a str,
    ours: &'a str,
}

/// A difference that may be, and then must be. An asterisk at the end of a call stands for anything.
#[derive(Debug)]
struct Allowed {
    scenario: &'static str,
    peers: &'static [Library],
    call: &'static str,
    theirs: &'static str,
    ours: &'static str,
    /// In docs/upstream-quirks.md too.
    why: &'static str,
}

/// A tag is a hash, of which kernels have more than one: that there is one.
fn without_tags(text: &str) -> String {
    let is_tag = |word: &str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split([' ', ';']).map(|word| if is_tag(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// For `ours`: the same value, of which errno tells too.
const ERRNO_TOO: &str = "errno too";
/// For both: C has written a comma and an end behind the buffer, ours has not.
const OVERFLOWN: &str = "overflown";

impl Allowed {
    fn covers(&self, difference: &Difference<'_>) -> bool {
        let is_call = match self.call.strip_suffix('*') {
            Some(start) => difference.call.starts_with(start),
            None => difference.call == self.call,
        };
        let is_same = if self.ours == ERRNO_TOO {
            let value = |text| str::split_once(text, ", errno ").unwrap_or((text, ""));
            let ((theirs, left), (ours, set)) = (value(difference.theirs), value(difference.ours));
            left == self.theirs && theirs == ours && ours.trim_start_matches('-') == set
        } else if self.ours == OVERFLOWN {
            let kept = difference.theirs.strip_suffix(",\" and more");
            kept.is_some() && kept == difference.ours.strip_suffix('"')
        } else {
            let same = |one, other| without_tags(one) == without_tags(other);
            same(difference.theirs, self.theirs) && same(difference.ours, self.ours)
        };
        is_call
            && is_same
            && difference.scenario == self.scenario
            && self.peers.contains(&difference.peer)
    }
}

/// Runs scenarios of a program with ours and with `peers`. Lines must be the same, except for what is allowed; that must
/// differ.
fn compare(program: &str, scenarios: &[&str], peers: &[Library]) -> Result<()> {
    compare_with(program, scenarios, peers, Bpffs::OfItsOwn)
}

fn compare_with(program: &str, scenarios: &[&str], peers: &[Library], bpffs: Bpffs) -> Result<()> {
    let baseline = Baseline::take()?;
    let mut trouble = String::new();
    let mut seen = BTreeSet::new();
    for scenario in scenarios {
        let ours = Lab::new()?.run(Own, program, scenario, bpffs)?;
        for &peer in peers {
            let theirs = Lab::new()?.run(peer, program, scenario, bpffs)?;
            let name = peer.name();
            if theirs.len() != ours.len() {
                let count = (theirs.len(), ours.len());
                writeln!(trouble, "{scenario}, {name}: {} lines, ours {}", count.0, count.1)?;
            }
            for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
                let (call, left) = theirs.split_once(" = ").unwrap_or((theirs, ""));
                let (ours_call, right) = ours.split_once(" = ").unwrap_or((ours, ""));
                if theirs == ours {
                    continue;
                }
                let difference = Difference { scenario, peer, call, theirs: left, ours: right };
                let allowed = ALLOWED.iter().position(|allowed| allowed.covers(&difference));
                match allowed.filter(|_| call == ours_call) {
                    Some(place) => drop(seen.insert((place, name))),
                    None => writeln!(
                        trouble,
                        "{scenario}, {name}, line {}:\n  {theirs}\n  {ours}",
                        number + 1
                    )?,
                }
            }
        }
    }
    for (place, allowed) in ALLOWED.iter().enumerate() {
        let is_here = scenarios.contains(&allowed.scenario);
        for peer in allowed.peers.iter().filter(|peer| is_here && peers.contains(peer)) {
            if !seen.contains(&(place, peer.name())) {
                writeln!(trouble, "not there with {}: {allowed:?}", peer.name())?;
            }
        }
    }
    ensure!(trouble.is_empty(), "{trouble}");
    baseline.assert_restored()
}

const BOTH: &[Library] = &[V1_3, V1_6];

/// So that what follows is no library compared with itself.
#[test]
fn three_libraries_are_really_there() -> Result<()> {
    build()?;
    let lab = Lab::new()?;
    let found =
        [V1_3, V1_6, Own].map(|library| lab.run(library, "programs", "find", Bpffs::OfItsOwn));
    for found in found {
        ensure!(found?.len() > 10);
    }
    let files = [V1_3, V1_6, Own].map(|library| library.command("programs"));
    ensure!(files[0] != files[1] && files[1] != files[2] && files[0] != files[2]);
    // Another library than the one that is asked for is noticed.
    ensure!(!V1_3.is_at(&real(&target().join("capi/lib/libxdp.so.1"))));
    ensure!(!V1_6.is_at(&real(&target().join("capi/lib/libxdp.so.1"))));
    ensure!(!Own.is_at(&real(&target().join("peers/1.6/libxdp.so.1"))));
    Ok(())
}

/// Each difference that is allowed has its reason, and the document has a place for it.
#[test]
fn what_is_allowed_is_told() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/upstream-quirks.md"))?;
    for allowed in ALLOWED {
        ensure!(document.contains(allowed.why), "not in docs/upstream-quirks.md: {}", allowed.why);
        ensure!(!allowed.why.is_empty() && !allowed.peers.is_empty(), "{allowed:?}");
    }
    Ok(())
}

#[test]
fn programs_are_opened_set_and_run_alike() -> Result<()> {
    build()?;
    let origins = ["open", "find", "object", "kernel", "create", "create_odd"];
    let scenarios = [&origins[..], &["settings", "clone", "run", "messages"]].concat();
    compare("programs", &scenarios, BOTH)
}

#[test]
fn null_and_errors_for_pointers_are_answered() -> Result<()> {
    build()?;
    compare("programs", &["garbage"], BOTH)
}

/// Without freplace, or without a dispatcher by the caller's wish.
#[test]
fn programs_are_attached_alone_alike() -> Result<()> {
    build()?;
    let has_chains = oxdp::Features::probe()?.require_freplace().is_ok();
    let scenarios: &[_] = if has_chains { &["skip"] } else { &["skip", "alone", "several_alone"] };
    compare("attach", scenarios, BOTH)
}

#[test]
fn without_proc_it_is_alike() -> Result<()> {
    build()?;
    compare_with("attach", &["skip"], BOTH, Bpffs::AndNoProc)?;
    compare_with("sockets", &["shared", "default_program"], BOTH, Bpffs::AndNoProc)
}

#[test]
fn threads_are_cancelled_alike() -> Result<()> {
    build()?;
    compare("attach", &["cancelled"], BOTH)
}

#[test]
fn af_xdp_is_alike() -> Result<()> {
    build()?;
    let scenarios = ["umems", "sockets", "shared", "default_program", "occupied", "rings"];
    compare("sockets", &scenarios, BOTH)
}

#[test]
fn af_xdp_s_options_are_alike() -> Result<()> {
    build()?;
    compare("sockets", &["options"], &[V1_6])
}

#[test]
fn packets_are_received_and_sent_alike() -> Result<()> {
    build()?;
    compare("sockets", &["traffic"], BOTH)?;
    // Not only alike, but right.
    let lines = Lab::new()?.run(Own, "sockets", "traffic", Bpffs::OfItsOwn)?;
    for count in [200, 100, 40] {
        let wanted =
            [format!("received = {count}, right {count}"), format!("sent = {count}, seen {count}")];
        ensure!(wanted.iter().all(|wanted| lines.contains(wanted)), "{lines:#?}");
    }
    Ok(())
}

/// Of more bytes than a frame has room for. Kernels before 6.6 refuse that, to each of them.
#[test]
fn packets_in_pieces_are_alike() -> Result<()> {
    build()?;
    let has_pieces = kernel()? >= (6, 6);
    let scenarios: &[_] = if has_pieces { &["pieces", "native_pieces"] } else { &["pieces"] };
    compare("sockets", scenarios, BOTH)?;
    let lines = Lab::new()?.run(Own, "sockets", "pieces", Bpffs::OfItsOwn)?;
    let whole = |line: &&String| line.ends_with(", right 3") || line.ends_with(", right 1");
    let wanted = if has_pieces { 4 } else { 0 };
    ensure!(lines.iter().filter(whole).count() == wanted, "{lines:#?}");
    Ok(())
}

/// Between the two cards of a VM, which can from 6.13 on.
#[test]
#[ignore = "needs network cards that can; run in a VM by make test"]
fn zero_copy_is_alike() -> Result<()> {
    require_build()?;
    let loaded = Command::new("modprobe").arg("virtio_net").status()?;
    ensure!(loaded.success(), "modprobe virtio_net: {loaded}");
    for card in ["eth0", "eth1"] {
        let link = format!("/proc/sys/net/ipv6/conf/{card}/disable_ipv6");
        ensure!(soon(|| Ok(Path::new(&link).exists()))?, "no {card}");
        std::fs::write(link, "1")?;
        ip(&format!("link set {card} promisc on up"))?;
    }
    let here = "/proc/1/ns/net";
    let said = [V1_3, V1_6, Own]
        .map(|library| run(library, "sockets", "zero_copy", Bpffs::OfItsOwn, (here, here)));
    let [third, sixth, own] = said;
    let own = own?;
    ensure!(third? == own && sixth? == own, "{own:#?}");
    let is_right = own.iter().any(|line| line == "received = 200, right 200");
    ensure!(is_right == (kernel()? >= (6, 13)), "{own:#?}");
    Ok(())
}

/// The functions that a library exports, with their versions.
fn symbols(path: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("readelf").args(["--dyn-syms", "--wide"]).arg(path).output()?;
    ensure!(output.status.success(), "readelf {}", path.display());
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().map(words);
    let exported = lines.filter(|words| words.len() > 7 && words[3] == "FUNC" && words[6] != "UND");
    Ok(exported.map(|words| words[7].replace("@@", "@")).collect())
}

#[test]
fn each_symbol_has_its_version() -> Result<()> {
    build()?;
    let third = symbols(Path::new("/usr/lib/x86_64-linux-gnu/libxdp.so.1"))?;
    let sixth = symbols(&target().join("peers/1.6/libxdp.so.1"))?;
    let own = symbols(&target().join("capi/lib/libxdp.so.1"))?;
    ensure!(third.len() > 60 && third.contains("xdp_program__attach@LIBXDP_1.0.0"), "{third:?}");
    ensure!(third.is_subset(&own), "not there: {:?}", third.difference(&own));
    let (added, shared): (BTreeSet<_>, _) =
        own.into_iter().partition(|symbol| symbol.contains("@OXDP_"));
    let differing: Vec<_> = shared.symmetric_difference(&sixth).collect();
    ensure!(differing.is_empty(), "only in one: {differing:?}");
    ensure!(added.iter().all(|symbol| symbol.starts_with("oxdp_")) && !added.is_empty());
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn chains_are_alike() -> Result<()> {
    require_build()?;
    compare("attach", &["chains", "frags"], BOTH)?;
    compare_with("attach", &["frags"], BOTH, Bpffs::AndNoProc)?;
    if kernel()? >= (6, 3) {
        return compare("attach", &["bound"], &[V1_6]);
    }
    // C says that it has been done, and that it is bound.
    let lines = Lab::new()?.run(Own, "attach", "bound", Bpffs::OfItsOwn)?;
    let bound = lines.iter().filter(|line| line.contains("BOUND) = "));
    let refused = bound.clone().filter(|line| line.ends_with("BOUND) = -EINVAL, errno EINVAL"));
    ensure!(refused.count() == 7 && bound.count() == 7, "{lines:#?}");
    ensure!(!lines.iter().any(|line| line == "is_bound(multiprog) = true"), "{lines:#?}");
    Ok(())
}

/// A step, after which both see the same.
fn step(lab: &Lab, pair: (Library, Library), who: Library, what: &str) -> Result<Vec<String>> {
    let label = || format!("{what} by {}, the other is of {pair:?}", who.name());
    let said = lab.run(who, "attach", what, Bpffs::Shared).with_context(label)?;
    ensure!(!said.iter().any(|line| line.contains("errno")), "{}: {said:#?}", label());
    let seen = |library| lab.run(library, "attach", "list", Bpffs::Shared);
    let (one, other) = (seen(pair.0)?, seen(pair.1)?);
    ensure!(one == other, "{}: {one:#?} {other:#?}", label());
    Ok(one)
}

/// A chain that one library has made is listed, added to, taken from and taken off by the other, in turns.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn each_handles_the_other_s_chains() -> Result<()> {
    require_build()?;
    let baseline = Baseline::take()?;
    for pair in [(V1_3, Own), (V1_6, Own), (Own, V1_6)] {
        let (first, second) = pair;
        let lab = Lab::new()?;
        let programs = |lines: &[String]| lines.concat().matches("member").count();
        ensure!(programs(&step(&lab, pair, first, "start")?) == 2);
        ensure!(programs(&step(&lab, pair, second, "add")?) == 3);
        ensure!(programs(&step(&lab, pair, first, "clean")?) == 3);
        ensure!(programs(&step(&lab, pair, second, "clean")?) == 3);
        ensure!(programs(&step(&lab, pair, first, "take")?) == 2);
        ensure!(programs(&step(&lab, pair, second, "take")?) == 1);
        ensure!(programs(&step(&lab, pair, first, "add")?) == 2);
        ensure!(step(&lab, pair, second, "off")? == ["interface = ENOENT"]);
        if first == V1_3 {
            // Ours makes dispatchers of version 3, which 1.3 leaves alone, as it does with those of 1.6.
            lab.run(second, "attach", "start", Bpffs::Shared)?;
            let seen = lab.run(first, "attach", "list", Bpffs::Shared)?;
            ensure!(seen == ["interface = EOPNOTSUPP"], "{seen:?}");
            lab.run(second, "attach", "off", Bpffs::Shared)?;
            continue;
        }
        step(&lab, pair, second, "start")?;
        ensure!(step(&lab, pair, first, "off")? == ["interface = ENOENT"]);
    }
    baseline.assert_restored()
}
