//! Processes that are killed in place of one of their system calls.

use super::call::Call;
use super::tracer::Tracer;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// A process that reads commands from its stdin, a line each, and answers with lines on its stdout, of which the last is
/// `ok` or starts with `error`. It is ready for a command, and stays so: copies of it carry it out, and are the victims,
/// since to start a program for each would take longer than most of what it is started for.
pub(super) struct Original {
    /// The first command to each copy, which it is not killed at.
    preparation: Option<&'static str>,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Stopped before it reads a command.
    tracer: Tracer,
}

impl Original {
    /// Starts it, and waits until it has answered to this command; or, without one, until it has said that it is ready.
    pub(super) fn start(
        command: &mut Command,
        first: Option<&str>,
        preparation: Option<&'static str>,
    ) -> Result<Self> {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("a victim")?;
        let mut commands = process.stdin.take().context("stdin")?;
        let mut answers = BufReader::new(process.stdout.take().context("stdout")?);
        if let Some(first) = first {
            writeln!(commands, "{first}")?;
        }
        answer(&mut answers)?;
        let mut tracer = Tracer::seize(process.id())?;
        while !tracer.next()?.listens() {}
        Ok(Self { preparation, commands, answers, tracer })
    }

    /// The system calls that a command takes, which must succeed. The last one writes the answer.
    pub(super) fn calls(&mut self, command: &str) -> Result<Vec<Call>> {
        let mut copy = self.copy(None)?;
        writeln!(self.commands, "{command}")?;
        let mut calls = Vec::new();
        while !calls.last().copied().is_some_and(Call::answers) {
            calls.push(copy.next()?);
        }
        copy.next()?;
        answer(&mut self.answers).with_context(|| command.to_owned())?;
        copy.kill()?;
        Ok(calls)
    }

    /// Gives a command, and kills the copy in place of the `nth` call like this one, or of the answer if there is none
    /// that often: not every process reads as many directories.
    pub(super) fn die(&mut self, command: &str, call: Call, nth: usize) -> Result<()> {
        let mut copy = self.copy(Some(call))?;
        writeln!(self.commands, "{command}")?;
        let mut left = nth;
        loop {
            let next = copy.next()?;
            match left {
                0 if next.is_like(call) => break,
                _ if next.answers() => {
                    let text = copy.written()?;
                    ensure!(
                        !text.starts_with("error"),
                        "instead of call {nth} like {call}: {text}"
                    );
                    break;
                }
                _ => left -= usize::from(next.is_like(call)),
            }
        }
        copy.kill()
    }

    /// A copy that has been stopped before it reads a command: the next call is the first that its command takes. Stops
    /// at all of them, or only at those that are like one.
    fn copy(&mut self, call: Option<Call>) -> Result<Tracer> {
        let mut copy = self.tracer.copy()?;
        ensure!(copy.next()?.listens(), "a copy that does something else");
        if let Some(call) = call {
            copy.stop_only_before(call)?;
            ensure!(copy.next()?.listens(), "a copy that does something else");
        }
        if let Some(preparation) = self.preparation {
            writeln!(self.commands, "{preparation}")?;
            while !copy.next()?.listens() {}
            answer(&mut self.answers).context(preparation)?;
        }
        Ok(copy)
    }
}

/// The lines up to the next `ok`.
fn answer(answers: &mut BufReader<ChildStdout>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(answers.read_line(&mut line)? > 0, "it has ended after {lines:?}");
        match line.trim_end() {
            "ok" => return Ok(lines),
            line if line.starts_with("error") => bail!("{line}"),
            line => lines.push(line.to_owned()),
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // The test has had its say.
        let _ = self.tracer.kill();
    }
}
