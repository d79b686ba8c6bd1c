//! What was done so far, shown every second, and summed up at the end.

#![allow(clippy::print_stdout, reason = "this is the program's output")]

use anyhow::{Result, ensure};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use oxdp::xsk::Statistics;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked whether the time is over.
const LOOK: Duration = Duration::from_millis(10);

/// When it ends; Ctrl-C ends it too.
#[derive(Args, Debug)]
pub(crate) struct Limits {
    /// For how long
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    seconds: Option<f64>,
    /// How many packets, or a few more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn positive(text: &str) -> Result<f64> {
    let number: f64 = text.parse()?;
    ensure!(number > 0.0 && number <= 1e9, "not a positive number that makes sense");
    Ok(number)
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    bytes: AtomicU64,
    /// When the first packet had come or gone.
    first: OnceLock<Instant>,
}

/// A program at work.
#[derive(Debug)]
pub(crate) struct Run {
    /// What is done with packets, as `received`.
    verb: &'static str,
    limit: u64,
    opened: Instant,
    /// Processor time before.
    before: (i64, i64),
    shared: Arc<Shared>,
    display: Option<JoinHandle<()>>,
}

impl Run {
    /// `opened` is when the program began to open its sockets.
    pub(crate) fn start(verb: &'static str, limits: &Limits, opened: Instant) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        stop_on_signal(Arc::clone(&shared))?;
        let end = limits.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
        let bar = std::io::stdout().is_terminal().then(bar).transpose()?;
        let display = Display { verb, bar, shared: Arc::clone(&shared), end };
        let display = Some(std::thread::spawn(move || display.run()));
        let (limit, before) = (limits.count.unwrap_or(u64::MAX), cpu()?);
        Ok(Self { verb, limit, opened, before, shared, display })
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.shared.stop.load(Relaxed)
    }

    /// What was done since the last call.
    pub(crate) fn count(&self, packets: u32, bytes: u64) {
        let before = self.shared.packets.fetch_add(packets.into(), Relaxed);
        self.shared.bytes.fetch_add(bytes, Relaxed);
        if before == 0 {
            self.shared.first.get_or_init(Instant::now);
        }
        if before + u64::from(packets) >= self.limit {
            self.stop();
        }
    }

    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    /// The sum of it all. Rates are from the first packet on.
    pub(crate) fn finish(mut self, statistics: &[Statistics]) -> Result<()> {
        let (end, cpu) = (Instant::now(), cpu()?);
        self.end_display();
        let (packets, bytes) = self.shared.totals();
        let first = self.shared.first.get().copied().unwrap_or(end);
        let took = end - first;
        println!("{} {packets} packets, {bytes} bytes in {:.6} s", self.verb, took.as_secs_f64());
        println!("rate {}", rate(packets, bytes, took).trim_start());
        let (user, kernel) = (cpu.0 - self.before.0, cpu.1 - self.before.1);
        println!("cpu {user} us in the program, {kernel} us in the kernel");
        if packets > 0 {
            let after = first - self.opened;
            println!("first packet {:.3} ms after the start", after.as_secs_f64() * 1e3);
        }
        statistics.iter().for_each(tell);
        Ok(())
    }

    fn end_display(&mut self) {
        self.stop();
        if let Some(display) = self.display.take() {
            // It has nothing to say.
            let _ = display.join();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end_display();
    }
}

impl Shared {
    fn totals(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// On a thread of its own, so that the one that works need not look at a clock.
struct Display {
    verb: &'static str,
    bar: Option<ProgressBar>,
    shared: Arc<Shared>,
    end: Option<Instant>,
}

impl Display {
    fn run(self) {
        let (start, mut last, mut before) = (Instant::now(), Instant::now(), (0, 0));
        while !self.shared.stop.load(Relaxed) {
            std::thread::sleep(LOOK);
            let now = Instant::now();
            if self.end.is_some_and(|end| now >= end) {
                self.shared.stop.store(true, Relaxed);
            }
            if now - last >= PERIOD {
                let totals = self.shared.totals();
                let rate = rate(totals.0 - before.0, totals.1 - before.1, now - last);
                let seconds = (now - start).as_secs_f64();
                self.show(format!("{seconds:>5.0} s  {} {rate}", self.verb));
                (last, before) = (now, totals);
            }
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => println!("{line}"),
        }
    }
}

fn bar() -> Result<ProgressBar> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    bar.set_message("waiting");
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// A second signal ends the process at once.
fn stop_on_signal(shared: Arc<Shared>) -> Result<()> {
    ctrlc::set_handler(move || {
        if shared.stop.swap(true, Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rates are few digits and not negative"
)]
fn rate(packets: u64, bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(1e-9);
    let per_second = HumanCount((packets as f64 / seconds).round() as u64).to_string();
    format!("{per_second:>11} packets/s, {:.3} Mbit/s", bytes as f64 * 8.0 / 1e6 / seconds)
}

/// The process's own time, in microseconds: in the program and in the kernel.
fn cpu() -> Result<(i64, i64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time().num_microseconds(), usage.system_time().num_microseconds()))
}

fn tell(statistics: &Statistics) {
    let newer = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
    println!(
        "lost: {} dropped, {} since the RX ring was full, {} times without a frame, {} bad to send",
        statistics.rx_dropped,
        newer(statistics.rx_ring_full),
        newer(statistics.rx_fill_ring_empty),
        statistics.tx_invalid_descriptors,
    );
}
