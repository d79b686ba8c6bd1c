//! `examples/xdp_loader`, beside Debian's `xdp-loader`. The tests that need freplace run in VMs; the others anywhere.
//!
//! The example is built by `cargo build --example xdp_loader`, which `tests/suite` does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{Features, Mode, Policy, Support, Xdp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::lab::{Pair, ip, soon};
use support::{Baseline, counter, object, program};
use tempfile::TempDir;

const ABSENT: u32 = 4_000_000_000;

fn ours() -> Result<PathBuf> {
    let deps = std::env::current_exe()?;
    let target = deps.parent().and_then(Path::parent).context("a test lies in target/…/deps")?;
    let path = target.join("examples/xdp_loader");
    ensure!(path.exists(), "{} is not built: cargo build --example xdp_loader", path.display());
    Ok(path)
}

/// Both loaders, in a namespace and on a bpffs.
struct Loaders {
    /// `None` for the one that the test runs in.
    netns: Option<String>,
    bpffs: PathBuf,
}

impl Loaders {
    fn run(&self, loader: &Path, words: &str) -> Result<Ran> {
        let words = words.split_whitespace().map(|word| {
            if Path::new(word).extension().is_some() && !word.contains('/') {
                object(word)
            } else {
                word.into()
            }
        });
        let mut command = match &self.netns {
            None => Command::new(loader),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{netns}")).arg(loader);
                command
            }
        };
        command.args(words).env("LIBXDP_BPFFS", &self.bpffs);
        let output = command.env_remove("LIBXDP_SKIP_DISPATCHER").output();
        Ok(output.with_context(|| format!("running {}", loader.display()))?.into())
    }

    fn ours(&self, words: &str) -> Result<Ran> {
        self.run(&ours()?, words)
    }

    fn theirs(&self, words: &str) -> Result<Ran> {
        self.run(Path::new("xdp-loader"), words)
    }

    /// Fails unless both end with the same exit status.
    fn same_status(&self, words: &str) -> Result<()> {
        let (ours, theirs) = (self.ours(words)?, self.theirs(words)?);
        ensure!(ours.status == theirs.status, "{words}: {ours:?}, C: {theirs:?}");
        Ok(())
    }

    /// Fails unless both list the same.
    fn same_table(&self) -> Result<()> {
        let tables = [self.ours("status")?.done()?, self.theirs("status")?.succeeded()?];
        ensure!(rows(&tables[0]) == rows(&tables[1]), "{}{}", tables[0], tables[1]);
        Ok(())
    }

    /// What `status --json` tells of the interface under test.
    fn status(&self) -> Result<Value> {
        let report: Value = serde_json::from_str(&self.ours("status --json uplink")?.done()?)?;
        ensure!(report["format"] == 1, "{report}");
        ensure!(report["interfaces"].as_array().map(Vec::len) == Some(1), "{report}");
        let device = &report["interfaces"][0];
        ensure!(
            device["name"] == "uplink" && device["ifindex"].as_u64().is_some_and(|index| index > 1),
            "{device}"
        );
        ensure!(device["error"].is_null(), "{device}");
        Ok(device["xdp"].clone())
    }

    /// Ids of the programs with this name in the chain.
    fn ids_of(&self, name: &str) -> Result<Vec<Value>> {
        let xdp = self.status()?;
        let slots = xdp["programs"].as_array().with_context(|| format!("no chain: {xdp}"))?;
        let programs = slots.iter().map(|slot| &slot["program"]);
        let named = programs.filter(|program| program["name"] == name);
        Ok(named.map(|program| program["id"].clone()).collect())
    }
}

/// An interface in a namespace of its own, and a bpffs of its own, since the machine may have none.
struct Lab {
    pair: Pair,
    loaders: Loaders,
    bpffs: TempDir,
}

impl Lab {
    fn new(role: &str) -> Result<Self> {
        let (pair, bpffs) = (Pair::new(role, 10)?, tempfile::tempdir()?);
        let netns = Some(pair.near.name.clone());
        let loaders = Loaders { netns, bpffs: bpffs.path().to_owned() };
        let mounted =
            Command::new("mount").args(["-t", "bpf", "bpf"]).arg(bpffs.path()).status()?;
        ensure!(mounted.success());
        Ok(Self { pair, loaders, bpffs })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = Command::new("umount").arg(self.bpffs.path()).status();
    }
}

impl Deref for Lab {
    type Target = Loaders;

    fn deref(&self) -> &Loaders {
        &self.loaders
    }
}

#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// What it printed, if it succeeded without a warning.
    fn done(self) -> Result<String> {
        ensure!(self.status == Some(0) && self.err.is_empty(), "{self:?}");
        Ok(self.out)
    }

    /// What it printed, if it succeeded. On an old kernel C's libraries complain on the way.
    fn succeeded(self) -> Result<String> {
        ensure!(self.status == Some(0), "{self:?}");
        Ok(self.out)
    }

    /// The one line of error that it failed with.
    fn failed(self, status: i32, with: &str) -> Result<()> {
        ensure!(self.status == Some(status) && self.out.is_empty(), "{self:?}");
        ensure!(self.err.lines().count() == 1 && self.err.starts_with("xdp_loader: "), "{self:?}");
        ensure!(self.err.contains(with), "{self:?}");
        Ok(())
    }
}

/// The rows of a table of either, as words, without the names of the columns and what only ours has behind them.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    let words = rows.map(|row| row.split_whitespace().take(6).collect::<Vec<_>>());
    let words = words
        .map(|row| if row.first() == Some(&"=>") { row } else { row[..row.len().min(5)].to_vec() });
    words.filter(|row| !row.is_empty()).collect()
}

/// What needs no program on the interface: the same answers from both.
#[test]
fn wrong_words_have_the_exit_statuses_of_c() -> Result<()> {
    let lab = Lab::new("words")?;
    for words in [
        "",
        "nonsense",
        "load",
        "load --nonsense",
        "load uplink",
        "load absent0 udp_filter.o",
        "load -m bad uplink udp_filter.o",
        "load -A XDP_FOO uplink udp_filter.o",
        "load -s xdp -n udp_filter uplink udp_filter.o",
        "load uplink /no/such.o",
        "load uplink /etc/passwd",
        "load -n absent uplink udp_filter.o",
        "load -s absent uplink udp_filter.o",
        "load lo udp_filter.o",
        "load -m skb uplink rejected.o",
        "unload",
        "unload uplink",
        "unload uplink --all",
        "unload uplink -i 99999",
        "status",
        "status uplink",
        "status absent0",
        "clean",
    ] {
        let (ours, theirs) = (lab.ours(words)?, lab.theirs(words)?);
        ensure!(ours.status == theirs.status, "{words}: {ours:?}, C: {theirs:?}");
        let is_quiet = ours.status == Some(0);
        ensure!(is_quiet == ours.err.is_empty(), "{words}: {ours:?}");
    }
    // Here C takes what is no number for 0, and does not count help for success.
    ensure!(lab.ours("load -P x uplink udp_filter.o")?.status == Some(1));
    for words in ["--help", "load --help", "help", "--version", "load --version"] {
        let ran = lab.ours(words)?;
        ensure!(ran.status == Some(0) && !ran.out.is_empty(), "{ran:?}");
    }
    Ok(())
}

#[test]
fn errors_are_one_line() -> Result<()> {
    let lab = Lab::new("errors")?;
    lab.ours("load uplink /no/such.o")?.failed(254, "/no/such.o: No such file")?;
    lab.ours("load absent0 udp_filter.o")?.failed(1, "absent0")?;
    lab.ours("load -n absent uplink udp_filter.o")?.failed(254, "it has udp_filter")?;
    lab.ours("load -m skb uplink rejected.o")?.failed(243, "is outside of the ")?;
    let verbose = lab.ours("load -v -m skb uplink rejected.o")?;
    ensure!(verbose.status == Some(243) && verbose.err.lines().count() > 3, "{verbose:?}");
    lab.ours("unload uplink --all")?.failed(1, "not attached")?;
    let alone = "load --attach-by link --policy single uplink udp_filter.o";
    lab.ours(alone)?.failed(1, "only a chain has a pin for its link")
}

#[test]
fn features_are_those_of_the_library() -> Result<()> {
    let lab = Lab::new("features")?;
    let told = lab.ours("features")?.done()?;
    for (line, (name, support)) in told.lines().zip(Features::probe()?.iter()) {
        let (own, rest) = line.split_once(':').context("a name")?;
        ensure!(own == name && rest.trim() == support.to_string(), "{line}");
    }
    ensure!(told.lines().count() == Features::probe()?.iter().count());
    Ok(())
}

/// `auto` goes where it can, and says why where that is not a chain.
#[test]
fn auto_says_why_a_program_runs_alone() -> Result<()> {
    let lab = Lab::new("auto")?;
    for policy in ["--policy auto", ""] {
        let ran = lab.ours(&format!("load {policy} uplink udp_filter.o"))?;
        ensure!(ran.status == Some(0) && ran.out.is_empty(), "{ran:?}");
        let xdp = lab.status()?;
        if let Support::No(why) = Features::probe()?.freplace {
            ensure!(ran.err.lines().count() == 1 && ran.err.contains(&why), "{ran:?}");
            ensure!(ran.err.starts_with("xdp_loader: warning: uplink: program "), "{ran:?}");
            ensure!(xdp["kind"] == "foreign" && xdp["name"] == "udp_filter", "{xdp}");
            lab.ours("load --policy chain uplink packet_counter.o")?.failed(240, "udp_filter")?;
            let id = xdp["id"].to_string();
            lab.ours(&format!("unload uplink --id {id}"))?.done()?;
            lab.ours("load --policy chain uplink udp_filter.o")?.failed(161, "no freplace")?;
        } else {
            ensure!(ran.err.is_empty() && xdp["kind"] == "chain", "{ran:?} {xdp}");
            lab.ours("unload uplink --all")?.done()?;
        }
        ensure!(lab.status()?.is_null());
    }
    Ok(())
}

#[test]
fn a_program_without_a_chain_is_told_replaced_and_taken_off() -> Result<()> {
    let lab = Lab::new("foreign")?;
    let alone = Xdp::builder().bpffs(lab.bpffs.path()).policy(Policy::Single).build()?;
    alone.attach(&lab.pair.interface()?, &mut program("xdp_pass.o")?, Mode::Skb)?;
    let xdp = lab.status()?;
    ensure!(xdp["kind"] == "foreign" && xdp["name"] == "xdp_pass" && xdp["mode"] == "skb", "{xdp}");
    ensure!(xdp["attached_by"] == "netlink" && xdp["link"].is_null(), "{xdp}");
    ensure!(xdp["load_time_ns"].as_u64().is_some_and(|time| time > 0), "{xdp}");
    lab.same_table()?;
    let table = lab.ours("status")?.done()?;
    ensure!(table.contains("in no chain, by netlink, loaded 0:00:"), "{table}");

    let id = xdp["id"].to_string();
    lab.ours("load -m skb uplink udp_filter.o")?.failed(240, &id)?;
    lab.ours(&format!("load -m skb --policy single --replace {ABSENT} uplink udp_filter.o"))?
        .failed(240, &id)?;
    lab.ours(&format!("load -m skb --policy single --replace {id} uplink udp_filter.o"))?.done()?;
    lab.ours("unload uplink --name xdp_pass")?.failed(1, "it has udp_filter (id ")?;
    lab.ours("unload uplink --name udp_filter")?.done()?;

    lab.ours("load --policy single uplink packet_counter.o")?.done()?;
    let id = lab.status()?["id"].to_string();
    let ran = lab.ours("unload uplink --all")?;
    ensure!(ran.status == Some(0) && ran.err.contains(&format!("(id {id},")), "{ran:?}");
    ensure!(lab.status()?.is_null());
    Ok(())
}

#[test]
fn maps_are_pinned_only_where_one_says() -> Result<()> {
    let lab = Lab::new("maps")?;
    let maps = lab.bpffs.path().join("maps");
    let load = "load --policy single uplink pinned_map.o";
    lab.ours(load)?.done()?;
    lab.ours("unload uplink --name pinned_map")?.done()?;
    ensure!(!maps.exists());
    lab.ours(&format!("{load} -p {}", maps.display()))?.done()?;
    ensure!(maps.join("shared_count").exists());
    lab.ours("unload uplink --name pinned_map")?.done().map(drop)
}

/// What nothing uses is removed wherever it lies; what is not the protocol's stays, and so does what the kernel has.
#[test]
fn clean_removes_what_is_dead_in_every_namespace() -> Result<()> {
    let lab = Lab::new("clean")?;
    let xdp = Xdp::builder().bpffs(lab.bpffs.path()).policy(Policy::Single).build()?;
    let (mut alone, mut component) = (counter()?, counter()?);
    let interface = lab.pair.interface()?;
    xdp.attach(&interface, &mut alone, Mode::Native)?;
    // Without freplace there are no components; then the dead were cut off before they had any.
    let pins = u32::from(Features::probe()?.require_freplace().is_ok());
    if pins > 0 {
        xdp.load(&mut component)?;
    }
    let root = lab.bpffs.path().join("xdp");
    let scope = root.join("netns-4026531840");
    let dispatcher = |scope: &Path, id: u32| -> Result<PathBuf> {
        let path = scope.join(format!("dispatch-10-{id}"));
        std::fs::create_dir_all(&path)?;
        if pins > 0 {
            component.pin(path.join("prog0-prog"))?;
        }
        Ok(path)
    };
    let dead = [dispatcher(&root, ABSENT)?, dispatcher(&scope, ABSENT + 1)?];
    // Any program's id will do for one that is in the kernel.
    let live = dispatcher(&scope, alone.id().unwrap())?;
    let foreign = [dispatcher(&root, ABSENT + 2)?, dispatcher(&scope, ABSENT + 3)?];
    alone.pin(foreign[0].join("prog0-other"))?;
    // A name of the protocol's for something else.
    alone.pin(foreign[1].join("prog1-prog"))?;

    let told = |verb: &str| {
        dead.iter().map(|path| format!("{verb} {} ({pins} pins)", path.display())).collect()
    };
    let lines = |ran: &Ran| ran.out.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let ran = lab.ours("clean --dry-run")?;
    ensure!(ran.status == Some(0) && lines(&ran) == told("would remove"), "{ran:?}");
    ensure!(dead.iter().all(|path| path.exists()));
    let ran = lab.ours("clean")?;
    ensure!(ran.status == Some(0) && lines(&ran) == told("removed"), "{ran:?}");
    ensure!(ran.err.lines().count() == 2, "{ran:?}");
    ensure!(ran.err.contains("prog0-other") && ran.err.contains("prog1-prog"), "{ran:?}");
    ensure!(!dead.iter().any(|path| path.exists()));
    ensure!(live.exists() && foreign.iter().all(|path| path.exists()));
    ensure!(lab.ours("clean")?.out.is_empty());
    xdp.detach(&interface, alone.id().unwrap())?;
    Ok(())
}

/// An interface of the namespace that the test runs in, where C looks for the pins that we make.
fn on_host(test: impl FnOnce(&Loaders) -> Result<()>) -> Result<()> {
    let baseline = Baseline::take()?;
    ip("link add uplink type veth peer name wire")?;
    let tested = test(&Loaders { netns: None, bpffs: support::BPFFS.into() });
    // Before the error, for the tests that follow; one has deleted it.
    let is_there = Path::new("/sys/class/net/uplink").exists();
    let deleted = if is_there { ip("link del uplink") } else { Ok(()) };
    tested?;
    deleted?;
    baseline.assert_restored()
}

/// What one loads the other lists, adds to and unloads. C changes chains of version 2 only, and looks for pins where we
/// have those of the initial namespace.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn both_work_on_one_chain() -> Result<()> {
    on_host(|both| {
        let actions = "-P 7 -A XDP_PASS,XDP_DROP";
        both.ours(&format!("load --protocol-version 2 {actions} uplink udp_filter.o"))?.done()?;
        both.same_table()?;
        both.theirs("load uplink packet_counter.o")?.succeeded()?;
        both.same_table()?;
        let several = both.ours("load -v uplink packet_counter.o frags_pass.o")?;
        ensure!(several.status == Some(0), "{several:?}");
        ensure!(
            several.err.contains("warning: uplink: no packets of several fragments"),
            "{several:?}"
        );
        ensure!(several.err.contains("uplink: loaded packet_counter as program "), "{several:?}");
        both.same_table()?;
        let xdp = both.status()?;
        ensure!(
            xdp["kind"] == "chain" && xdp["protocol_version"] == 2 && xdp["whole"] == true,
            "{xdp}"
        );
        ensure!(xdp["mode"] == "native" && xdp["attached_by"] == "netlink", "{xdp}");
        let first = &xdp["programs"][0];
        ensure!(first["priority"] == 7 && first["program"]["name"] == "udp_filter", "{xdp}");
        ensure!(first["chain_actions"] == json!(["XDP_DROP", "XDP_PASS"]), "{xdp}");

        let ids = both.ids_of("packet_counter")?;
        let [one, other] = ids.as_slice() else { bail!("{ids:?}") };
        let told = format!("packet_counter (id {one}), packet_counter (id {other})");
        both.ours("unload uplink --name packet_counter")?.failed(1, &told)?;
        both.ours(&format!("unload uplink --id {one}"))?.done()?;
        both.theirs(&format!("unload uplink --id {other}"))?.succeeded()?;
        ensure!(both.ids_of("packet_counter")?.is_empty());
        both.ours("unload uplink --name frags_pass_with_a_long_name")?.done()?;
        both.same_table()?;
        both.same_status("unload uplink -i 99999")?;
        both.same_status("load -m skb uplink udp_filter.o")?;
        both.theirs("unload uplink --all")?.succeeded()?;
        ensure!(both.status()?.is_null());
        Ok(())
    })
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_full_chain_and_a_file_of_several_programs_are_as_in_c() -> Result<()> {
    on_host(|both| {
        both.theirs(&format!("load uplink {}", "packet_counter.o ".repeat(10)))?.done()?;
        both.same_table()?;
        both.ours("load uplink udp_filter.o")?.failed(249, "the chain is full")?;
        both.same_status("load uplink udp_filter.o")?;
        both.ours("unload uplink --all")?.done()?;
        both.same_status("unload uplink --all")?;

        let load = "load --protocol-version 2 uplink two_programs.o";
        both.ours(load)?.done()?;
        both.theirs("load uplink two_programs.o")?.succeeded()?;
        ensure!(both.ids_of("drop_and_go_on")?.len() == 2, "both take the first of the file");
        both.ours("unload uplink --all")?.done()?;
        Ok(())
    })
}

/// Link, fragments, a newer protocol and lost pins are told, and C's loader lists what it can read.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn status_tells_more_than_c_does() -> Result<()> {
    on_host(|both| {
        both.ours("load --attach-by link uplink frags_pass.o")?;
        let xdp = both.status()?;
        ensure!(xdp["protocol_version"] == 3 && xdp["attached_by"] == "link", "{xdp}");
        let told = format!("protocol 3, by link {}", xdp["link"]);
        let table = both.ours("status uplink")?.done()?;
        ensure!(table.contains(&told) && table.contains("frags"), "{table}");

        let pins = PathBuf::from(xdp["pins"].as_str().context("pinned")?);
        std::fs::remove_file(pins.join("prog0-prog"))?;
        let table = both.ours("status uplink")?.done()?;
        ensure!(
            table.contains("<missing>") && table.contains("slot 0: PROGRAM NOT PINNED"),
            "{table}"
        );
        let xdp = both.status()?;
        ensure!(xdp["whole"] == false && xdp["programs"][0]["program"].is_null(), "{xdp}");
        ensure!(xdp["programs"][0]["linked"] == true, "{xdp}");
        both.ours("unload uplink --all")?.done()?;
        Ok(())
    })
}

/// What an interface, a namespace and a recovery have to do with each other, in one bpffs.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn clean_removes_the_chain_of_an_interface_that_is_gone_and_no_other() -> Result<()> {
    on_host(|both| {
        let other = Pair::new("clean", 10)?;
        let netns = format!("--netns {}", other.near.name);
        both.ours("load uplink packet_counter.o")?.done()?;
        let gone = both.status()?["pins"].as_str().context("pinned")?.to_owned();
        both.ours(&format!("{netns} load uplink udp_filter.o"))?.done()?;
        let pins = support::pins()?;
        for words in ["clean", "clean --all-netns", &format!("{netns} clean"), "clean --dry-run"] {
            ensure!(both.ours(words)?.done()?.is_empty(), "{words}");
        }
        ip("link del uplink")?;
        let would = both.ours("clean --dry-run")?.done()?;
        ensure!(would == format!("would remove {gone} (2 pins)\n"), "{would}");
        ensure!(both.ours(&format!("{netns} clean"))?.done()?.is_empty());
        ensure!(support::pins()? == pins);
        let removed = both.ours("clean")?.done()?;
        ensure!(removed == format!("removed {gone} (2 pins)\n"), "{removed}");
        let status = both.ours(&format!("{netns} status --json uplink"))?.done()?;
        let status: Value = serde_json::from_str(&status)?;
        ensure!(status["interfaces"][0]["xdp"]["state"] == "whole", "{status}");
        both.ours(&format!("{netns} unload uplink --all"))?.done()?;
        ensure!(support::pins()?.is_empty(), "{:?}", support::pins()?);
        Ok(())
    })
}

/// A namespace goes by its name, a path, a process and a process's number.
#[test]
fn namespaces_are_named_in_four_ways() -> Result<()> {
    let lab = Lab::new("named")?;
    let outside = Loaders { netns: None, bpffs: lab.bpffs.path().to_owned() };
    let name = &lab.pair.near.name;
    let mut sleeper = Command::new("nsenter")
        .args([&format!("--net=/run/netns/{name}"), "sleep", "60"])
        .spawn()?;
    let pid = sleeper.id();
    ensure!(soon(|| Ok(oxdp::Netns::from_pid(pid)? == lab.pair.near.netns))?);
    let tables =
        [name.clone(), format!("/run/netns/{name}"), format!("pid:{pid}"), pid.to_string()]
            .map(|netns| outside.ours(&format!("status uplink --json --netns {netns}")));
    sleeper.kill()?;
    sleeper.wait()?;
    for table in tables {
        let table: Value = serde_json::from_str(&table?.done()?)?;
        ensure!(table["netns"] == lab.pair.near.netns.inode(), "{table}");
        ensure!(table["interfaces"][0]["ifindex"] == 10, "{table}");
    }
    outside.ours("status --netns absent")?.failed(1, "not a network namespace")?;
    outside.ours("load --netns absent uplink udp_filter.o")?.failed(1, "absent")?;
    let all = outside.ours("status --all-netns")?.done()?;
    ensure!(all.contains(&format!("{}:\n", lab.pair.near.netns)), "{all}");
    let all = outside.ours("status --all-netns --json")?.done()?;
    let all: Value = serde_json::from_str(&all)?;
    let namespaces = all["namespaces"].as_array().context("a list")?;
    let own = namespaces.iter().find(|netns| netns["netns_label"] == name.as_str());
    let interfaces = own.context("our namespace")?["interfaces"].as_array().context("a list")?;
    ensure!(interfaces.iter().any(|device| device["name"] == "uplink"), "{interfaces:?}");
    Ok(())
}

#[test]
fn a_recovery_with_nothing_to_do_says_so() -> Result<()> {
    let lab = Lab::new("well")?;
    for words in ["recover", "recover --keep-empty"] {
        let told = lab.ours(words)?.done()?;
        ensure!(told.ends_with("nothing would change\n"), "{told}");
    }
    let told = lab.ours("recover --apply")?.done()?;
    ensure!(told.lines().last().is_some_and(|line| line.starts_with("0 of ")), "{told}");
    let report: Value = serde_json::from_str(&lab.ours("recover --json")?.done()?)?;
    ensure!(report["format"] == 1 && report["lines"].is_array(), "{report}");
    Ok(())
}

/// The state of the interface under test, and what a recovery does about it: its verb, and what is told after it.
fn recovers(both: &Loaders, state: &str, action: &str, end: &str) -> Result<()> {
    let xdp = both.status()?;
    ensure!(xdp["state"] == state, "{state}: {xdp}");
    let table = both.ours("status --all-netns")?.done()?;
    ensure!(table.contains(&format!("recover: {action}")), "{table}");
    let pins = support::pins()?;
    let plan = both.ours("recover")?.done()?;
    let line = plan.lines().find(|line| line.starts_with(action)).with_context(|| plan.clone())?;
    ensure!(plan.ends_with("1 of 1 would change; run again with --apply\n"), "{plan}");
    let report: Value = serde_json::from_str(&both.ours("recover --json")?.done()?)?;
    ensure!(report["lines"][0]["outcome"].is_null(), "{report}");
    ensure!(support::pins()? == pins, "a dry run changes nothing");
    // It warns of programs that are lost.
    let done = both.ours("recover --apply")?.succeeded()?;
    ensure!(done == format!("changed   {line}\n1 of 1 changed\n"), "{done}");
    let told = both.ours("recover")?.done()?;
    ensure!(told == "nothing would change\n", "{told}");
    let xdp = both.status()?;
    ensure!(if end.is_empty() { xdp.is_null() } else { xdp["state"] == end }, "{xdp}");
    Ok(())
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn recover_puts_right_what_was_lost() -> Result<()> {
    on_host(|both| {
        let kept = Path::new(support::BPFFS).join("kept");
        let pins =
            || -> Result<PathBuf> { Ok(both.status()?["pins"].as_str().context("pinned")?.into()) };
        both.ours("load uplink udp_filter.o packet_counter.o")?.done()?;
        // Somebody else keeps the link.
        let link = pins()?.join("prog0-link");
        std::fs::rename(&link, &kept)?;
        if Features::probe()?.link_target.is_yes() {
            recovers(both, "damaged", "adopt", "whole")?;
            std::fs::remove_file(&kept)?;
        } else {
            let told = both.ours("recover")?.done()?;
            ensure!(told.starts_with("leave alone") && told.contains("since 5.13"), "{told}");
            std::fs::rename(&kept, &link)?;
        }
        // Nobody does.
        std::fs::remove_file(pins()?.join("prog1-link"))?;
        std::fs::remove_file(pins()?.join("prog1-prog"))?;
        recovers(both, "damaged", "drop", "whole")?;
        ensure!(both.ids_of("udp_filter")?.len() == 1 && both.ids_of("packet_counter")?.is_empty());
        // Where C, or an agent with another layout, has put the pins of another namespace.
        let place =
            format!("{}/xdp/dispatch-9999-{}", support::BPFFS, both.status()?["dispatcher"]);
        std::fs::rename(pins()?, &place)?;
        recovers(both, "moved", "re-home", "whole")?;
        support::remove_pins(&pins()?)?;
        let kept = both.ours("recover --keep-empty")?.done()?;
        ensure!(
            kept.starts_with("leave alone") && kept.ends_with("nothing would change\n"),
            "{kept}"
        );
        recovers(both, "orphaned", "detach", "")
    })
}
