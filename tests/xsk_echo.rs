//! `examples/xsk_echo_tokio` and `xsk_dump`, as others see them: ping(8) is answered, and tcpdump(8) reads the file.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Occupant, Xdp};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use support::Baseline;
use support::lab::{Pair, UPLINK};

/// An address on the wire that no interface has.
const GHOST: &str = "10.77.0.99";

/// An example, which lies beside the tests. Cargo builds it only when asked: under it we do so, and in a VM it was
/// built before.
fn example(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("the target directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", name]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success());
    }
    Ok(profile.join("examples").join(name))
}

/// An example at work on the near end; killed at the latest when it is dropped.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Up to its first line, which it says when its socket is bound.
    fn start(pair: &Pair, name: &str, arguments: &str) -> Result<Self> {
        let mut child = Command::new(example(name)?)
            .args([UPLINK, "--netns", &pair.near.name, "--mode", "copy"])
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let mut running = Self { child, stdout };
        let mut line = String::new();
        running.stdout.read_line(&mut line)?;
        ensure!(line.contains("with copies"), "{name}: {line}");
        Ok(running)
    }

    /// What else it says, until it ends by itself.
    fn end(mut self) -> Result<String> {
        let lines = self.stdout.by_ref().lines().collect::<std::io::Result<Vec<_>>>()?;
        ensure!(self.child.wait()?.success(), "{lines:?}");
        Ok(lines.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ping(pair: &Pair, count: &str) -> Result<String> {
    let output = Command::new("ip")
        .args([
            "netns",
            "exec",
            &pair.far.name,
            "ping",
            "-c",
            count,
            "-i",
            "0.05",
            "-W",
            "5",
            GHOST,
        ])
        .output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

fn nothing_is_left(pair: &Pair, baseline: &Baseline) -> Result<()> {
    ensure!(Xdp::new()?.inspect(&pair.interface()?)? == Occupant::Empty);
    baseline.assert_restored()
}

#[test]
fn a_ping_of_a_host_that_is_a_program_is_answered() -> Result<()> {
    let (pair, baseline) = (Pair::new("echo", 10)?, Baseline::take()?);
    // One answer for each ping, and one for the question who has the address.
    let echo = Running::start(&pair, "xsk_echo_tokio", &format!("--address {GHOST} --count 21"))?;
    let said = ping(&pair, "20")?;
    ensure!(said.contains("20 received, 0% packet loss"), "{said}");
    let summary = echo.end()?;
    ensure!(summary.contains("answered 21 packets"), "{summary}");
    nothing_is_left(&pair, &baseline)
}

#[test]
fn a_capture_is_read_by_tcpdump() -> Result<()> {
    let (pair, directory, baseline) =
        (Pair::new("dump", 10)?, tempfile::tempdir()?, Baseline::take()?);
    let file = directory.path().join("uplink.pcapng");
    let arguments = format!("--write {} --count 30 --batch 1", file.display());
    let dump = Running::start(&pair, "xsk_dump", &arguments)?;
    pair.send(7777, 30)?;
    let summary = dump.end()?;
    ensure!(summary.contains("wrote 30 packets"), "{summary}");
    let said = tcpdump(&file)?;
    ensure!(
        said.lines().filter(|line| line.contains(".7777: UDP, length 4")).count() == 30,
        "{said}"
    );
    nothing_is_left(&pair, &baseline)
}

fn tcpdump(file: &Path) -> Result<String> {
    let output = Command::new("tcpdump").arg("-nr").arg(file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn each_tells_what_it_can_do() -> Result<()> {
    for name in ["xsk_echo_tokio", "xsk_dump"] {
        let output = Command::new(example(name)?).arg("--help").output()?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.success() && said.contains("--queue") && said.contains("CAP_"),
            "{said}"
        );
    }
    Ok(())
}
