//! Every network namespace is found, whatever keeps it alive. On every kernel, with own namespaces only.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Netns, NetnsId, Survey};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::lab::{Namespace, ip, soon};
use support::{child, passed};

/// One test at a time: what another one holds, or a process that it is just about to start, would be found too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process, ended when this is dropped.
struct Holder(Child);

impl Holder {
    fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }

    /// One that says when it has done what it is for.
    fn start_and_wait(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().context("stdout")?;
        let holder = Self(child);
        let mut lines = BufReader::new(said).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.ends_with("ready")));
        ensure!(ready, "{command:?} has ended");
        Ok(holder)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_namespace(survey: &Survey, id: &NetnsId) -> Vec<Netns> {
    let same = |netns: &&Netns| netns.inode() == id.inode && netns.id().is_ok_and(|own| own == id);
    survey.namespaces.iter().filter(same).cloned().collect()
}

/// The namespace, which the survey must have exactly once, under the label.
fn found_once(id: &NetnsId, label: &str) -> Result<()> {
    let survey = Netns::survey()?;
    let found = in_namespace(&survey, id);
    let [netns] = &found[..] else { anyhow::bail!("{id:?} found as {found:?} in {survey:?}") };
    ensure!(netns.to_string() == format!("netns {label} (inode {})", id.inode), "{netns}");
    let mut inodes: Vec<_> = survey.namespaces.iter().map(Netns::inode).collect();
    inodes.sort_unstable();
    ensure!(inodes.windows(2).all(|two| two.first() != two.last()), "{:?}", survey.namespaces);
    Ok(())
}

/// A namespace that nothing keeps but what `hold` has made.
fn held_only_by(
    role: &str,
    hold: impl FnOnce(&Namespace) -> Result<Holder>,
    label: impl FnOnce(u32) -> String,
) -> Result<()> {
    let namespace = Namespace::new(role)?;
    let id = namespace.netns.id()?.clone();
    let holder = hold(&namespace)?;
    drop(namespace);
    found_once(&id, &label(holder.pid()))?;
    drop(holder);
    let gone = soon(|| Ok(in_namespace(&Netns::survey()?, &id).is_empty()))?;
    ensure!(gone, "{id:?} is still found");
    Ok(())
}

#[test]
fn by_a_name() -> Result<()> {
    let _alone = alone();
    let namespace = Namespace::new("named")?;
    found_once(namespace.netns.id()?, &namespace.name)?;
    ensure!(Netns::all()?.contains(&namespace.netns) && Netns::all()?.contains(&Netns::current()?));
    Ok(())
}

#[test]
fn by_a_process() -> Result<()> {
    let _alone = alone();
    let hold = |namespace: &Namespace| {
        let path = Path::new("/run/netns").join(&namespace.name);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path.display()));
        Holder::start_and_wait(command.args(["sh", "-c", "echo ready; exec cat"]))
    };
    held_only_by("process", hold, |pid| format!("pid {pid}"))
}

#[test]
fn by_a_second_thread() -> Result<()> {
    let _alone = alone();
    let namespace = Namespace::new("thread")?;
    let id = namespace.netns.id()?.clone();
    let mut command = child("child_with_a_thread_elsewhere");
    let holder = Holder::start_and_wait(command.env("OXDP_TEST_NETNS", &namespace.name))?;
    drop(namespace);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", holder.pid()))?;
    let there = |tid: &String| {
        let link = std::fs::read_link(format!("/proc/{tid}/ns/net")).unwrap_or_default();
        link.to_str() == Some(format!("net:[{}]", id.inode).as_str())
    };
    let mut tids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let tid = tids.find(there).context("no thread is there")?;
    found_once(&id, &format!("thread {tid} of pid {}", holder.pid()))
}

#[test]
#[ignore = "run by by_a_second_thread, in a process of its own"]
fn child_with_a_thread_elsewhere() -> Result<()> {
    let Ok(name) = std::env::var("OXDP_TEST_NETNS") else { return Ok(()) };
    // The thread is started in the namespace, and stays there when we have let go of it.
    let start = || std::thread::spawn(|| std::thread::sleep(Duration::from_secs(100)));
    let thread = Netns::by_name(&name)?.run(start)?;
    println!("ready");
    thread.join().unwrap();
    Ok(())
}

#[test]
fn by_a_descriptor() -> Result<()> {
    let _alone = alone();
    let hold = |namespace: &Namespace| {
        let file = File::open(Path::new("/run/netns").join(&namespace.name))?;
        Holder::start(Command::new("sleep").arg("100").stdin(file))
    };
    held_only_by("descriptor", hold, |pid| format!("descriptor 0 of pid {pid}"))
}

#[test]
fn by_a_socket() -> Result<()> {
    let _alone = alone();
    let hold = |namespace: &Namespace| {
        let socket = namespace.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        Holder::start(Command::new("sleep").arg("100").stdin(Stdio::from(OwnedFd::from(socket))))
    };
    held_only_by("socket", hold, |pid| format!("socket 0 of pid {pid}"))
}

/// An open `/dev/net/tun` keeps a namespace as a socket does.
#[test]
fn by_a_tun() -> Result<()> {
    let _alone = alone();
    // Fails where it is part of the kernel, which is as good.
    let _ = Command::new("modprobe").arg("tun").output();
    ensure!(soon(|| Ok(Path::new("/dev/net/tun").exists()))?, "no /dev/net/tun");
    let hold = |namespace: &Namespace| {
        let tun = namespace.netns.run(|| File::open("/dev/net/tun"))??;
        Holder::start(Command::new("sleep").arg("100").stdin(tun))
    };
    held_only_by("tun", hold, |pid| format!("socket 0 of pid {pid}"))
}

/// By one of our own.
#[test]
fn by_a_socket_here() -> Result<()> {
    let _alone = alone();
    let namespace = Namespace::new("own")?;
    let id = namespace.netns.id()?.clone();
    let socket = namespace.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    drop(namespace);
    let number = std::os::fd::AsRawFd::as_raw_fd(&socket);
    found_once(&id, &format!("socket {number} of pid {}", std::process::id()))
}

/// In the mount namespace of a process that is itself elsewhere, at a path that the mount table has to escape.
#[test]
fn by_a_mount_elsewhere() -> Result<()> {
    let _alone = alone();
    let directory = tempfile::tempdir()?;
    let point = directory.path().join("a b\\c");
    File::create(&point)?;
    let hold = |namespace: &Namespace| {
        let bind = r#"mount --bind "$0" "$1" && echo ready && exec cat"#;
        let path = Path::new("/run/netns").join(&namespace.name);
        Holder::start_and_wait(in_own_mounts(bind).arg(path).arg(&point))
    };
    let label = |pid| format!("/proc/{pid}/root{}", point.display());
    held_only_by("mount", hold, label)
}

/// A shell in a mount namespace of its own. On one processor: a mount namespace can only be bound in one of a lower
/// number, and from kernel 6.18 each processor has its own stock of numbers.
fn in_own_mounts(script: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0", "unshare", "--mount", "--propagation", "private"]);
    command.args(["sh", "-c", script]);
    command
}

#[test]
fn a_bpffs_elsewhere_is_found() -> Result<()> {
    let _alone = alone();
    let directory = tempfile::tempdir()?;
    let point = directory.path().display();
    let holder = Holder::start_and_wait(&mut in_own_mounts(&format!(
        "mount -t bpf bpf {point} && mkdir {point}/below && echo ready && exec cat"
    )))?;
    let path = PathBuf::from(format!("/proc/{}/root{point}", holder.pid()));
    let survey = Netns::survey()?;
    let mut found = survey.bpffs.iter().filter(|bpffs| bpffs.path == path);
    let bpffs = found.next().with_context(|| format!("{:?}", survey.bpffs))?;
    ensure!(bpffs.device == path.metadata()?.dev() && path.join("below").is_dir());
    let same = survey.bpffs.iter().filter(|other| other.device == bpffs.device);
    ensure!(same.count() == 1, "{:?}", survey.bpffs);
    Ok(())
}

/// What is bound in a mount namespace that no process is in is found by the kernel's own list, or else told as a gap.
#[test]
fn by_a_mount_that_no_process_sees() -> Result<()> {
    let _alone = alone();
    let directory = tempfile::tempdir()?;
    let [mounts, point] = ["mounts", "point"].map(|name| directory.path().join(name));
    File::create(&mounts)?;
    File::create(&point)?;
    let namespace = Namespace::new("unseen")?;
    let id = namespace.netns.id()?.clone();
    let script = r#"unshare --mount="$0" mount --bind "$1" "$2" && echo ready && exec cat"#;
    let path = Path::new("/run/netns").join(&namespace.name);
    let holder = Holder::start_and_wait(in_own_mounts(script).args([&mounts, &path, &point]))?;
    drop(namespace);
    let tells = |survey: &Survey| survey.gaps.iter().any(|gap| gap.contains("without a process"));
    if lists_namespaces()? {
        found_once(&id, &format!("id {}", id.handle.context("a handle")?))?;
        ensure!(!tells(&Netns::survey()?));
    } else {
        let survey = Netns::survey()?;
        ensure!(in_namespace(&survey, &id).is_empty() && tells(&survey), "{survey:?}");
    }
    drop(holder);
    ensure!(soon(|| Ok(!tells(&Netns::survey()?)))?);
    Ok(())
}

/// Whether this is a kernel with listns(2) that shows everything to us.
fn lists_namespaces() -> Result<bool> {
    Ok(support::kernel()? >= (6, 19))
}

/// As root with all capabilities nothing is hidden; and if something is closed, that is told.
#[test]
fn nothing_is_hidden_from_root() -> Result<()> {
    let _alone = alone();
    let closed = |pid: &Path| {
        let link = std::fs::read_link(pid.join("ns/net"));
        link.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let processes = std::fs::read_dir("/proc")?.map(|entry| entry.unwrap().path());
    let is_closed = processes.filter(|path| path.join("status").exists()).any(|pid| closed(&pid));
    let survey = Netns::survey()?;
    ensure!(survey.is_complete() != is_closed, "{:?}", survey.gaps);
    ensure!(!is_closed || survey.gaps.len() == 1, "{:?}", survey.gaps);
    Ok(())
}

#[test]
fn what_is_closed_is_a_gap() -> Result<()> {
    let _alone = alone();
    let directory = tempfile::tempdir()?;
    // The user nobody must be able to read the test, wherever the checkout lies.
    let copy = directory.path().join("test");
    std::fs::copy(std::env::current_exe()?, &copy)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), readable)?;
    let mut command = Command::new(copy);
    command.args(["--exact", "child_to_whom_all_is_closed", "--ignored", "--nocapture"]);
    passed(&command.uid(65534).gid(65534).current_dir("/").output()?)
}

#[test]
#[ignore = "run by what_is_closed_is_a_gap, as another user"]
fn child_to_whom_all_is_closed() -> Result<()> {
    if std::fs::read_link("/proc/1/ns/net").is_ok() {
        return Ok(());
    }
    let survey = Netns::survey()?;
    ensure!(survey.namespaces.contains(&Netns::current()?));
    ensure!(survey.gaps.iter().any(|gap| gap.contains("are closed to us")), "{:?}", survey.gaps);
    ensure!(!survey.gaps.iter().any(|gap| gap.contains("pid 2,")), "kernel threads hold nothing");
    Ok(())
}

#[test]
fn another_pid_namespace_is_a_gap() -> Result<()> {
    let _alone = alone();
    let itself = child("child_in_a_pid_namespace");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(itself.get_program());
    passed(&command.args(itself.get_args()).output()?)
}

#[test]
#[ignore = "run by another_pid_namespace_is_a_gap, in a PID namespace of its own"]
fn child_in_a_pid_namespace() -> Result<()> {
    let survey = Netns::survey()?;
    let initial = std::fs::read_link("/proc/self/ns/pid")? == Path::new("pid:[4026531836]");
    let told = survey.gaps.iter().any(|gap| gap.contains("PID namespace"));
    ensure!(told != initial && survey.namespaces.contains(&Netns::current()?), "{survey:?}");
    Ok(())
}

/// Surveys do not fail, and miss nothing that is there all the while, when namespaces come and go, and each other's
/// descriptors with them.
#[test]
fn eight_surveys_while_namespaces_come_and_go() -> Result<()> {
    const TIME: Duration = Duration::from_secs(3);
    let _alone = alone();
    let namespace = Namespace::new("stays")?;
    let (id, start, done) = (namespace.netns.id()?, Instant::now(), AtomicBool::new(false));
    let survey = || -> Result<usize> {
        let mut count = 0;
        while start.elapsed() < TIME {
            let survey = Netns::survey()?;
            ensure!(in_namespace(&survey, id).len() == 1, "{survey:?}");
            count += 1;
        }
        Ok(count)
    };
    let churn = |number: u32| -> Result<()> {
        let name = format!("oxdp-churn-{}-{number}", std::process::id());
        while !done.load(Ordering::Relaxed) {
            ip(&format!("netns add {name}"))?;
            Command::new("unshare").args(["--net", "--mount", "true"]).status()?;
            ip(&format!("netns del {name}"))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let churn = &churn;
        let churns: Vec<_> = (0..2).map(|number| scope.spawn(move || churn(number))).collect();
        let surveys: Vec<_> = (0..8).map(|_| scope.spawn(survey)).collect();
        let counts: Vec<_> = surveys.into_iter().map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        churns.into_iter().try_for_each(|thread| thread.join().unwrap())?;
        for count in counts {
            ensure!(count? > 0);
        }
        Ok(())
    })
}

/// A thousand namespaces, well below a millisecond for each.
#[test]
#[ignore = "a measurement: cargo test --release --test survey -- --ignored --nocapture thousand"]
fn a_thousand_namespaces() -> Result<()> {
    const COUNT: u32 = 1000;
    let before = Netns::all()?.len();
    let namespaces = (0..COUNT).map(|_| Namespace::new("many")).collect::<Result<Vec<_>>>()?;
    for _ in 0..5 {
        let start = Instant::now();
        let survey = Netns::survey()?;
        let took = start.elapsed();
        println!("{} namespaces in {took:?}, {:?} for each", survey.namespaces.len(), took / COUNT);
        ensure!(survey.namespaces.len() >= before + namespaces.len());
        ensure!(took < COUNT * Duration::from_millis(1));
    }
    Ok(())
}
