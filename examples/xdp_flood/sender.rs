//! The threads that send, each with a program and a map of its own.

use crate::pace::{Pace, Turn};
use crate::packet::{ETHERNET, Stream};
use anyhow::{Context, Result};
use oxdp::{Map, Netns, Program, Select, TestRun, Xdp};
use std::io::ErrorKind as IoErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const PROGRAM: &[u8] = include_bytes!("../../bpf/prebuilt/xdp_flood.o");
/// How long one call of the kernel is to send. It is ended by nothing but signals; and before and after it the kernel
/// waits for all processors (`synchronize_rcu`), 10 ms and more in which nothing is sent.
const CALL: Duration = Duration::from_millis(200);
/// Packets of a thread's first call, and the most of any.
const FIRST: u32 = 1024;
const MOST: u32 = 1 << 22;
/// How often the main thread looks at what is going on.
const LOOK: Duration = Duration::from_millis(20);

/// What is to be sent, and by how many.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) ifindex: u32,
    pub(crate) threads: u16,
    pub(crate) batch: u32,
    pub(crate) stream: &'a Stream,
}

/// One thread's part.
struct Sender {
    /// Only its thread takes it.
    program: Mutex<Program>,
    /// The number of packets that the program has made.
    made: Map,
}

impl Sender {
    fn made(&self) -> Result<u64> {
        let value = self.made.lookup(&0_u32.to_ne_bytes())?;
        Ok(u64::from_ne_bytes(*value.first_chunk().context("a value that is too short")?))
    }
}

pub(crate) struct Senders<'a> {
    plan: &'a Plan<'a>,
    xdp: Xdp,
    each: Vec<Sender>,
}

impl<'a> Senders<'a> {
    pub(crate) fn load(plan: &'a Plan<'a>) -> Result<Self> {
        let xdp = Xdp::new()?;
        let flood = Program::from_bytes(PROGRAM, Select::Only)?;
        let mut each = Vec::new();
        for number in 0..u64::from(plan.threads) {
            // A clone that is not loaded yet gets maps of its own.
            let mut program = flood.clone();
            plan.stream.configure(&mut program, plan.ifindex, number, plan.threads.into())?;
            // Loads it; a packet of no more than an Ethernet header it neither sends nor counts.
            xdp.test_run(&mut program, &TestRun::new(&[0; ETHERNET]))?;
            each.push(Sender { made: program.map("made")?, program: Mutex::new(program) });
        }
        Ok(Self { plan, xdp, each })
    }

    /// Packets that all have made.
    pub(crate) fn made(&self) -> Result<u64> {
        self.each.iter().map(Sender::made).sum()
    }

    /// Sends until the budget is spent or `stop` is set, and calls `look` all the while.
    pub(crate) fn run(
        &self,
        pace: &Pace,
        stop: &AtomicBool,
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        thread::scope(|scope| {
            let threads: Vec<_> = (self.each.iter())
                .map(|sender| {
                    scope.spawn(move || {
                        let sent = self.plan.netns.run(|| self.send(sender, pace, stop));
                        let sent = sent.map_err(anyhow::Error::from).flatten();
                        if sent.is_err() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        sent
                    })
                })
                .collect();
            let mut looked = Ok(());
            while looked.is_ok() && !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                thread::sleep(LOOK);
                looked = look();
            }
            if looked.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            // All are joined before the first error counts.
            let ended: Vec<_> = threads.into_iter().map(join).collect();
            ended.into_iter().chain([looked]).collect()
        })
    }

    fn send(&self, sender: &Sender, pace: &Pace, stop: &AtomicBool) -> Result<()> {
        let mut program = sender.program.lock().unwrap_or_else(PoisonError::into_inner);
        let blank = self.plan.stream.blank();
        let run = TestRun::new(&blank).live_frames(self.plan.batch);
        let mut most = FIRST;
        while !stop.load(Ordering::Relaxed) {
            let number = match pace.take(most) {
                Turn::Done => break,
                Turn::Wait(time) => {
                    thread::sleep(time);
                    continue;
                }
                Turn::Send(number) => number,
            };
            let before = sender.made()?;
            match self.xdp.test_run(&mut program, &run.clone().repeat(number)) {
                Err(error) if is_interrupted(&error) => {
                    pace.put_back(u64::from(number).saturating_sub(sender.made()? - before));
                }
                Err(error) => return Err(error.into()),
                Ok(outcome) => {
                    let fit = CALL.as_nanos() / outcome.duration.as_nanos().max(1);
                    most = u32::try_from(fit).unwrap_or(MOST).clamp(self.plan.batch, MOST);
                }
            }
        }
        Ok(())
    }
}

fn is_interrupted(error: &oxdp::Error) -> bool {
    error.errno().is_some_and(|errno| {
        std::io::Error::from_raw_os_error(errno).kind() == IoErrorKind::Interrupted
    })
}
