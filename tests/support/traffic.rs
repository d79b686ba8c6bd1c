//! Packets that flow all the while, to a port that a filter blocks and to an open one.

use super::lab::{NEAR, Pair, received};
use anyhow::{Context, Result, ensure};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const BLOCKED: u16 = 7777;
const OPEN: u16 = 8888;

const PAUSE: Duration = Duration::from_millis(1);
/// How long the rounds that a packet surely arrives in may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How many packets were sent to each port, and how many got through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: usize,
    pub(crate) open: usize,
    pub(crate) blocked: usize,
}

impl Counts {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            open: self.open - earlier.open,
            blocked: self.blocked - earlier.blocked,
        }
    }
}

/// Sends from the far end of a wire to the near one until it is dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    counts: Arc<Mutex<Counts>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Traffic {
    pub(crate) fn start(pair: &Pair) -> Result<Self> {
        let stream = Stream {
            sender: pair.sender()?,
            open: pair.listen(OPEN)?,
            blocked: pair.listen(BLOCKED)?,
        };
        let (counts, done) = <(Arc<Mutex<Counts>>, Arc<AtomicBool>)>::default();
        let shared = (Arc::clone(&counts), Arc::clone(&done));
        let thread = std::thread::spawn(move || stream.run(&shared.0, &shared.1));
        Ok(Self { counts, done, thread: Some(thread) })
    }

    /// The counts, once every packet that was sent before this call has arrived or is lost.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let now = || *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, before) = (Instant::now(), now());
        // One round may be half done, and one more is for a packet that comes late.
        while now().sent < before.sent + 3 {
            let stopped = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(!stopped && start.elapsed() < LIMIT, "no packet is sent any more");
            std::thread::sleep(PAUSE);
        }
        Ok(now())
    }

    /// Ends it, with the error that may have ended it before.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.done.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a thread")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has had its say.
            let _ = thread.join();
        }
    }
}

struct Stream {
    sender: UdpSocket,
    open: UdpSocket,
    blocked: UdpSocket,
}

impl Stream {
    fn run(&self, shared: &Mutex<Counts>, done: &AtomicBool) -> Result<()> {
        let mut counts = Counts::default();
        while !done.load(Ordering::Relaxed) {
            for port in [BLOCKED, OPEN] {
                self.sender.send_to(b"oxdp", (NEAR, port))?;
            }
            counts.sent += 1;
            std::thread::sleep(PAUSE);
            counts.open += received(&self.open)?;
            counts.blocked += received(&self.blocked)?;
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        }
        Ok(())
    }
}
