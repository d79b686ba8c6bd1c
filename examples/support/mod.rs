//! What the examples of AF_XDP share.

pub(crate) mod open;
pub(crate) mod packet;
pub(crate) mod run;
pub(crate) mod wait;

use anyhow::{Error, Result};
use std::process::ExitCode;

/// The end of a program: its result, or why there is none.
pub(crate) fn finish(name: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(name, &error);
            ExitCode::FAILURE
        }
    }
}

/// In one line; a cause that is part of what was said is not said again.
#[allow(clippy::print_stderr, reason = "this is the program's error output")]
fn complain(name: &str, error: &Error) {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    eprintln!("{name}: {line}");
}
