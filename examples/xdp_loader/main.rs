//! `xdp_loader`: loads, lists and unloads XDP programs, for who knows `xdp-loader` of C libxdp; in any network namespace,
//! and with a way to recover what was lost.
//!
//! Options, output and exit statuses are those of `xdp-loader`, so that scripts go on working:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | wrong arguments, no such interface, or a command other than `load` failed |
//! | 255 | no command was given |
//! | 256 − errno | `load` failed: 254 for a file or program that is not there, 240 for an interface that is taken, … |
//!
//! `--help` and `--version` succeed, which they do not in C. Results go to stdout; errors and warnings, and with `-v`
//! what was done, to stderr.

mod args;
mod clean;
mod load;
mod netns;
mod recover;
mod report;
mod status;
mod unload;

use anyhow::{Context, Error, Result};
use args::{Args, Command};
use clap::Parser;
use clap::error::ErrorKind as Usage;
use oxdp::{ErrorKind, Features, Interface};
use std::io::Write as _;
use std::process::ExitCode;

const FAILED: u8 = 1;
const NO_COMMAND: u8 = 255;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return wrong_usage(&error),
    };
    let verbose = args.verbose;
    log_to_stderr(verbose);
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error!("{}", in_one_line(&failure.error, verbose > 0));
            ExitCode::from(failure.status)
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let asked = args.netns.as_deref();
    match &args.command {
        Command::Load(load) => load::run(load, asked)?,
        Command::Unload(unload) => unload::run(unload, asked)?,
        Command::Status(status) => status::run(status, asked)?,
        Command::Features => features()?,
        Command::Clean(clean) => clean::run(clean, asked)?,
        Command::Recover(recover) => recover::run(recover, asked, args.verbose > 0)?,
    }
    Ok(())
}

/// Why a command failed, and with which exit status.
struct Failure {
    error: Error,
    status: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, status: FAILED }
    }
}

fn wrong_usage(error: &clap::Error) -> ExitCode {
    // A closed stderr is nobody's to be told.
    let _ = error.print();
    match error.kind() {
        Usage::DisplayHelp | Usage::DisplayVersion => ExitCode::SUCCESS,
        Usage::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::from(NO_COMMAND),
        _ => ExitCode::from(FAILED),
    }
}

/// Warnings always, what was done with `-v`, the library's own steps with `-vv`, libbpf's words with `-vvv`.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| match record.level() {
            log::Level::Warn => writeln!(out, "xdp_loader: warning: {}", record.args()),
            _ => writeln!(out, "xdp_loader: {}", record.args()),
        })
        .init();
}

/// An error as one line. The verifier's log has many: the one that names the fault stands for it.
fn in_one_line(error: &Error, is_verbose: bool) -> String {
    let Some(oxdp) = error.downcast_ref::<oxdp::Error>() else { return format!("{error:#}") };
    let whole = oxdp.to_string();
    let ErrorKind::Rejected { source, log } = oxdp.kind() else { return whole };
    if is_verbose || !log.contains('\n') {
        return whole;
    }
    let said: Vec<_> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_fault = |line: &&&str| !line.starts_with("processed ") && !line.starts_with("--");
    let fault = said.iter().rfind(is_fault).unwrap_or(&"no reason given");
    format!(
        "{} {}: the kernel refused the program: {source} ({fault}; -v shows the whole log)",
        oxdp.operation(),
        oxdp.object(),
    )
}

/// The interface of that name, in the namespace that was asked for.
fn interface(name: &str, asked: Option<&str>) -> Result<Interface> {
    Ok(Interface::by_name(&netns::find(asked)?, name)?)
}

/// What the kernel can do. (C's command of this name tells what an interface's driver can do, which the library does
/// not ask.) A feature that is not there is an answer, and no failure.
fn features() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, support) in Features::probe()?.iter() {
        writeln!(out, "{:<16} {support}", format!("{name}:")).context("write")?;
    }
    Ok(())
}
