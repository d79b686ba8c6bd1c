//! What was measured, and how it is told.

use crate::chart::{Bar, Panel};
use crate::rivals::{Measured, Rival};
use anyhow::Result;
use clap::ValueEnum;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// The kernel drops all packets.
    Kernel,
    /// A program receives and drops them.
    Drop,
    /// It sends.
    Send,
    /// It sends what it receives back.
    Forward,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "XDP_DROP alone",
            Self::Drop => "receive and drop",
            Self::Send => "send",
            Self::Forward => "forward",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Figures {
    cases: Vec<Case>,
    /// With the number of the round.
    measured: Vec<(Case, Rival, usize, Measured)>,
    openings: Vec<(Rival, Opened, Duration)>,
}

/// What is opened, to the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// A program, with its memory and a socket.
    Process,
    /// A socket, in a process that has had some.
    Socket,
}

const RIVALS: [Rival; 5] = [Rival::Kernel, Rival::Oxdp, Rival::FromC, Rival::C, Rival::XskRs];

impl Figures {
    pub(crate) fn new(only: &[Case]) -> Self {
        let all = Case::value_variants().iter().copied();
        let cases = all.filter(|case| only.is_empty() || only.contains(case)).collect();
        Self { cases, measured: Vec::new(), openings: Vec::new() }
    }

    pub(crate) fn cases(&self) -> Vec<Case> {
        self.cases.clone()
    }

    pub(crate) fn add(&mut self, case: Case, rival: Rival, round: usize, measured: Measured) {
        self.measured.push((case, rival, round, measured));
    }

    pub(crate) fn add_opening(&mut self, rival: Rival, opened: Opened, took: Duration) {
        self.openings.push((rival, opened, took));
    }

    fn median(&self, case: Case, rival: Rival, of: fn(&Measured) -> f64) -> Option<f64> {
        let own = self.measured.iter().filter(|(c, r, ..)| (*c, *r) == (case, rival));
        median(own.map(|(.., measured)| of(measured)).collect())
    }

    /// To C, in one round each.
    fn ratio(&self, case: Case, rival: Rival, of: fn(&Measured) -> f64) -> Option<Ratio> {
        let all = self.measured.iter().filter(|(c, r, ..)| (*c, *r) == (case, rival));
        let ratios = all.filter_map(|(_, _, round, measured)| {
            let mut theirs = self.measured.iter().filter(|(c, ..)| *c == case);
            let theirs = theirs.find(|(_, r, n, _)| (*r, n) == (Rival::C, round))?;
            Some(of(measured) / of(&theirs.3)).filter(|ratio| ratio.is_finite())
        });
        Ratio::of(ratios.collect())
    }

    fn opening(&self, rival: Rival, opened: Opened) -> Option<f64> {
        let own = self.openings.iter().filter(|(r, o, _)| (*r, *o) == (rival, opened));
        median(own.map(|(_, _, took)| took.as_secs_f64() * 1e3).collect())
    }

    /// For the chart.
    pub(crate) fn panels(&self) -> Vec<Panel> {
        let bar = |value: Option<f64>, rival: Rival, case: Case, digits| {
            value.filter(|value| value.is_finite()).map(|value| Bar {
                group: case.to_string(),
                name: rival.name(),
                value,
                digits,
            })
        };
        let each = || self.cases.iter().flat_map(|case| RIVALS.map(|rival| (*case, rival)));
        let rates = each().filter_map(|(case, rival)| {
            let rate = self.median(case, rival, |measured| measured.rate / 1e6);
            bar(rate, rival, case, 2)
        });
        let times = each().filter_map(|(case, rival)| {
            bar(self.median(case, rival, |measured| measured.cpu), rival, case, 0)
        });
        let openings = [Opened::Process, Opened::Socket].into_iter().flat_map(|opened| {
            RIVALS.into_iter().filter_map(move |rival| {
                let bar = bar(self.opening(rival, opened), rival, Case::Drop, 1);
                bar.map(|bar| Bar { group: opened.to_string(), ..bar })
            })
        });
        let panels = [
            ("Million packets a second: more is better", rates.collect::<Vec<_>>()),
            ("Processor time for a packet, ns: less is better", times.collect()),
            ("From the start to the first packet, ms: less is better", openings.collect()),
        ];
        panels.into_iter().map(|(title, bars)| Panel { title, bars }).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>16} {:>10} {:>10} {:>18} {:>10} {:>18}",
            "", "", "packets/s", "to C", "ns of CPU", "to C"
        )?;
        for case in &self.cases {
            for rival in RIVALS {
                let get = |rival, of| self.median(*case, rival, of);
                let Some(rate) = get(rival, |m| m.rate) else { continue };
                let cpu = get(rival, |m| m.cpu).filter(|cpu| cpu.is_finite());
                let to_c = |of| self.ratio(*case, rival, of).map_or("-".into(), |r| r.to_string());
                let (faster, cheaper) = (to_c(|m| m.rate), to_c(|m| m.cpu));
                let name = rival.name();
                let cpu = cpu.map_or("-".into(), |cpu| format!("{cpu:.0}"));
                write!(f, "{case:>16} {name:>10} {rate:>10.0} {faster:>18}")?;
                writeln!(f, " {cpu:>10} {cheaper:>18}")?;
            }
        }
        writeln!(f, "from the start to the first packet, ms")?;
        for opened in [Opened::Process, Opened::Socket] {
            for rival in RIVALS {
                let Some(took) = self.opening(rival, opened) else { continue };
                let ratio = self.opening(Rival::C, opened).map(|theirs| took / theirs);
                writeln!(f, "{opened:>16} {:>10} {took:>10.1} {:>18}", rival.name(), two(ratio))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "a program",
            Self::Socket => "one more socket",
        })
    }
}

/// The median of some, and between which of them it is with 95 % confidence: those so far from the middle of the sorted list
/// that fewer than one coin of 40 falls that often on one side.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small and not negative"
    )]
    fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        let count = all.len() as f64;
        let below = ((count - 1.96 * count.sqrt()) / 2.0).max(0.0) as usize;
        let median = *all.get(all.len() / 2)?;
        Some(Self { median, least: *all.get(below)?, most: *all.get(all.len() - 1 - below)? })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.least, self.most)
    }
}

fn two(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// As `AMD EPYC …, 2 processors, kernel 6.18.3`.
pub(crate) fn machine() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model =
        model.and_then(|line| line.split_once(": ")).map_or("a processor", |(_, name)| name);
    let count = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.split('-').next().unwrap_or_default();
    Ok(format!(
        "{}, {count} processors, kernel {}, veth, copy mode, 64 bytes",
        model.trim(),
        kernel.trim()
    ))
}
