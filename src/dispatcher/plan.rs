//! Who runs in which slot. Pure.

use super::config::{Config, MAX_PROGRAMS, SlotConfig, VERSION};
use crate::error::ErrorKind;
use std::cmp::Ordering;
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

    /// The configuration of a dispatcher for it. Packets of several fragments only if all programs read them.
    pub(super) fn config(&self) -> Config {
        Config {
            version: VERSION,
            has_frags: self.0.iter().all(|planned| planned.config.has_frags()),
            is_device_bound: false,
            slots: self.0.iter().map(|planned| planned.config).collect(),
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

    #[test]
    fn fragments_only_where_all_can_read_them() {
        let with = |flags: &[u32]| {
            let programs = flags.iter().map(|&flags| {
                let mut one = planned(0, 1, "p", opened(1));
                one.config.flags = flags;
                one
            });
            Plan::new(programs.collect()).unwrap().config().has_frags
        };
        assert!(with(&[32, 32]));
        assert!(!with(&[32, 0]));
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
