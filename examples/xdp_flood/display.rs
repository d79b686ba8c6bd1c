//! The rate while packets are sent, and the sum of it all.

#![allow(clippy::print_stdout, reason = "this is the program's output")]

use crate::network::Uplink;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
/// How often the interface's counter is read again until it stands still.
const LOOK: Duration = Duration::from_millis(20);

/// What was counted at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    made: u64,
    left: u64,
}

impl Sample {
    fn take(uplink: &Uplink, made: u64) -> Result<Self> {
        Ok(Self { at: Instant::now(), made, left: uplink.sent()?.packets })
    }
}

pub(crate) struct Display<'a> {
    uplink: &'a Uplink,
    size: usize,
    first: Sample,
    last: Sample,
    /// Where there is a terminal.
    bar: Option<ProgressBar>,
}

impl<'a> Display<'a> {
    pub(crate) fn new(uplink: &'a Uplink, size: usize) -> Result<Self> {
        let first = Sample::take(uplink, 0)?;
        let bar = std::io::stdout().is_terminal().then(bar).transpose()?;
        Ok(Self { uplink, size, first, last: first, bar })
    }

    /// Shows the rate of the last second, once that has passed.
    pub(crate) fn tick(&mut self, made: u64) -> Result<()> {
        if self.last.at.elapsed() < PERIOD {
            return Ok(());
        }
        let now = Sample::take(self.uplink, made)?;
        let left = now.left - self.last.left;
        let line = format!(
            "{:>5.0} s  {}  left {}: {}",
            (now.at - self.first.at).as_secs_f64(),
            self.rate(now.made - self.last.made, now.at - self.last.at),
            self.uplink,
            grouped(left),
        );
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => println!("{line}"),
        }
        self.last = now;
        Ok(())
    }

    /// The sum; waits until the interface has counted everything, at most for `patience`.
    pub(crate) fn finish(self, made: u64, patience: Duration) -> Result<()> {
        let end = Instant::now();
        let mut left = self.uplink.sent()?.packets - self.first.left;
        while left < made && end.elapsed() < patience {
            sleep(LOOK);
            left = self.uplink.sent()?.packets - self.first.left;
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = end - self.first.at;
        println!("made {} packets of {} bytes in {:.3} s", made, self.size, took.as_secs_f64());
        println!("rate {}", self.rate(made, took).trim());
        println!(
            "left {left} by the tx_packets of {}, {} lost",
            self.uplink,
            made.saturating_sub(left)
        );
        if left == 0 && made > 0 {
            println!(
                "none left: the driver sends no redirected packets, the link is down, or {} is a veth \
                 whose other end has neither an XDP program nor GRO",
                self.uplink
            );
        }
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate of three digits after the point")]
    fn rate(&self, packets: u64, time: Duration) -> String {
        let seconds = time.as_secs_f64().max(1e-9);
        let per_second = packets as f64 / seconds;
        let megabits = per_second * self.size as f64 * 8.0 / 1e6;
        format!("{:>11} packets/s  {megabits:>9.3} Mbit/s", grouped(rounded(per_second)))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "packets per second are few and not negative"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn bar() -> Result<ProgressBar> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    bar.set_message("sending");
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
