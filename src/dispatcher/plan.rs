//! Who runs in which slot. Pure.

use super::config::{Config, MAX_PROGRAMS, ProtocolVersion, SlotConfig};
use crate::error::ErrorKind;
use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

/// Where a planned program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Index among the members of the present chain.
    Kept(usize),
    /// Index among the programs to add.
    Added(usize),
}

/// What the order of programs depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) name: String,
    pub(super) kind: RankKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RankKind {
    Loaded {
        tag: [u8; 8],
        load_time: Duration,
    },
    /// Not loaded: its number of instructions.
    Opened {
        size: usize,
    },
}

/// A program and the slot it will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) origin: Origin,
    /// Its id in the kernel, if it is loaded.
    pub(super) id: Option<u32>,
    pub(super) config: SlotConfig,
    pub(super) rank: Rank,
}

/// The slots of the new chain, in the order in which they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan(pub(super) Vec<Planned>);

impl Plan {
    /// Puts the programs in order.
    pub(super) fn new(mut programs: Vec<Planned>) -> Result<Self, ErrorKind> {
        if programs.len() > MAX_PROGRAMS {
            return Err(ErrorKind::ChainFull { max: MAX_PROGRAMS });
        }
        programs.sort_by(run_order);
        Ok(Self(programs))
    }

    /// The configuration of a dispatcher for it. It takes packets of several fragments only if all programs read
    /// them, and is bound to its device only if all of them ask for that and the version has it.
    pub(super) fn config(&self, version: ProtocolVersion) -> Config {
        let all = |has: fn(SlotConfig) -> bool| self.0.iter().all(|planned| has(planned.config));
        Config {
            version: version.number(),
            has_frags: all(SlotConfig::has_frags),
            is_device_bound: version >= ProtocolVersion::V3 && all(SlotConfig::is_device_bound),
            slots: self.0.iter().map(|planned| planned.config).collect(),
        }
    }

    /// What some of the programs have and `config` has not, and whose fault that is.
    pub(super) fn downgrades(&self, config: &Config) -> Vec<Downgrade> {
        let of = |feature, is_kept: bool, has: fn(SlotConfig) -> bool, otherwise| {
            let (having, lacking): (Vec<_>, Vec<_>) =
                self.0.iter().partition(|planned| has(planned.config));
            let blame = |planned: &Planned| DowngradeCause::Program {
                name: planned.rank.name.clone(),
                id: planned.id,
            };
            let causes: Vec<_> = match (is_kept || having.is_empty(), lacking.as_slice()) {
                (true, _) => Vec::new(),
                (false, []) => vec![otherwise],
                (false, lacking) => lacking.iter().map(|planned| blame(planned)).collect(),
            };
            causes.into_iter().map(move |cause| Downgrade { feature, cause })
        };
        let bound_cause = if config.version < 3 {
            DowngradeCause::ProtocolVersion
        } else {
            DowngradeCause::Kernel
        };
        of(ChainFeature::Frags, config.has_frags, SlotConfig::has_frags, DowngradeCause::Kernel)
            .chain(of(
                ChainFeature::DeviceBinding,
                config.is_device_bound,
                SlotConfig::is_device_bound,
                bound_cause,
            ))
            .collect()
    }
}

/// Something that a chain has only if all its programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChainFeature {
    /// It takes packets of several fragments.
    Frags,
    /// It is bound to its device.
    DeviceBinding,
}

/// A feature that some program of a chain has, and the chain has not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downgrade {
    /// What is lost.
    pub feature: ChainFeature,
    /// Why.
    pub cause: DowngradeCause,
}

/// Why a chain lacks a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DowngradeCause {
    /// This program does not have it.
    Program {
        /// Name of its function.
        name: String,
        /// Its id; `None` if it was loaded by the very change that tells this.
        id: Option<u32>,
    },
    /// The kernel is too old.
    Kernel,
    /// The chain's protocol version does not know it.
    ProtocolVersion,
}

impl fmt::Display for Downgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.feature {
            ChainFeature::Frags => "no packets of several fragments: ",
            ChainFeature::DeviceBinding => "not bound to the device: ",
        })?;
        match &self.cause {
            DowngradeCause::Program { name, id: Some(id) } => {
                write!(f, "{name} (id {id}) lacks it")
            }
            DowngradeCause::Program { name, id: None } => write!(f, "{name} lacks it"),
            DowngradeCause::Kernel => f.write_str("the kernel lacks it"),
            DowngradeCause::ProtocolVersion => f.write_str("the chain's protocol version lacks it"),
        }
    }
}

/// The protocol's order: by priority, then name, then loaded before not loaded; two that are not loaded by
/// size, two that are by tag, then by load time. Equal programs keep the order in which they came.
fn run_order(a: &Planned, b: &Planned) -> Ordering {
    use RankKind::{Loaded, Opened};
    let kinds = match (a.rank.kind, b.rank.kind) {
        (Loaded { .. }, Opened { .. }) => Ordering::Less,
        (Opened { .. }, Loaded { .. }) => Ordering::Greater,
        (Opened { size: a }, Opened { size: b }) => a.cmp(&b),
        (Loaded { tag: tag_a, load_time: time_a }, Loaded { tag: tag_b, load_time: time_b }) => {
            tag_a.cmp(&tag_b).then(time_a.cmp(&time_b))
        }
    };
    let by_name = || a.rank.name.as_bytes().cmp(b.rank.name.as_bytes());
    a.config.priority.cmp(&b.config.priority).then_with(by_name).then(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::ChainActions;
    use proptest::prelude::*;

    fn planned(index: usize, priority: u32, name: &str, kind: RankKind) -> Planned {
        Planned {
            origin: Origin::Added(index),
            id: None,
            config: SlotConfig { priority, actions: ChainActions::PASS, flags: 0 },
            rank: Rank { name: name.into(), kind },
        }
    }

    fn loaded(tag: u8, nanoseconds: u64) -> RankKind {
        RankKind::Loaded { tag: [tag; 8], load_time: Duration::from_nanos(nanoseconds) }
    }

    const fn opened(size: usize) -> RankKind {
        RankKind::Opened { size }
    }

    /// Each pair differs in one criterion, and the earlier ones are equal.
    #[test]
    fn each_tie_is_broken_by_the_next_criterion() {
        let order = [
            planned(0, 10, "z", opened(9)),
            planned(1, 20, "a", opened(9)),
            planned(2, 20, "b", loaded(1, 5)),
            planned(3, 20, "b", loaded(2, 3)),
            planned(4, 20, "b", loaded(2, 4)),
            planned(5, 20, "b", opened(3)),
            planned(6, 20, "b", opened(7)),
        ];
        let mut shuffled = order.to_vec();
        shuffled.reverse();
        assert_eq!(Plan::new(shuffled).unwrap().0, order);
    }

    #[test]
    fn ten_fit_and_eleven_do_not() {
        let programs = |count| (0..count).map(|i| planned(i, 1, "p", opened(1))).collect();
        assert!(Plan::new(programs(MAX_PROGRAMS)).is_ok());
        let error = Plan::new(programs(MAX_PROGRAMS + 1)).unwrap_err();
        assert!(matches!(error, ErrorKind::ChainFull { max: 10 }));
    }

    fn with_flags(flags: &[u32]) -> Plan {
        let programs = flags.iter().zip(["a", "b", "c"]).map(|(&flags, name)| {
            let mut one = planned(0, 1, name, opened(1));
            one.config.flags = flags;
            one
        });
        Plan::new(programs.collect()).unwrap()
    }

    #[test]
    fn a_chain_has_what_all_its_programs_have() {
        let config = |flags: &[u32], version| with_flags(flags).config(version);
        assert!(config(&[32, 32], ProtocolVersion::V2).has_frags);
        assert!(!config(&[32, 0], ProtocolVersion::V3).has_frags);
        assert!(config(&[64, 64 | 32], ProtocolVersion::V3).is_device_bound);
        assert!(!config(&[64, 0], ProtocolVersion::V3).is_device_bound);
        assert!(!config(&[64, 64], ProtocolVersion::V2).is_device_bound);
    }

    #[test]
    fn what_is_lost_is_told_with_whose_fault_it_is() {
        let told = |flags: &[u32], version| {
            let plan = with_flags(flags);
            let downgrades = plan.downgrades(&plan.config(version));
            downgrades.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[32, 32, 0], ProtocolVersion::V3),
            ["no packets of several fragments: c lacks it"]
        );
        assert_eq!(told(&[0, 0], ProtocolVersion::V3), [""; 0]);
        assert_eq!(told(&[32, 32], ProtocolVersion::V3), [""; 0]);
        assert_eq!(
            told(&[64], ProtocolVersion::V2),
            ["not bound to the device: the chain's protocol version lacks it"]
        );
        let plan = with_flags(&[32]);
        let config = Config { has_frags: false, ..plan.config(ProtocolVersion::V3) };
        assert_eq!(plan.downgrades(&config)[0].cause, DowngradeCause::Kernel);
    }

    proptest! {
        #[test]
        fn any_arrival_gives_the_same_order(
            keys in proptest::collection::vec((0..3_u32, "[ab]{1,2}", 0..3_u8, 0..3_u64, any::<bool>()), 0..10),
            seed: u64,
        ) {
            let programs: Vec<_> = keys
                .iter()
                .map(|(priority, name, tag, time, is_loaded)| {
                    let kind = if *is_loaded { loaded(*tag, *time) } else { opened(usize::from(*tag)) };
                    planned(0, *priority, name, kind)
                })
                .collect();
            let mut shuffled = programs.clone();
            let count = shuffled.len();
            for i in 1..count {
                shuffled.swap(i, usize::try_from(seed).unwrap() % (i + 1));
            }
            let (a, b) = (Plan::new(programs).unwrap(), Plan::new(shuffled).unwrap());
            prop_assert!(a.0.windows(2).all(|pair| run_order(&pair[0], &pair[1]) != Ordering::Greater));
            prop_assert_eq!(a, b);
        }
    }
}
