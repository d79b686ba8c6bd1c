//! C libxdp as a process that does what it is told; tests/peers/README.md has its commands and answers.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A refusal of C libxdp's: its errno and text.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Peer {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// With libxdp `version`, 1.3 or 1.6, in a named network namespace.
    pub(crate) fn start(version: &str, netns: &str) -> Result<Self> {
        let mut process = Self::command(version, netns)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("running nsenter")?;
        let commands = process.stdin.take().context("stdin")?;
        let answers = BufReader::new(process.stdout.take().context("stdout")?);
        Ok(Self { process, commands, answers })
    }

    /// What starts it.
    pub(crate) fn command(version: &str, netns: &str) -> Command {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/run");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).arg(run).args([version, "serve"]);
        command
    }

    /// The answer to a command, or the refusal.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Result<Vec<String>, Refusal>> {
        writeln!(self.commands, "{command}")?;
        self.commands.flush()?;
        self.answer().with_context(|| command.to_owned())
    }

    /// The answer to a command that must succeed.
    pub(crate) fn tell(&mut self, command: &str) -> Result<Vec<String>> {
        match self.ask(command)? {
            Ok(lines) => Ok(lines),
            Err(refusal) => bail!("{command}: {refusal:?}"),
        }
    }

    fn answer(&mut self) -> Result<Result<Vec<String>, Refusal>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "the peer has ended");
            let line = line.trim_end();
            if line == "ok" {
                return Ok(Ok(lines));
            }
            if let Some(error) = line.strip_prefix("error ") {
                let (errno, text) = error.split_once(' ').unwrap_or((error, ""));
                return Ok(Err(Refusal { errno: errno.parse()?, text: text.into() }));
            }
            lines.push(line.to_owned());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
