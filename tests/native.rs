//! What every kernel can show, a locked-down one too: errors, foreign programs, namespaces, environment.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Result, ensure};
use oxdp::{
    ErrorKind, Features, Interface, Legacy, Map, Mode, Netns, NetnsInode, Occupant, Policy,
    Program, Select, Support, Xdp,
};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use support::lab::{Namespace, Pair, ip};
use support::{Baseline, child, child_of, counter, object, passed};
use tempfile::TempDir;

/// A bpf file system of our own, unmounted when dropped: the machine may have none.
struct Bpffs(TempDir);

impl Bpffs {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The library mounts it when it needs it.
    fn xdp(&self) -> Result<Xdp> {
        Ok(Xdp::builder().bpffs(self.0.path()).mount_bpffs(true).build()?)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Fails where nothing was mounted, which is as good.
        let _ = Command::new("umount").arg("--quiet").arg(self.0.path()).status();
    }
}

/// A kernel that refuses freplace is told as such, and nothing is left; another one attaches.
#[test]
fn without_freplace_the_error_says_so() -> Result<()> {
    let bpffs = Bpffs::new()?;
    let baseline = Baseline::take_in(bpffs.path())?;
    {
        let (xdp, pair) = (bpffs.xdp()?, Pair::new("native", 10)?);
        let interface = pair.interface()?;
        let features = Features::probe()?;
        let attached = xdp.attach(&interface, &mut counter()?, Mode::Native);
        let loaded = xdp.load(&mut counter()?);
        match &features.freplace {
            Support::Yes => {
                ensure!(features.require_freplace().is_ok() && loaded.is_ok());
                ensure!(attached?.dispatcher.is_some());
                xdp.detach_all(&interface)?;
            }
            Support::No(why) => {
                ensure!(why.contains("extension program"), "{why}");
                let required = features.require_freplace();
                for error in [required.unwrap_err(), attached.unwrap_err(), loaded.unwrap_err()] {
                    ensure!(matches!(error.kind(), ErrorKind::NoFreplace { .. }), "{error}");
                }
            }
        }
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// A program that is no dispatcher is told by id and name, and left alone by every change.
#[test]
fn a_foreign_program_is_left_alone() -> Result<()> {
    for (mode, how) in [(Mode::Native, "xdpdrv"), (Mode::Skb, "xdpgeneric")] {
        let bpffs = Bpffs::new()?;
        let baseline = Baseline::take_in(bpffs.path())?;
        {
            let (xdp, pair) = (bpffs.xdp()?, Pair::new("foreign", 10)?);
            let interface = pair.interface()?;
            let object = object("xdp_pass.o");
            let (netns, object) = (&pair.near.name, object.display());
            ip(&format!("-n {netns} link set uplink {how} obj {object} sec xdp"))?;
            let Occupant::Foreign(program) = xdp.inspect(&interface)? else {
                anyhow::bail!("{:?}", xdp.inspect(&interface)?)
            };
            ensure!((program.name.as_str(), program.mode) == ("xdp_pass", mode), "{program:?}");
            let id = format!("id {}", program.id);
            for error in [
                xdp.attach(&interface, &mut counter()?, Mode::Unspecified).unwrap_err(),
                xdp.detach(&interface, program.id + 1).unwrap_err(),
                xdp.detach_all(&interface).unwrap_err(),
            ] {
                ensure!(matches!(error.kind(), ErrorKind::ForeignProgram(_)), "{error}");
                let text = error.to_string();
                ensure!(text.contains("xdp_pass") && text.contains(&id), "{text}");
            }
            ensure!(xdp.inspect(&interface)? == Occupant::Foreign(program));
            ip(&format!("-n {netns} link set uplink {how} off"))?;
            ensure!(xdp.inspect(&interface)? == Occupant::Empty);
            let error = xdp.detach_all(&interface).unwrap_err();
            ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
        }
        baseline.assert_restored()?;
    }
    Ok(())
}

/// Maps that want to be pinned go where they are told to, are found there by the next program, or are not pinned.
#[test]
fn maps_are_pinned_where_one_says() -> Result<()> {
    let bpffs = Bpffs::new()?;
    let baseline = Baseline::take_in(bpffs.path())?;
    {
        let pair = Pair::new("maps", 10)?;
        let interface = pair.interface()?;
        let xdp = Xdp::builder().bpffs(bpffs.path()).mount_bpffs(true).policy(Policy::Single);
        let xdp = xdp.build()?;
        let maps = bpffs.path().join("maps");
        let map_of = |pins: Option<&Path>| -> Result<Map> {
            let mut program = Program::from_file(object("pinned_map.o"), Select::Only)?;
            program.set_map_pins(pins)?;
            let outcome = xdp.attach(&interface, &mut program, Mode::Skb)?;
            let map = program.map("shared_count")?;
            ensure!(program.set_map_pins(None).is_err(), "too late");
            xdp.detach(&interface, outcome.single.unwrap().program)?;
            Ok(map)
        };
        map_of(None)?.update(&[0; 4], &7_u64.to_ne_bytes())?;
        ensure!(!maps.exists());
        map_of(Some(&maps))?.update(&[0; 4], &8_u64.to_ne_bytes())?;
        ensure!(maps.join("shared_count").exists());
        ensure!(map_of(Some(&maps))?.lookup(&[0; 4])? == 8_u64.to_ne_bytes());
        ensure!(map_of(None)?.lookup(&[0; 4])? == [0; 8]);
        std::fs::remove_file(maps.join("shared_count"))?;
        std::fs::remove_dir(maps)?;
    }
    baseline.assert_restored()
}

#[test]
fn one_namespace_found_in_four_ways_is_one() -> Result<()> {
    let namespace = Namespace::new("ways")?;
    let path = Path::new("/run/netns").join(&namespace.name);
    let by_name = Netns::by_name(&namespace.name)?;
    let by_path = Netns::from_path(&path)?;
    let by_fd = Netns::from_fd(File::open(&path)?.into())?;
    let mut sleeper =
        Command::new("ip").args(["netns", "exec", &namespace.name, "sleep", "100"]).spawn()?;
    // Until `ip` has entered the namespace, its process is still in ours.
    let entered = support::lab::soon(|| Ok(Netns::from_pid(sleeper.id())? == by_name));
    sleeper.kill()?;
    sleeper.wait()?;
    ensure!(entered?);
    ensure!(by_name == by_path && by_path == by_fd && by_name != Netns::current()?);
    ensure!(by_name.id()? == by_fd.id()? && by_name.id()?.inode == by_name.inode());
    ensure!(by_name.id()? != Netns::current()?.id()?);
    Ok(())
}

#[test]
fn an_interface_is_of_its_namespace() -> Result<()> {
    let pairs = [Pair::new("own-a", 10)?, Pair::new("own-b", 10)?];
    let of = |pair: &Pair| Interface::by_index(&pair.near.netns, 10);
    let [a, b] = pairs.each_ref().map(of);
    let (a, b) = (a?, b?);
    ensure!(a.name() == "uplink" && a.index() == b.index() && a != b);
    let error = Interface::by_name(&Netns::current()?, "uplink").unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    ip(&format!("-n {} link property add dev uplink altname {}", pairs[0].near.name, ALTNAME))?;
    ensure!(Interface::by_name(&pairs[0].near.netns, ALTNAME)? == a);
    Ok(())
}

const ALTNAME: &str = "a-name-of-more-than-fifteen-bytes";

/// What it can do without BTF is told; what it cannot too.
#[test]
fn an_object_without_btf_is_opened() -> Result<()> {
    let mut program = Program::from_file(object("no_btf.o"), Select::Only)?;
    ensure!((program.name(), program.priority()) == ("no_btf", 50), "{program:?}");
    let error = program.set_global("verdict", &[0; 4]).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoBtf), "{error}");
    Ok(())
}

#[test]
fn an_object_of_other_programs_is_refused() -> Result<()> {
    let error = Program::from_file(object("socket_filter.o"), Select::Only).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::CorruptObject(_)), "{error}");
    ensure!(error.to_string().contains("socket_filter"), "{error}");
    let error = Program::from_file(object("two_programs.o"), Select::Only).unwrap_err();
    ensure!(
        matches!(error.kind(), ErrorKind::AmbiguousProgram { available } if available.len() == 2),
        "{error}"
    );
    Ok(())
}

#[test]
fn without_privilege_the_error_says_what_is_needed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bpffs = Bpffs::new()?;
    // Refused or not, this mounts it.
    let lo = Interface::by_name(&Netns::current()?, "lo")?;
    if bpffs.xdp()?.attach(&lo, &mut counter()?, Mode::Skb).is_ok() {
        bpffs.xdp()?.detach_all(&lo)?;
    }
    // The user nobody must be able to read the test, wherever the checkout lies.
    let copy = directory.path().join("test");
    std::fs::copy(std::env::current_exe()?, &copy)?;
    for path in [directory.path(), bpffs.path()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    let mut command = child_of(&copy, "child_without_privilege");
    command.env("LIBXDP_BPFFS", bpffs.path());
    passed(&command.uid(65534).gid(65534).current_dir("/").output()?)
}

#[test]
#[ignore = "run by without_privilege_the_error_says_what_is_needed, as another user"]
fn child_without_privilege() -> Result<()> {
    let lo = Interface::by_name(&Netns::current()?, "lo")?;
    let filter = include_bytes!("../bpf/prebuilt/udp_filter.o");
    let mut program = Program::from_bytes(filter, Select::Only)?;
    let xdp = Xdp::new()?;
    ensure!(xdp.inspect(&lo)? == Occupant::Empty, "looking needs no privilege here");
    let error = xdp.attach(&lo, &mut program, Mode::Skb).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoPrivilege { .. }), "{error}");
    let error = Features::probe().unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoPrivilege { .. }), "{error}");
    let error = oxdp::Census::take().unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoPrivilege { .. }), "{error}");
    Ok(())
}

/// A process that may load programs, but not extension programs, is told what it lacks, and not that the kernel
/// lacks something.
#[test]
fn without_one_capability_the_error_names_it() -> Result<()> {
    let itself = child("child_without_capability");
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-all,+bpf,+net_admin").arg("--inh-caps=-all,+bpf,+net_admin");
    passed(&command.arg(itself.get_program()).args(itself.get_args()).output()?)
}

#[test]
#[ignore = "run by without_one_capability_the_error_names_it, with two capabilities"]
fn child_without_capability() -> Result<()> {
    let error = Features::probe().unwrap_err();
    ensure!(
        matches!(error.kind(), ErrorKind::NoPrivilege { needs } if needs.contains("CAP_PERFMON")),
        "{error}"
    );
    Ok(())
}

/// A layout that is not there is an error, but for who has chosen one.
#[test]
fn a_layout_of_the_environment_s_must_exist() -> Result<()> {
    for value in ["legacy", "netns-inode", "auto", "", "Legacy", "pod"] {
        let mut command = child("child_with_a_layout");
        passed(&command.env("OXDP_PIN_LAYOUT", value).output()?)?;
    }
    passed(&child("child_with_a_layout").env_remove("OXDP_PIN_LAYOUT").output()?)
}

#[test]
#[ignore = "run by a_layout_of_the_environment_s_must_exist, with an environment of its own"]
fn child_with_a_layout() -> Result<()> {
    let value = std::env::var("OXDP_PIN_LAYOUT").unwrap_or_default();
    let _ = Xdp::builder().layout(Legacy).build()?.with_layout(NetnsInode);
    match Xdp::new() {
        Ok(_) => ensure!(["", "auto", "legacy", "netns-inode"].contains(&value.as_str())),
        Err(error) => {
            let is_told = matches!(
                error.kind(),
                ErrorKind::BadVariable { value: told, .. } if *told == value && !value.is_empty()
            );
            ensure!(is_told && error.to_string().contains("netns-inode"), "{error}");
        }
    }
    Ok(())
}

/// `LIBXDP_BPFFS` alone finds nothing where nothing is mounted; with `LIBXDP_BPFFS_AUTOMOUNT=1` it is
/// mounted. Each in a mount namespace of its own, so nothing stays mounted.
#[test]
fn the_environment_says_where_bpffs_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for (automount, expected) in [(None, "missing"), (Some("0"), "missing"), (Some("1"), "mounted")]
    {
        let itself = child("child_with_environment");
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(itself.get_program()).args(itself.get_args());
        command.env("LIBXDP_BPFFS", directory.path()).env("OXDP_EXPECTED", expected);
        command.env_remove("LIBXDP_BPFFS_AUTOMOUNT");
        if let Some(value) = automount {
            command.env("LIBXDP_BPFFS_AUTOMOUNT", value);
        }
        passed(&command.output()?)?;
    }
    Ok(())
}

#[test]
#[ignore = "run by the_environment_says_where_bpffs_is, with an environment of its own"]
fn child_with_environment() -> Result<()> {
    let place = std::env::var("LIBXDP_BPFFS")?;
    let lo = Interface::by_name(&Netns::current()?, "lo")?;
    let attached = Xdp::new()?.attach(&lo, &mut counter()?, Mode::Skb);
    if std::env::var("OXDP_EXPECTED")? == "missing" {
        let error = attached.unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::NoBpffs(path) if path == Path::new(&place)),
            "{error}"
        );
        ensure!(error.to_string().contains("LIBXDP_BPFFS_AUTOMOUNT"), "{error}");
        return Ok(());
    }
    // Whether or not this kernel lets the program be attached, bpffs is there now.
    let pinned = attached.map(|outcome| outcome.pins);
    ensure!(Path::new(&place).join("xdp").is_dir(), "{pinned:?}");
    if let Ok(pins) = pinned {
        ensure!(pins.is_some_and(|pins| pins.starts_with(&place)));
        Xdp::new()?.detach_all(&lo)?;
    }
    Ok(())
}

/// iproute2 makes `xdp` a link to a directory of its own in a bpf file system that it finds empty.
#[test]
fn a_bpffs_that_iproute2_was_first_in_is_usable() -> Result<()> {
    let bpffs = Bpffs::new()?;
    let (xdp, pair) = (bpffs.xdp()?, Pair::new("first", 10)?);
    let interface = pair.interface()?;
    // Refused or not, this mounts it; it is made empty again.
    let _ = xdp.attach(&interface, &mut counter()?, Mode::Skb);
    if xdp.inspect(&interface)? != Occupant::Empty {
        xdp.detach_all(&interface)?;
    }
    std::fs::remove_dir(bpffs.path().join("xdp"))?;
    std::fs::create_dir(bpffs.path().join("tc"))?;
    std::os::unix::fs::symlink("tc", bpffs.path().join("xdp"))?;
    let mut alone = counter()?;
    xdp.edit(&interface).insert(&mut alone).policy(Policy::Single).mode(Mode::Skb).commit()?;
    ensure!(matches!(xdp.inspect(&interface)?, Occupant::Foreign(_)));
    xdp.detach(&interface, support::id(&alone))?;
    if let Ok(outcome) = xdp.attach(&interface, &mut counter()?, Mode::Skb) {
        let pins = outcome.pins.unwrap();
        ensure!(pins.starts_with(bpffs.path().join("tc")), "{}", pins.display());
        xdp.detach_all(&interface)?;
    }
    std::fs::remove_file(bpffs.path().join("xdp"))?;
    std::os::unix::fs::symlink("/tmp", bpffs.path().join("xdp"))?;
    let error = xdp.attach(&interface, &mut counter()?, Mode::Skb).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::UnexpectedPin { .. }), "{error}");
    Ok(())
}

/// With a dispatcher where that can be, without one where not; and then it says why.
#[test]
fn auto_says_why_there_is_no_chain() -> Result<()> {
    let bpffs = Bpffs::new()?;
    let baseline = Baseline::take_in(bpffs.path())?;
    {
        let (xdp, pair) = (bpffs.xdp()?, Pair::new("auto", 10)?);
        let interface = pair.interface()?;
        let mut program = counter()?;
        let edit = xdp.edit(&interface).insert(&mut program).policy(Policy::Auto);
        let outcome = edit.mode(Mode::Native).commit()?;
        match (&Features::probe()?.freplace, &outcome.single) {
            (Support::Yes, None) => ensure!(outcome.dispatcher.is_some(), "{outcome:?}"),
            (Support::No(why), Some(single)) => {
                ensure!(
                    single.why == *why && single.program == support::id(&program),
                    "{outcome:?}"
                );
                ensure!(outcome.dispatcher.is_none() && pair.through(7777)? == 10);
            }
            (freplace, _) => anyhow::bail!("{freplace}, and yet {outcome:?}"),
        }
        xdp.detach(&interface, support::id(&program))?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}
