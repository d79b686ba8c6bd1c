//! The main job in one program: chains of XDP programs in two namespaces on one bpffs.
//!
//! Two namespaces, `red` and `blue`, have an interface with the same ifindex. Each gets a filter and then a
//! counter, real packets are sent, the filter is taken out of `red` alone, and everything is removed. Every
//! step is checked; the last line is `demo: ok` only if all checks held.
//!
//! Run as root: `make demo`. Where the running kernel refuses freplace, the program runs itself in a VM.

#![allow(clippy::print_stdout, reason = "the picture is the point")]

#[path = "../tests/support/lab.rs"]
#[allow(dead_code, reason = "shared with the tests, which need more of it")]
mod lab;

use anyhow::{Context, Result, bail};
use lab::{Pair, pins_in, received, soon};
use oxdp::{Census, Chain, Features, Interface, Mode, Occupant, Program, Select, Support, Xdp};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The ifindex of both interfaces.
const IFINDEX: u32 = 10;
const BLOCKED: u16 = 7777;
const OPEN: u16 = 8888;
/// Packets to each port in each step.
const COUNT: usize = 20;
/// The kernel of the VM where this machine's own will not do.
const VM_KERNEL: &str = "6.12";
const IN_VM: &str = "OXDP_QUICKSTART_IN_VM";

fn main() -> Result<ExitCode> {
    env_logger::init();
    let before = Census::take()?;
    match Features::probe()?.freplace {
        Support::Yes => demo(before),
        Support::No(why) if std::env::var_os(IN_VM).is_none() => in_vm(&why),
        Support::No(why) => bail!("not even the VM's kernel lets programs form a chain: {why}"),
    }
}

/// Runs this very program in a VM and passes on its exit status.
fn in_vm(why: &str) -> Result<ExitCode> {
    println!("This kernel cannot chain programs ({why}): running in a VM with kernel {VM_KERNEL}.");
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/run");
    let status = Command::new(&run)
        .arg(VM_KERNEL)
        .args(["--", "env", &format!("{IN_VM}=1")])
        .arg(std::env::current_exe()?)
        .status()
        .with_context(|| format!("starting {}", run.display()))?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// One namespace with its programs and what reaches its sockets.
struct Side {
    name: &'static str,
    pair: Pair,
    interface: Interface,
    filter: Program,
    counter: Program,
    blocked: UdpSocket,
    open: UdpSocket,
}

/// What a program's map has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Traffic {
    seen: u64,
    dropped: u64,
}

impl Traffic {
    /// In units of what one step sends to one port.
    fn of(seen: u64, dropped: u64) -> Self {
        Self { seen: seen * COUNT as u64, dropped: dropped * COUNT as u64 }
    }
}

impl Side {
    fn new(name: &'static str) -> Result<Self> {
        let pair = Pair::new(name, IFINDEX)?;
        let object = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/prebuilt").join(name);
            Program::from_file(path, Select::Only)
        };
        let mut filter = object("udp_filter.o")?;
        filter.set_global("blocked_port", &BLOCKED.to_ne_bytes())?;
        Ok(Self {
            name,
            interface: pair.interface()?,
            filter,
            counter: object("packet_counter.o")?,
            blocked: pair.listen(BLOCKED)?,
            open: pair.listen(OPEN)?,
            pair,
        })
    }

    /// Sends packets to both ports and tells how many got through to each.
    fn traffic(&self) -> Result<(usize, usize)> {
        self.pair.send(BLOCKED, COUNT)?;
        self.pair.send(OPEN, COUNT)?;
        // The blocked ones were sent first: when the others are here, so are all that will come.
        let mut open = 0;
        soon(|| {
            open += received(&self.open)?;
            Ok(open >= COUNT)
        })?;
        Ok((received(&self.blocked)?, open))
    }

    fn chain(&self, xdp: &Xdp) -> Result<Chain> {
        match xdp.inspect(&self.interface)? {
            Occupant::Chain(chain) => Ok(chain),
            other => bail!("no chain in {}: {other:?}", self.name),
        }
    }

    /// Prints the interface's chain, and what each program has counted by now and had `before`.
    fn print(&self, xdp: &Xdp, before: Counts) -> Result<()> {
        let interface = &self.interface;
        print!("  {:<4} ", self.name);
        print!("uplink, ifindex {}, netns inode {}", interface.index(), interface.netns().inode());
        let chain = match xdp.inspect(interface)? {
            Occupant::Empty => {
                println!(": no program");
                return Ok(());
            }
            Occupant::Chain(chain) => chain,
            other => bail!("somebody else's program: {other:?}"),
        };
        let pins = chain.pins.as_deref().context("the chain has lost its pins")?.display();
        println!(": dispatcher {}, {} mode", chain.dispatcher, chain.mode);
        println!("       pinned in {pins}");
        println!("       slot  program         id  priority  goes on after       seen    dropped");
        let now = self.counts()?;
        for member in &chain.members {
            let Some(component) = &member.component else { bail!("slot {} is empty", member.slot) };
            let is_filter = self.filter.id() == Some(component.id);
            let of = |counts: Counts| if is_filter { counts.filter } else { counts.counter };
            let (old, new) = (of(before), of(now));
            println!(
                "       {:<4}  {:<14} {:>3}  {:>8}  {:<13} {:>10} {:>10}",
                member.slot,
                component.name,
                component.id,
                member.priority,
                member.actions,
                format!("{} -> {}", old.seen, new.seen),
                format!("{} -> {}", old.dropped, new.dropped),
            );
        }
        Ok(())
    }

    /// What both programs have counted; one that is not loaded yet, nothing.
    fn counts(&self) -> Result<Counts> {
        let of = |program: &Program| match program.id() {
            Some(_) => traffic_of(program),
            None => Ok(Traffic::default()),
        };
        Ok(Counts { filter: of(&self.filter)?, counter: of(&self.counter)? })
    }
}

/// What the two programs of a side have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    filter: Traffic,
    counter: Traffic,
}

fn traffic_of(program: &Program) -> Result<Traffic> {
    let value = program.map("traffic")?.lookup(&0_u32.to_ne_bytes())?;
    let (seen, dropped) = value.split_at_checked(8).context("a value that is too short")?;
    Ok(Traffic {
        seen: u64::from_ne_bytes(seen.try_into()?),
        dropped: u64::from_ne_bytes(dropped.try_into()?),
    })
}

/// The checks so far.
#[derive(Default)]
struct Checks {
    failed: usize,
}

impl Checks {
    fn that(&mut self, holds: bool, what: &str) {
        println!("  {:<7} {what}", if holds { "ok:" } else { "FAILED:" });
        self.failed += usize::from(!holds);
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, found: &T, wanted: &T, what: &str) {
        self.that(found == wanted, what);
        if found != wanted {
            println!("          found {found:?}, wanted {wanted:?}");
        }
    }
}

/// The whole run: what is under way, and what was there before it.
struct Demo {
    xdp: Xdp,
    checks: Checks,
    sides: [Side; 2],
    before: Census,
    pins_before: Vec<PathBuf>,
}

fn demo(before: Census) -> Result<ExitCode> {
    println!("oxdp quickstart on Linux {}", kernel_release()?);
    let mut demo = Demo::new(before)?;
    demo.without_programs()?;
    demo.attach_filters()?;
    demo.add_counters()?;
    demo.take_filter_out_of_red()?;
    demo.detach_everything()
}

fn heading(number: u32, what: &str) {
    println!("\n{number}. {what}");
}

impl Demo {
    fn new(before: Census) -> Result<Self> {
        let xdp = Xdp::builder().mount_bpffs(true).build()?;
        let pins_before = pins()?;
        let sides = [Side::new("red")?, Side::new("blue")?];
        Ok(Self { xdp, checks: Checks::default(), sides, before, pins_before })
    }

    /// Sends packets on each side, shows it, and checks what got through to the two ports.
    fn traffic(&mut self, wanted: [(usize, usize); 2]) -> Result<()> {
        for (side, wanted) in self.sides.iter().zip(wanted) {
            let before = side.counts()?;
            let through = side.traffic()?;
            side.print(&self.xdp, before)?;
            let what = format!(
                "{}: {} of {COUNT} packets reach port {BLOCKED}, {} of {COUNT} reach port {OPEN}",
                side.name, wanted.0, wanted.1
            );
            self.checks.same(&through, &wanted, &what);
        }
        Ok(())
    }

    /// Checks what the programs of a side have counted.
    fn counted(
        &mut self,
        side: usize,
        filter: Traffic,
        counter: Traffic,
        what: &str,
    ) -> Result<()> {
        let side = self.sides.get(side).context("two sides")?;
        let wanted = Counts { filter, counter };
        self.checks.same(&side.counts()?, &wanted, &format!("{}: {what}", side.name));
        Ok(())
    }

    fn without_programs(&mut self) -> Result<()> {
        heading(1, "Two namespaces, one bpffs, and in each an interface with the same ifindex");
        let indices = self.sides.each_ref().map(|side| side.interface.index());
        self.checks.same(&indices, &[IFINDEX; 2], "the two interfaces have the same ifindex");
        self.traffic([(COUNT, COUNT); 2])
    }

    fn attach_filters(&mut self) -> Result<()> {
        heading(2, "A filter in each (drops UDP to port 7777, priority 10)");
        for side in &mut self.sides {
            self.xdp.attach(&side.interface, &mut side.filter, Mode::Native)?;
        }
        self.traffic([(0, COUNT); 2])?;
        for side in 0..2 {
            let what = "the filter saw all packets and dropped half";
            self.counted(side, Traffic::of(2, 1), Traffic::default(), what)?;
        }
        Ok(())
    }

    fn add_counters(&mut self) -> Result<()> {
        heading(
            3,
            "A counter behind it (priority 20): a new dispatcher takes the live one's place",
        );
        for side in &mut self.sides {
            let first = side.chain(&self.xdp)?.dispatcher;
            let outcome = self.xdp.attach(&side.interface, &mut side.counter, Mode::Native)?;
            let what = format!("{}: dispatcher {first} was replaced", side.name);
            self.checks.same(&outcome.replaced, &Some(first), &what);
        }
        self.traffic([(0, COUNT); 2])?;
        for side in 0..2 {
            let what = "the counter saw what the filter let through";
            self.counted(side, Traffic::of(4, 2), Traffic::of(1, 0), what)?;
        }
        let chains = self.sides.each_ref().map(|side| side.chain(&self.xdp));
        let [Ok(red), Ok(blue)] = &chains else { bail!("a chain is gone") };
        self.checks.that(red.is_whole() && blue.is_whole(), "both chains are whole");
        let scope = |chain: &Chain| Some(chain.pins.as_ref()?.parent()?.to_owned());
        let apart = scope(red).is_some() && scope(red) != scope(blue);
        self.checks.that(apart, "the two namespaces are pinned apart from each other");
        Ok(())
    }

    fn take_filter_out_of_red(&mut self) -> Result<()> {
        heading(4, "The filter is taken out of red; blue must not notice");
        let [red, blue] = &self.sides;
        let blue_before = blue.chain(&self.xdp)?;
        self.xdp.detach(&red.interface, red.filter.id().context("the filter is loaded")?)?;
        self.traffic([(COUNT, COUNT), (0, COUNT)])?;
        let what = "the counter saw them all, the filter none of them";
        self.counted(0, Traffic::of(4, 2), Traffic::of(3, 0), what)?;
        self.counted(1, Traffic::of(6, 3), Traffic::of(2, 0), "filter and counter went on")?;
        let [_, blue] = &self.sides;
        let what = "blue: the very same chain as before";
        self.checks.same(&blue.chain(&self.xdp)?, &blue_before, what);
        Ok(())
    }

    fn detach_everything(mut self) -> Result<ExitCode> {
        heading(5, "Everything is detached");
        for side in &self.sides {
            self.xdp.detach_all(&side.interface)?;
        }
        self.traffic([(COUNT, COUNT); 2])?;
        for side in &self.sides {
            let what = format!("{}: no program is attached", side.name);
            self.checks.same(&self.xdp.inspect(&side.interface)?, &Occupant::Empty, &what);
        }
        let Self { mut checks, sides, before, pins_before, .. } = self;
        drop(sides);
        checks.same(&pins()?, &pins_before, "bpffs is as before");
        let clean = soon(|| Ok(Census::take()?.since(&before).is_empty()))?;
        checks.that(clean, "no program, map or link is left in the kernel");
        println!("  in the kernel before: {before}; now: {}", Census::take()?);
        if checks.failed > 0 {
            println!("\ndemo: FAILED ({} checks)", checks.failed);
            return Ok(ExitCode::FAILURE);
        }
        println!("\ndemo: ok");
        Ok(ExitCode::SUCCESS)
    }
}

/// Everything that is pinned, where the environment says that bpffs is.
fn pins() -> Result<Vec<PathBuf>> {
    let bpffs = std::env::var_os("LIBXDP_BPFFS").unwrap_or_else(|| "/sys/fs/bpf".into());
    pins_in(Path::new(&bpffs))
}

fn kernel_release() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}
