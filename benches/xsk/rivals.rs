//! The programs that are compared, and the one that makes packets for them.

use crate::figures::Case;
use crate::support::lab::{NEAR, NEAR_MAC, Pair, UPLINK, WIRE};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/xsk/twin.c");
/// The first that there is.
const COMPILERS: [&str; 3] = ["clang-14", "clang", "cc"];
/// Packets that are handled at a time.
const BATCH: &str = "64";
/// Until packets come.
const START: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Oxdp,
    /// The program in C with our library in the place of C's.
    FromC,
    C,
    XskRs,
    /// No program at all.
    Kernel,
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Oxdp => "oxdp",
            Self::FromC => "from C",
            Self::C => "C libxdp",
            Self::XskRs => "xsk-rs",
            Self::Kernel => "the kernel",
        }
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Packets a second.
    pub(crate) rate: f64,
    /// Nanoseconds of the program's processor for each, in the program and in the kernel on its account.
    pub(crate) cpu: f64,
    /// From its beginning to the first packet.
    pub(crate) first: Duration,
}

/// Where the programs are.
pub(crate) struct Rivals {
    examples: PathBuf,
    twins: TempDir,
    xsk_rs: Option<PathBuf>,
    /// The folder with our `libxdp.so.1`.
    own: Option<PathBuf>,
    spin: bool,
}

impl Rivals {
    pub(crate) fn new(xsk_rs: Option<PathBuf>, own: Option<PathBuf>, spin: bool) -> Result<Self> {
        // This is target/release/deps/xsk-….
        let bench = std::env::current_exe()?;
        let examples = bench.ancestors().nth(2).context("a target directory")?.join("examples");
        let twins = tempfile::tempdir()?;
        compile(&twins.path().join("twin"))?;
        Ok(Self { examples, twins, xsk_rs, own, spin })
    }

    /// All of them, each round beginning with another one.
    pub(crate) fn from(&self, round: usize) -> Vec<Rival> {
        let xsk_rs = self.xsk_rs.as_ref().map(|_| Rival::XskRs);
        let from_c = self.own.as_ref().map(|_| Rival::FromC);
        let mut all: Vec<_> =
            [Rival::Oxdp, Rival::C].into_iter().chain(from_c).chain(xsk_rs).collect();
        let first = round % all.len();
        all.rotate_left(first);
        all
    }

    /// Runs one in the near end's namespace, for so many seconds or packets.
    pub(crate) fn run(
        &self,
        rival: Rival,
        case: Case,
        pair: &Pair,
        seconds: u32,
        count: u64,
    ) -> Result<Measured> {
        let program = self.program(rival, case)?;
        let mut command = at(&pair.near.name, Processor::Last, &program);
        if rival == Rival::Oxdp {
            command.args([UPLINK, "--mode", "copy", "--batch", BATCH]);
            command.args(["--seconds", &seconds.to_string()]);
            if count > 0 {
                command.args(["--count", &count.to_string()]);
            }
            command.args(self.spin.then_some("--spin"));
        } else {
            command.args([word(case), UPLINK, BATCH, &seconds.to_string(), &count.to_string()]);
            command.args(self.spin.then_some("spin"));
        }
        if let (Rival::FromC, Some(own)) = (rival, &self.own) {
            command.env("LD_LIBRARY_PATH", own);
        }
        let output = command.output().with_context(|| program.display().to_string())?;
        read(&output).with_context(|| rival.name())
    }

    /// How long C libxdp takes from the call to the first packet, again and again in one process.
    pub(crate) fn openings_of_c(
        &self,
        rival: Rival,
        pair: &Pair,
        rounds: usize,
    ) -> Result<Vec<Duration>> {
        let mut command = at(&pair.near.name, Processor::Last, &self.twins.path().join("twin"));
        if let (Rival::FromC, Some(own)) = (rival, &self.own) {
            command.env("LD_LIBRARY_PATH", own);
        }
        let output = command.args(["open", UPLINK, &rounds.to_string()]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let took = |line: &str| -> Result<Duration> {
            let milliseconds: f64 = line.split(' ').nth(1).context("a number")?.parse()?;
            Ok(Duration::from_secs_f64(milliseconds / 1e3))
        };
        said.lines().map(took).collect()
    }

    fn program(&self, rival: Rival, case: Case) -> Result<PathBuf> {
        match rival {
            Rival::Oxdp => Ok(self.examples.join(format!("xsk_{}", word(case)))),
            Rival::C | Rival::FromC => Ok(self.twins.path().join("twin")),
            Rival::XskRs => self.xsk_rs.clone().context("xsk-rs"),
            Rival::Kernel => bail!("the kernel is no program"),
        }
    }
}

fn word(case: Case) -> &'static str {
    match case {
        Case::Send => "tx",
        Case::Forward => "l2fwd",
        Case::Drop | Case::Kernel => "drop",
    }
}

fn compile(to: &Path) -> Result<()> {
    for compiler in COMPILERS {
        let mut command = Command::new(compiler);
        command.args(["-O2", "-o"]).arg(to).args([SOURCE, "-lxdp", "-lbpf"]);
        match command.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            status => {
                ensure!(status?.success(), "{compiler} cannot build {SOURCE} (libxdp-dev?)");
                return Ok(());
            }
        }
    }
    bail!("no C compiler: {}", COMPILERS.join(", "))
}

#[derive(Clone, Copy)]
pub(crate) enum Processor {
    First,
    Last,
}

impl Processor {
    pub(crate) fn number(self) -> usize {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self {
            Self::First => 0,
            Self::Last => count - 1,
        }
    }
}

/// A program in a namespace, on a processor of its own where there are two.
fn at(netns: &str, processor: Processor, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}"));
    command
        .args(["taskset", "-c", &processor.number().to_string()])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// What the programs write at their end.
fn read(output: &Output) -> Result<Measured> {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{errors}");
    let numbers = |begin: &[&str]| {
        let line = said.lines().rfind(|line| begin.iter().any(|begin| line.starts_with(begin)));
        let words = line.unwrap_or_default().split(|c: char| !(c.is_ascii_digit() || c == '.'));
        words.filter_map(|word| word.parse::<f64>().ok()).collect::<Vec<_>>()
    };
    let counted = numbers(&["received", "sent", "forwarded"]);
    let (cpu, first) = (numbers(&["cpu"]), numbers(&["first packet"]));
    match (&*counted, &*cpu, &*first) {
        ([packets, _, seconds], [user, kernel], [first]) => Ok(Measured {
            rate: packets / seconds.max(1e-9),
            cpu: (user + kernel) * 1e3 / packets,
            first: Duration::from_secs_f64(first / 1e3),
        }),
        _ => bail!("no packet: {said}{errors}"),
    }
}

/// Packets of 64 bytes from the far end to the near one. Ended when it is dropped.
pub(crate) struct Flood(Option<Child>);

impl Flood {
    /// For so long, as fast as it goes.
    pub(crate) fn start(pair: &Pair, rivals: &Rivals, seconds: u32) -> Result<Self> {
        let program = rivals.examples.join("xdp_flood");
        let mut command = at(&pair.far.name, Processor::First, &program);
        command.args([WIRE, "--to", NEAR, "--to-mac", NEAR_MAC]);
        command.args(["--duration", &seconds.to_string()]);
        let child = command.stdout(Stdio::piped()).spawn().context("xdp_flood")?;
        std::thread::sleep(START);
        Ok(Self(Some(child)))
    }

    /// What has arrived, once it is over.
    pub(crate) fn finish(mut self) -> Result<Measured> {
        let output = self.0.take().context("a process")?.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let number = |begin: &str, place: usize| {
            let line = said.lines().find(|line| line.starts_with(begin));
            let word = line.and_then(|line| line.split(' ').nth(place));
            word.and_then(|word| word.parse::<f64>().ok()).with_context(|| said.to_string())
        };
        // "made N packets of 64 bytes in T s" and "left N by …".
        let rate = number("left ", 1)? / number("made ", 7)?;
        Ok(Measured { rate, cpu: f64::NAN, first: Duration::ZERO })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let pid = i32::try_from(child.id()).map(Pid::from_raw);
            // It ends by itself, too.
            let _ = pid.map(|pid| kill(pid, Signal::SIGINT));
            let _ = child.wait();
        }
    }
}
