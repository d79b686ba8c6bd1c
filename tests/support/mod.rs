//! What the integration tests share.

pub(crate) mod lab;
pub(crate) mod peer;
pub(crate) mod traffic;
pub(crate) mod xsk;

use anyhow::{Context, Result, ensure};
use lab::pins_in;
use oxdp::{AttachedBy, Census, Chain, Interface, LibbpfObject, Program, Select, Xdp};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::ptr::NonNull;

pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// With the machine's bpffs, mounted if need be, and the default layout.
pub(crate) fn xdp() -> Result<Xdp> {
    Ok(Xdp::builder().mount_bpffs(true).build()?)
}

/// The id of a program that is loaded; 0, which none has, if it is not.
pub(crate) fn id(program: &Program) -> u32 {
    program.id().unwrap_or_default()
}

/// A shipped object, or one of `tests/bpf`.
pub(crate) fn object(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = root.join("bpf/prebuilt").join(name);
    if shipped.exists() { shipped } else { root.join("tests/bpf/prebuilt").join(name) }
}

pub(crate) fn program(name: &str) -> Result<Program> {
    Ok(Program::from_file(object(name), Select::Only)?)
}

pub(crate) fn counter() -> Result<Program> {
    program("packet_counter.o")
}

/// A filter against one UDP port.
pub(crate) fn filter(port: u16) -> Result<Program> {
    let mut filter = program("udp_filter.o")?;
    filter.set_global("blocked_port", &port.to_ne_bytes())?;
    Ok(filter)
}

/// An object that libbpf has opened.
pub(crate) fn libbpf_object(name: &str) -> Result<LibbpfObject> {
    let path = CString::new(object(name).to_str().context("path")?)?;
    // SAFETY: the path ends in NUL; libbpf answers with an object of the caller's, or NULL.
    let raw = unsafe { libbpf_sys::bpf_object__open(path.as_ptr()) };
    let raw = NonNull::new(raw).context("bpf_object__open")?;
    // SAFETY: it was opened just above, is not loaded, and nobody else has it.
    Ok(unsafe { LibbpfObject::from_raw(raw) })
}

/// Version of the running kernel.
pub(crate) fn kernel() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || Ok::<u32, anyhow::Error>(numbers.next().context("kernel version")??);
    Ok((next()?, next()?))
}

/// A UDP packet to this port.
pub(crate) fn udp(port: u16) -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet.splice(12..15, [8, 0, 0x45]);
    packet.splice(23..24, [17]);
    packet.splice(36..38, port.to_be_bytes());
    packet
}

/// Packets that a program has seen.
pub(crate) fn seen(program: &Program) -> Result<u64> {
    let value = program.map("traffic")?.lookup(&0_u32.to_ne_bytes())?;
    Ok(u64::from_ne_bytes(*value.first_chunk().context("a value that is too short")?))
}

pub(crate) fn chain(xdp: &Xdp, interface: &Interface) -> Result<Chain> {
    let occupant = xdp.inspect(interface)?;
    occupant.chain().cloned().with_context(|| format!("no chain: {occupant:?}"))
}

/// Names of the programs, in the order in which they run.
pub(crate) fn names(chain: &Chain) -> Vec<&str> {
    let members = chain.members.iter();
    members.map(|member| member.component.as_ref().map_or("-", |c| c.name.as_str())).collect()
}

/// The pins of a whole chain, and the directories and the note above them.
pub(crate) fn pins_of(chain: &Chain) -> Result<Vec<PathBuf>> {
    let root = Path::new(BPFFS).join("xdp");
    let directory = chain.pins.clone().context("a chain without pins")?;
    let slots = chain.members.iter().map(|member| member.slot);
    let mut pins: Vec<_> = slots
        .flat_map(|slot| [format!("prog{slot}-link"), format!("prog{slot}-prog")])
        .map(|name| directory.join(name))
        .collect();
    if matches!(chain.attached_by, AttachedBy::Link { .. }) {
        pins.push(directory.join("xdp-link"));
    }
    let above = directory.parent().context("a directory")?;
    if above != root {
        pins.extend([above.to_owned(), above.join("identity")]);
    }
    pins.push(directory);
    Ok(pins)
}

/// Everything below the protocol's directory in the machine's bpffs.
pub(crate) fn pins() -> Result<Vec<PathBuf>> {
    pins_in(Path::new(BPFFS))
}

/// Removes the pins of a dispatcher that no interface has any more.
pub(crate) fn remove_pins(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(std::fs::remove_dir(directory)?)
}

/// A test of this binary in a process of its own, with other credentials, in another place or environment.
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
pub(crate) fn child(test: &str) -> Command {
    child_of(&std::env::current_exe().unwrap(), test)
}

/// The same, of a copy of the binary.
pub(crate) fn child_of(binary: &Path, test: &str) -> Command {
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command
}

/// Fails if a child's test did.
pub(crate) fn passed(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    Ok(())
}

/// What was there before a test, so that the test can see that it left nothing.
#[derive(Debug)]
pub(crate) struct Baseline {
    bpffs: PathBuf,
    census: Census,
    pins: Vec<PathBuf>,
    descriptors: usize,
}

impl Baseline {
    pub(crate) fn take() -> Result<Self> {
        Self::take_in(Path::new(BPFFS))
    }

    /// With another bpffs than the machine's.
    pub(crate) fn take_in(bpffs: &Path) -> Result<Self> {
        let (census, pins) = (Census::take()?, pins_in(bpffs)?);
        Ok(Self { bpffs: bpffs.to_owned(), census, pins, descriptors: descriptors()? })
    }

    /// What was pinned.
    pub(crate) fn pins(&self) -> &[PathBuf] {
        &self.pins
    }

    /// Fails if a program, map, link, pin or descriptor is left that was not there before.
    pub(crate) fn assert_restored(&self) -> Result<()> {
        let left = || Census::take().map(|census| census.since(&self.census));
        let clean = lab::soon(|| Ok(left()?.is_empty()))?;
        ensure!(clean, "left in the kernel: {:?}", left()?);
        let pins = pins_in(&self.bpffs)?;
        ensure!(pins == self.pins, "left in bpffs: {pins:?}");
        let descriptors = descriptors()?;
        ensure!(
            descriptors == self.descriptors,
            "{descriptors} descriptors, not {}",
            self.descriptors
        );
        Ok(())
    }
}

fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
