//! `examples/xdp_flood`: what it says that it sent is what arrives, and is sound. It needs live frames (kernel 5.18);
//! an older kernel must be told so.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Mode, Policy, Program, Xdp};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::lab::{NEAR, NEAR_MAC, Pair, UPLINK, WIRE, ip, soon};
use support::{Baseline, counter, kernel, seen};

const NEAR_6: &str = "fd77::1";
const FAR_6: &str = "fd77::2";
const PORT: u16 = 7777;

/// The example, which lies beside the tests. Cargo builds it only when asked: under it we do so, and in a VM it was
/// built before.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("the target directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", "xdp_flood"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success());
    }
    Ok(profile.join("examples/xdp_flood"))
}

/// Two ends, with a program at the near one that counts and passes.
struct Lab {
    xdp: Xdp,
    pair: Pair,
    counter: Program,
}

impl Lab {
    fn new(role: &str) -> Result<Self> {
        let xdp = Xdp::builder().policy(Policy::Single).build()?;
        let (pair, mut counter) = (Pair::new(role, 10)?, counter()?);
        xdp.attach(&pair.interface()?, &mut counter, Mode::Native)?;
        Ok(Self { xdp, pair, counter })
    }

    fn command(&self, arguments: &str) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(["--netns", &self.pair.far.name, WIRE]).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs it to its end, which must be a good one.
    fn flood(&self, arguments: &str) -> Result<Summary> {
        Summary::read(&self.command(arguments)?.output()?)
    }

    fn fails(&self, arguments: &str, words: &str) -> Result<()> {
        let output = self.command(arguments)?.output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{said}");
        ensure!(said.trim().lines().count() == 1 && said.contains(words), "{said}");
        Ok(())
    }

    /// Addresses, which the other packets of IPv6 must not come before.
    fn with_ipv6(&self) -> Result<()> {
        let ends = [(&self.pair.near, UPLINK, NEAR_6), (&self.pair.far, WIRE, FAR_6)];
        for (end, device, address) in ends {
            let knob = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            end.netns.run(|| std::fs::write(&knob, "0"))??;
            ip(&format!("-n {} addr add {address}/64 dev {device} nodad", end.name))?;
        }
        let far = &self.pair.far.name;
        ip(&format!("-n {far} neigh replace {NEAR_6} lladdr {NEAR_MAC} dev {WIRE} nud permanent"))
    }
}

/// What the example said at its end.
#[derive(Clone, Copy, Debug)]
struct Summary {
    made: u64,
    left: u64,
    rate: f64,
    seconds: f64,
}

impl Summary {
    fn read(output: &Output) -> Result<Self> {
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}{errors}");
        let word = |start: &str, number: usize| {
            let line = said.lines().find(|line| line.starts_with(start));
            let word = line.and_then(|line| line.split_whitespace().nth(number));
            word.with_context(|| format!("{start} {number} in {said}"))
        };
        Ok(Self {
            made: word("made", 1)?.parse()?,
            left: word("left", 1)?.parse()?,
            rate: word("rate", 1)?.replace(',', "").parse()?,
            seconds: word("made", 7)?.parse()?,
        })
    }
}

/// Whether this kernel has live frames; if not, that it is said.
fn has_live_frames(lab: &Lab) -> Result<bool> {
    if kernel()? >= (5, 18) {
        return Ok(true);
    }
    lab.fails(&format!("--to {NEAR} --count 10"), "older than 5.18")?;
    ensure!(seen(&lab.counter)? == 0);
    Ok(false)
}

#[test]
fn every_packet_arrives() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let lab = Lab::new("exact")?;
        if has_live_frames(&lab)? {
            let mut total = 0;
            // Slow enough for the 256 frames that a veth holds, even where the receiver is late.
            for (count, more) in [
                (1, ""),
                (200, ""),
                (777, "--batch 32 --size 1514 --rate 4000"),
                (1500, "--batch 8 --threads 3 --rate 4000"),
            ] {
                let summary = lab.flood(&format!("--to {NEAR} --count {count} {more}"))?;
                ensure!(summary.made == count && summary.left >= count, "{summary:?}");
                total += count;
                ensure!(soon(|| Ok(seen(&lab.counter)? == total))?, "{}", seen(&lab.counter)?);
            }
        }
        lab.xdp.detach(&lab.pair.interface()?, support::id(&lab.counter))?;
    }
    baseline.assert_restored()
}

/// How often each pair of ports, source and destination, was received.
type Received = BTreeMap<(u16, u16), usize>;

/// Receives on these sockets while `work` is done, and until `count` packets have come.
fn receive<T: Send>(
    sockets: &[UdpSocket],
    count: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Received)> {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Received::new();
            let mut end = None;
            while received.values().sum::<usize>() < count
                && end.is_none_or(|end: Instant| end.elapsed() < Duration::from_secs(5))
            {
                if end.is_none() && is_done.load(Ordering::Relaxed) {
                    end = Some(Instant::now());
                }
                for socket in sockets {
                    while let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
                        let pair = (from.port(), socket.local_addr().unwrap().port());
                        *received.entry(pair).or_default() += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            received
        });
        let worked = work();
        is_done.store(true, Ordering::Relaxed);
        Ok((worked?, receiver.join().unwrap()))
    })
}

/// The near end has dropped no UDP packet, of either family, for its checksum.
fn no_bad_checksum(lab: &Lab) -> Result<()> {
    let read = |name| {
        let path = format!("/proc/thread-self/net/{name}");
        lab.pair.near.netns.run(|| std::fs::read_to_string(path))
    };
    // Names in one line, values in the next.
    let ipv4 = read("snmp")??;
    let mut lines = ipv4.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let ipv4 = names.split_whitespace().zip(values.split_whitespace());
    // A name and a value in each line.
    let ipv6 = read("snmp6")??;
    let ipv6 = ipv6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let counted: Vec<_> = ipv4
        .chain(ipv6)
        .filter(|(name, _)| ["InCsumErrors", "Udp6InCsumErrors"].contains(name))
        .map(|(_, value)| value.trim())
        .collect();
    ensure!(counted == ["0", "0"], "{counted:?}");
    Ok(())
}

/// Sockets take only what has sound checksums; and the kernel counts what has not.
fn every_pair_of_ports(lab: &Lab, address: &str, size: usize) -> Result<()> {
    let open = |port| -> Result<UdpSocket> {
        let socket = lab.pair.near.netns.run(|| UdpSocket::bind((address, port)))??;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let sockets: Vec<_> = (PORT..PORT + 4).map(open).collect::<Result<_>>()?;
    let last = PORT + 3;
    let arguments = format!(
        "--to {address} --to-port {PORT}-{last} --from-port 1000-1009 --count 400 --rate 1000 --size {size}"
    );
    for threads in [1, 3] {
        let arguments = format!("{arguments} --threads {threads}");
        let (summary, received) = receive(&sockets, 400, || lab.flood(&arguments))?;
        ensure!(summary.made == 400, "{summary:?}");
        let counted: usize = received.values().sum();
        // While we wait for a processor a receive buffer may be full: some are lost there, on a busy machine.
        ensure!((300..=400).contains(&counted) && received.len() == 40, "{counted}: {received:?}");
        let most = if threads == 1 { 10 } else { 15 };
        ensure!(received.values().all(|count| *count <= most), "{received:?}");
    }
    no_bad_checksum(lab)
}

#[test]
fn ipv4_checksums_are_valid_and_ports_are_spread() -> Result<()> {
    let lab = Lab::new("ipv4")?;
    if has_live_frames(&lab)? {
        for size in [42, 43, 64, 1400] {
            every_pair_of_ports(&lab, NEAR, size)?;
        }
    }
    Ok(())
}

#[test]
fn ipv6_checksums_are_valid_and_ports_are_spread() -> Result<()> {
    let lab = Lab::new("ipv6")?;
    if has_live_frames(&lab)? {
        lab.with_ipv6()?;
        for size in [62, 65, 1400] {
            every_pair_of_ports(&lab, NEAR_6, size)?;
        }
    }
    Ok(())
}

/// A checksum that comes to zero, of which there is one in 65,536, is sent as ones.
#[test]
fn every_port_has_a_valid_checksum() -> Result<()> {
    let lab = Lab::new("ports")?;
    if !has_live_frames(&lab)? {
        return Ok(());
    }
    let (socket, before) = (lab.pair.listen(PORT)?, seen(&lab.counter)?);
    let arguments =
        format!("--to {NEAR} --to-port {PORT} --from-port 0-65535 --count 65536 --rate 20000");
    let (summary, received) = receive(&[socket], 65536, || lab.flood(&arguments))?;
    ensure!(summary.made == 65536 && summary.left > 60_000, "{summary:?}");
    ensure!(soon(|| Ok(seen(&lab.counter)? - before == summary.left))?, "{summary:?}");
    // A receive buffer holds few frames of a page each: many are lost there, but none for its checksum.
    ensure!(received.len() > 1000, "{}", received.len());
    no_bad_checksum(&lab)
}

#[test]
fn a_modest_rate_is_kept() -> Result<()> {
    let lab = Lab::new("rate")?;
    if !has_live_frames(&lab)? {
        return Ok(());
    }
    for (rate, threads) in [(100.0, 1), (2000.0, 1), (2000.0, 2)] {
        let before = seen(&lab.counter)?;
        let arguments = format!("--to {NEAR} --rate {rate} --threads {threads} --duration 3");
        let summary = lab.flood(&arguments)?;
        // A busy machine may not let it have as many, but it never sends more.
        ensure!(summary.rate > 0.0 && summary.rate < rate * 1.1, "{rate}: {summary:?}");
        ensure!((2.9..4.0).contains(&summary.seconds), "{summary:?}");
        let arrived = soon(|| Ok(seen(&lab.counter)? - before == summary.made))?;
        ensure!(arrived, "{} of {summary:?}", seen(&lab.counter)? - before);
    }
    Ok(())
}

/// A signal ends it, with the summary.
#[test]
fn an_interrupt_ends_it_with_the_summary() -> Result<()> {
    let lab = Lab::new("signal")?;
    if !has_live_frames(&lab)? {
        return Ok(());
    }
    for signal in ["-INT", "-TERM"] {
        let before = seen(&lab.counter)?;
        let flood: Child = lab.command(&format!("--to {NEAR} --rate 1000"))?.spawn()?;
        ensure!(soon(|| Ok(seen(&lab.counter)? > before))?, "nothing arrived");
        let pid = flood.id().to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success());
        let summary = Summary::read(&flood.wait_with_output()?)?;
        let arrived = soon(|| Ok(seen(&lab.counter)? - before == summary.made))?;
        ensure!(arrived, "{} of {summary:?}", seen(&lab.counter)? - before);
    }
    Ok(())
}

#[test]
fn what_cannot_be_sent_is_told_in_one_line() -> Result<()> {
    let lab = Lab::new("refused")?;
    for (arguments, words) in [
        ("--to 10.77.0.99", "no neighbour 10.77.0.99: ping it first, or say --to-mac"),
        ("--to 239.1.1.1", "multicast"),
        ("--to 10.77.0.1 --size 41", "42 bytes"),
        ("--to 10.77.0.1 --size 1515", "MTU is 1500"),
        ("--to 10.77.0.1 --from ::1", "same family"),
        ("--to 192.0.2.1 --to-mac 02:00:00:00:00:01", "say --from"),
    ] {
        lab.fails(arguments, words)?;
    }
    for wrong in ["--count 0", "--batch 257", "--rate -1", "--to-port 9-8", "--to-mac 1:2"] {
        let output = lab.command(&format!("--to {NEAR} {wrong}"))?.output()?;
        ensure!(output.status.code() == Some(2), "{wrong}: {output:?}");
    }
    Ok(())
}

/// The other end has no program that takes frames: they do not leave, and that is said.
#[test]
fn frames_that_do_not_leave_are_told() -> Result<()> {
    let lab = Lab::new("nowhere")?;
    if has_live_frames(&lab)? {
        lab.xdp.detach(&lab.pair.interface()?, support::id(&lab.counter))?;
        let output = lab.command(&format!("--to {NEAR} --count 100"))?.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = Summary::read(&output)?;
        ensure!(summary.left == 0 && said.contains("none left"), "{said}");
    }
    Ok(())
}
