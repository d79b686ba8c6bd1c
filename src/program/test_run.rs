//! A run of a program on a packet that never was on a wire.

use crate::error::{Context, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::bpf::RunSpec;
use libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The most by which a program can make a packet longer, in bytes: the room before and behind it in a test run's
/// page (net/bpf/test_run.c).
const GROWTH: usize = 4096;
/// What a test run takes least, in bytes: an Ethernet header. Kernels before 5.18 take less.
const SMALLEST: usize = 14;
/// How many live frames the kernel handles at a time when it is not told.
const BATCH: u32 = 64;

/// A verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `XDP_ABORTED`: dropped, with a trace of the error.
    Aborted,
    /// `XDP_DROP`
    Drop,
    /// `XDP_PASS`: on to the network stack.
    Pass,
    /// `XDP_TX`: out of the interface it came in by.
    Tx,
    /// `XDP_REDIRECT`: to where the program said.
    Redirect,
    /// A code that the kernel does not know; it drops the packet.
    Other(u32),
}

impl From<u32> for Action {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

/// As `XDP_PASS`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.pad("XDP_ABORTED"),
            Self::Drop => f.pad("XDP_DROP"),
            Self::Pass => f.pad("XDP_PASS"),
            Self::Tx => f.pad("XDP_TX"),
            Self::Redirect => f.pad("XDP_REDIRECT"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}

/// A packet to run a program on, and how: for [`Xdp::test_run`](crate::Xdp::test_run).
///
/// ```
/// use oxdp::TestRun;
///
/// let once = TestRun::new(&[0; 64]);
/// let timed = TestRun::new(&[0; 64]).repeat(100_000);
/// # let _ = (once, timed);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TestRun<'a> {
    packet: &'a [u8],
    repeat: u32,
    live: Option<u32>,
    ingress: u32,
    queue: u32,
}

impl<'a> TestRun<'a> {
    /// One run on `packet`, from its Ethernet header on: at least 14 bytes, and before kernel 5.18, where a packet has
    /// no fragments, at most a page less 576.
    pub fn new(packet: &'a [u8]) -> Self {
        Self { packet, repeat: 1, live: None, ingress: 0, queue: 0 }
    }

    /// Runs `count` times, each time on the packet as the one before left it; the default is once. A signal ends the
    /// run with `EINTR`.
    pub fn repeat(mut self, count: u32) -> Self {
        self.repeat = count.max(1);
        self
    }

    /// Says that the packet came in by this receive queue of the interface with this ifindex, in the namespace where
    /// the run takes place (kernel 5.15); without it, by the namespace's loopback.
    pub fn ingress(mut self, ifindex: u32, queue: u32) -> Self {
        (self.ingress, self.queue) = (ifindex, queue);
        self
    }

    /// Makes the packets real (`BPF_F_TEST_XDP_LIVE_FRAMES`, kernel 5.18): what the program says is done to each, so
    /// that `XDP_TX` and `XDP_REDIRECT` send it. They are handled `batch` at a time, at most 256; 0 means 64. There is
    /// no output then, and the verdict is that of no packet.
    ///
    /// Packets are made once and used again: what the program, or whoever got it, changed is as it was left in the last
    /// use. One has at most a page less 688 bytes, and less 728 on older kernels (6.1).
    pub fn live_frames(mut self, batch: u32) -> Self {
        self.live = Some(batch);
        self
    }

    /// Runs `program`, which is an XDP program and is called `what` in an error.
    pub(crate) fn run(
        &self,
        kernel: &Kernel,
        program: BorrowedFd<'_>,
        what: impl fmt::Display,
    ) -> Result<TestRunOutcome> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let end = u32::try_from(self.packet.len()).unwrap_or(u32::MAX);
        let context = [0, end, 0, self.ingress, self.queue, 0];
        let room = if self.live.is_some() { 0 } else { self.packet.len() + GROWTH };
        let mut output = vec![0; room];
        let result = kernel.test_run(
            program,
            &mut RunSpec {
                data: self.packet,
                output: &mut output,
                context: if (self.ingress, self.queue) == (0, 0) { &[] } else { &context },
                repeat: self.repeat,
                flags: if self.live.is_some() { BPF_F_TEST_XDP_LIVE_FRAMES } else { 0 },
                // Never 0 for live frames: kernels before 5.18 refuse a batch, but overlook the flag.
                batch: self.live.map_or(0, |batch| if batch == 0 { BATCH } else { batch }),
            },
        );
        let result = result.map_err(|error| self.cause(error)).during("test", what)?;
        output.truncate(result.size as usize);
        Ok(TestRunOutcome {
            action: Action::from(result.verdict),
            packet: output,
            repeat: self.repeat,
            duration: result.duration,
        })
    }

    fn cause(&self, source: io::Error) -> ErrorKind {
        let message = match source.raw_os_error() {
            Some(libc::EPERM) => {
                return ErrorKind::NoPrivilege { needs: "CAP_NET_ADMIN and CAP_BPF" };
            }
            Some(libc::ENODEV) => return ErrorKind::NoInterface,
            Some(libc::EINVAL) => self.why_invalid(),
            Some(libc::E2BIG) if self.live.is_some() => "a batch has at most 256 packets",
            // A packet of more fragments than there can be (17 pages) is told so.
            Some(libc::ENOMEM) if self.packet.len() > usize::from(u16::MAX) => {
                "the packet is too long, or memory is short"
            }
            Some(libc::EMSGSIZE) => "the packet is too long for this kernel",
            _ => "",
        };
        ErrorKind::Os { source, message: message.into() }
    }

    /// The kernel does not say which.
    fn why_invalid(&self) -> &'static str {
        let has_ingress = (self.ingress, self.queue) != (0, 0);
        match self.live {
            _ if self.packet.len() < SMALLEST => "a packet has at least 14 bytes",
            Some(_) if has_ingress => {
                "the packet is too long, there is no such ingress queue, or this kernel is older than 5.18 and has no live frames"
            }
            Some(_) => {
                "the packet is too long, or this kernel is older than 5.18 and has no live frames"
            }
            None if has_ingress => {
                "the packet is too long, there is no such ingress queue, or this kernel is older than 5.15 and takes none"
            }
            None => "the packet is too long, or the program is not for test runs",
        }
    }
}

/// What came of a [`TestRun`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestRunOutcome {
    /// The verdict of the last repetition.
    pub action: Action,
    /// The packet as the last repetition left it; empty for live frames.
    pub packet: Vec<u8>,
    /// How often the program ran.
    pub repeat: u32,
    /// How long one repetition took, on average; the kernel gives whole nanoseconds.
    pub duration: Duration,
}
