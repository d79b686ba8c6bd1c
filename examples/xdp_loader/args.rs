//! The command line. Names, short forms and defaults are those of C's `xdp-loader` where it has them.

use clap::{ArgAction, ArgGroup, Args as Arguments, Parser, Subcommand, ValueEnum};
use oxdp::{AttachBy, ChainActions, Mode, Policy, ProtocolVersion};
use std::path::PathBuf;

/// Loads, lists and unloads XDP programs, many on one interface.
#[derive(Debug, Parser)]
#[command(name = "xdp_loader", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Say what is done; twice and three times for more.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// The network namespace to work in: a name of `ip netns`, a path, or `pid:NUMBER` or a number for that of a process;
    /// default: that of this process.
    #[arg(long, value_name = "NETNS", global = true)]
    pub(crate) netns: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load XDP programs on an interface, all in one change or none.
    Load(Load),
    /// Unload XDP programs from an interface.
    Unload(Unload),
    /// Show what is loaded on the interfaces of a network namespace, or of all.
    Status(Status),
    /// Show what the running kernel can do, and why not.
    Features,
    /// Remove pins that nothing uses any more, in all network namespaces unless --netns names one.
    ///
    /// These are the remains of changes that were cut off, and the chains of interfaces that are gone. What some namespace
    /// may use that cannot be seen stays, and so does what the protocol did not put there.
    Clean(Clean),
    /// Put right what killed processes, dead namespaces and lost bpf file systems have left behind.
    ///
    /// Pins programs again that run without pins, moves the pins of interfaces that have moved, takes dead programs out of
    /// chains, and removes pins that nothing uses. Says only what it would do, unless --apply is given. What is not known
    /// for sure is left alone, and that is said too; with -v also what is as it should be.
    Recover(Recover),
}

#[derive(Debug, Arguments)]
pub(crate) struct Status {
    /// Only this interface.
    #[arg(value_name = "IFACE", conflicts_with = "all_netns")]
    pub(crate) interface: Option<String>,
    /// Those of all network namespaces that can be seen, with what `recover` would do about them.
    #[arg(long, conflicts_with = "netns")]
    pub(crate) all_netns: bool,
    /// As JSON, whose structure is described at the top of examples/xdp_loader/status/json.rs.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Arguments)]
pub(crate) struct Clean {
    /// Only tell what would be removed.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// In all network namespaces, which is what happens without it too.
    #[arg(long, conflicts_with = "netns")]
    pub(crate) all_netns: bool,
}

#[derive(Debug, Arguments)]
pub(crate) struct Recover {
    /// Do it.
    #[arg(long)]
    pub(crate) apply: bool,
    /// As JSON, whose structure is described at the top of examples/xdp_loader/recover.rs.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave dispatchers on their interfaces in which no program is left. They pass every packet.
    #[arg(long)]
    pub(crate) keep_empty: bool,
}

#[derive(Debug, Arguments)]
pub(crate) struct Load {
    /// Where the programs are to run.
    #[arg(short, long, value_enum, default_value = "native")]
    pub(crate) mode: ModeName,
    /// Directory in a bpf file system for maps that want to be pinned by name; they are not pinned without it.
    #[arg(short, long, value_name = "PIN_PATH")]
    pub(crate) pin_path: Option<PathBuf>,
    /// ELF section of the program in each file; default: the first program.
    #[arg(short, long, conflicts_with = "prog_name")]
    pub(crate) section: Option<String>,
    /// Function name of the program in each file; default: the first program.
    #[arg(short = 'n', long, value_name = "PROGNAME")]
    pub(crate) prog_name: Option<String>,
    /// Run priority, in place of what the programs say.
    #[arg(short = 'P', long, value_name = "PRIO")]
    pub(crate) prio: Option<u32>,
    /// After which actions the chain goes on, in place of what the programs say: such as `XDP_PASS,XDP_DROP`.
    #[arg(short = 'A', long, value_name = "ACTIONS", value_parser = actions)]
    pub(crate) actions: Option<ChainActions>,
    /// How a fresh chain is held on the interface.
    #[arg(long, value_enum, default_value = "netlink")]
    pub(crate) attach_by: AttachByName,
    /// In a chain, alone without one, or alone only where there can be no chain; default: `auto`, or `single` if
    /// `LIBXDP_SKIP_DISPATCHER=1` is in the environment.
    #[arg(long, value_enum)]
    pub(crate) policy: Option<PolicyName>,
    /// Dispatcher protocol of a fresh chain; C libxdp before 1.6 knows 2 only.
    #[arg(long, default_value = "3", value_parser = version)]
    pub(crate) protocol_version: ProtocolVersion,
    /// Replace the program with this id, which is part of no chain.
    #[arg(long, value_name = "ID")]
    pub(crate) replace: Option<u32>,
    /// The interface.
    #[arg(value_name = "IFACE")]
    pub(crate) interface: String,
    /// BPF objects, one program of each.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Arguments)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct Unload {
    /// The program with this id.
    #[arg(short, long, group = "what")]
    pub(crate) id: Option<u32>,
    /// The program with this name, if only one has it.
    #[arg(short, long, group = "what")]
    pub(crate) name: Option<String>,
    /// All programs, also one that is part of no chain.
    #[arg(short, long, group = "what")]
    pub(crate) all: bool,
    /// The interface.
    #[arg(value_name = "IFACE")]
    pub(crate) interface: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ModeName {
    Native,
    Skb,
    Hw,
    Unspecified,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Native => Self::Native,
            ModeName::Skb => Self::Skb,
            ModeName::Hw => Self::Hardware,
            ModeName::Unspecified => Self::Unspecified,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AttachByName {
    Netlink,
    Link,
}

impl From<AttachByName> for AttachBy {
    fn from(name: AttachByName) -> Self {
        match name {
            AttachByName::Netlink => Self::Netlink,
            AttachByName::Link => Self::Link,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyName {
    Chain,
    Single,
    Auto,
}

impl From<PolicyName> for Policy {
    fn from(name: PolicyName) -> Self {
        match name {
            PolicyName::Chain => Self::Chain,
            PolicyName::Single => Self::Single,
            PolicyName::Auto => Self::Auto,
        }
    }
}

fn actions(text: &str) -> Result<ChainActions, String> {
    let action = |name: &str| {
        let known = name.strip_prefix("XDP_").and_then(ChainActions::from_name);
        known.ok_or_else(|| {
            format!("{name} is none of XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT")
        })
    };
    text.split(',').map(action).collect()
}

fn version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "2" => Ok(ProtocolVersion::V2),
        "3" => Ok(ProtocolVersion::V3),
        _ => Err("2 or 3".into()),
    }
}
