//! `netns_agent`: keeps a policy true on a host whose namespaces and devices come and go.
//!
//! Each turn compares what is wanted with what is there ([`steps`], pure) and makes the difference one change for each
//! interface. What happens on the machine ([`watch`]) only says where to look again, so nothing depends on a message. The
//! kernel and bpffs are all that is remembered ([`stock`] tells how the agent knows its own programs): it can be killed at
//! any instruction and started again.

mod agent;
mod change;
mod daemon;
mod order;
mod place;
mod policy;
mod recovery;
mod report;
mod steps;
mod stock;
mod version;
mod watch;

use agent::Agent;
use anyhow::{Context, Result};
use clap::{ArgAction, Parser, ValueEnum};
use daemon::Daemon;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use order::Order;
use oxdp::{Auto, Builder, Features, Legacy, NetnsInode, Policy, Xdp};
use policy::Name;
use report::{Report, one_line};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use stock::Stock;
use watch::Watch;

/// Keeps XDP programs on the interfaces of many network namespaces, as a policy says.
///
/// The policy is a file that names programs, and the interfaces of the namespaces where they run
/// (examples/netns_agent/policy.toml is a sample with all there is to say). The agent attaches what is missing, replaces
/// in place what has changed, and takes out what it has attached and the policy does not want any more. It never touches
/// programs of others: they stay in the chains, before and behind its own. What is right already is left as it is.
///
/// It looks at everything at its start and from time to time, and at a namespace whenever that is bound to a path or a
/// link in it changes. Each look at everything begins with a recovery (as `xdp_loader recover --apply` does it): what
/// killed processes and deleted namespaces have left behind is put right. What fails on one interface is told once and
/// tried again with the next look; the other interfaces have what they should have.
///
/// It can be killed at any time: the chains stay, and the next agent of the same --name knows them for its own. For that
/// its programs are pinned in netns-agent/NAME in the bpf file system.
///
/// An empty policy takes out all that an agent has put in: netns_agent --once /dev/null
///
/// SIGHUP      reads the policy and its objects again; if anything is wrong with them, that is told and the old policy
///             stays in force
/// SIGTERM, SIGINT
///             end it; the chains stay in place, unless --detach-on-exit was given
///
/// Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, Linux 5.10, and a kernel that lets programs be chained (no lockdown).
/// Exit status: 0 if all went well; 1 if the policy is wrong or, with --once, an interface could not be made right.
#[derive(Debug, Parser)]
#[command(name = "netns_agent", verbatim_doc_comment)]
struct Options {
    /// The policy's file.
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// What this agent is called; agents of different names leave each other's programs alone.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = name)]
    name: Name,
    /// Seconds from one look at everything to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    period: u64,
    /// Make everything right once, and end.
    #[arg(long)]
    once: bool,
    /// Only say what would be done, and end.
    #[arg(long)]
    dry_run: bool,
    /// At the end, take out all programs of this agent.
    #[arg(long)]
    detach_on_exit: bool,
    /// Where the pins of chains go; default: OXDP_PIN_LAYOUT in the environment, else auto.
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// The bpf file system; default: LIBXDP_BPFFS in the environment, else /sys/fs/bpf.
    #[arg(long, value_name = "PATH")]
    bpffs: Option<PathBuf>,
    /// Say more; twice also what the library does.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutName {
    /// All in xdp/, as C libxdp has them: for a single namespace.
    Legacy,
    /// Each namespace in xdp/netns-INODE/.
    NetnsInode,
    /// The host's own namespace as C libxdp has it, the others as netns-inode.
    Auto,
}

fn name(text: &str) -> Result<Name, String> {
    text.to_owned().try_into()
}

fn main() -> ExitCode {
    let options = Options::parse();
    log_to_stderr(options.verbose);
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(options: &Options) -> Result<bool> {
    let mut daemon = start(options)?;
    daemon.look_everywhere();
    if options.dry_run {
        return Ok(daemon.agent.report.is_clean());
    }
    if !options.once {
        daemon.run(Duration::from_secs(options.period))?;
    }
    if options.detach_on_exit {
        daemon.detach_all()?;
    }
    daemon.finish()?;
    Ok(!options.once || daemon.agent.report.is_clean())
}

/// With the policy loaded. Nothing has changed on any interface.
fn start(options: &Options) -> Result<Daemon> {
    // First, so that no signal ends it half-way.
    let watch = Watch::new()?;
    // Two descriptors for each namespace.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setrlimit")?;
    let order = Order::read(&options.policy)?;
    Features::probe()?.require_freplace()?;
    let bpffs = options.bpffs.clone().or_else(|| {
        let path = std::env::var_os("LIBXDP_BPFFS").filter(|path| !path.is_empty());
        path.map(PathBuf::from)
    });
    let bpffs = bpffs.unwrap_or_else(|| "/sys/fs/bpf".into());
    let mut agent = Agent {
        xdp: layout(Xdp::builder(), options.layout)?.policy(Policy::Chain).bpffs(&bpffs).build()?,
        order: Order::default(),
        stock: Stock::open(&bpffs, options.name.as_str(), options.dry_run)?,
        report: Report::default(),
        is_dry: options.dry_run,
        tried: BTreeSet::new(),
        idle: BTreeMap::new(),
    };
    agent.take(order)?;
    if !options.dry_run {
        agent.tell_order(&options.policy);
    }
    Ok(Daemon::new(agent, watch, options.policy.clone()))
}

fn layout(builder: Builder, name: Option<LayoutName>) -> Result<Builder> {
    Ok(match name {
        None => builder,
        Some(LayoutName::Legacy) => builder.layout(Legacy),
        Some(LayoutName::NetnsInode) => builder.layout(NetnsInode),
        Some(LayoutName::Auto) => builder.layout(Auto::detect()?),
    })
}

/// What is done always, its details with `-v`, the library's own steps with `-vv`.
fn log_to_stderr(verbose: u8) {
    let (own, library) = match verbose {
        0 => (log::LevelFilter::Info, log::LevelFilter::Warn),
        1 => (log::LevelFilter::Debug, log::LevelFilter::Info),
        _ => (log::LevelFilter::Trace, log::LevelFilter::Debug),
    };
    env_logger::Builder::new()
        .filter_level(library)
        .filter_module(module_path!(), own)
        .format(|out, record| match record.level() {
            log::Level::Error => writeln!(out, "netns_agent: error: {}", record.args()),
            log::Level::Warn => writeln!(out, "netns_agent: warning: {}", record.args()),
            _ => writeln!(out, "netns_agent: {}", record.args()),
        })
        .init();
}

/// What a dry run has to say.
fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("write")
}
