//! What is to change in a chain, as steps; and what becomes of its programs by them. Pure.

use super::config::SlotConfig;
use super::plan::{Origin, Planned};
use crate::error::ErrorKind;
use crate::program::ChainActions;

/// One step of a change. Programs of the chain go by their ids, those that come by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Insert(usize),
    Remove(u32),
    /// The new program takes the old one's priority and actions.
    Replace(u32, usize),
    SetPriority(u32, u32),
    SetActions(u32, ChainActions),
    /// It reads packets of several fragments, which it did not say before.
    SetFrags(u32),
}

/// Does the steps one after the other. `added` tells of a program that comes.
pub(super) fn apply(
    mut chain: Vec<Planned>,
    steps: &[Step],
    added: impl Fn(usize) -> Option<Planned>,
) -> Result<Vec<Planned>, ErrorKind> {
    for step in steps {
        match *step {
            Step::Insert(index) => {
                let program = new(&chain, added(index))?;
                chain.push(program);
            }
            Step::Remove(id) => {
                let at = position(&chain, id)?;
                chain.remove(at);
            }
            Step::Replace(id, index) => {
                let program = new(&chain, added(index))?;
                let place = member(&mut chain, id)?;
                let flags = program.config.flags;
                *place = Planned { config: SlotConfig { flags, ..place.config }, ..program };
            }
            Step::SetPriority(id, priority) => member(&mut chain, id)?.config.priority = priority,
            Step::SetActions(id, actions) => member(&mut chain, id)?.config.actions = actions,
            Step::SetFrags(id) => {
                let config = &mut member(&mut chain, id)?.config;
                config.flags |= SlotConfig::flags_of(true, false);
            }
        }
    }
    Ok(chain)
}

/// A program that comes has one slot: its id is what it is taken out by.
fn new(chain: &[Planned], program: Option<Planned>) -> Result<Planned, ErrorKind> {
    let program = program.ok_or(ErrorKind::NotLoaded)?;
    match program.id {
        Some(id) if position(chain, id).is_ok() => Err(ErrorKind::AlreadyAttached { id }),
        _ => Ok(program),
    }
}

fn position(chain: &[Planned], id: u32) -> Result<usize, ErrorKind> {
    let found = chain.iter().position(|planned| planned.id == Some(id));
    found.ok_or(ErrorKind::NotInChain { id })
}

fn member(chain: &mut [Planned], id: u32) -> Result<&mut Planned, ErrorKind> {
    let found = chain.iter_mut().find(|planned| planned.id == Some(id));
    found.ok_or(ErrorKind::NotInChain { id })
}

/// Whether `chain` is what was there: the same programs in the same slots with the same settings.
pub(super) fn is_unchanged(chain: &[Planned], before: &[SlotConfig]) -> bool {
    let same = |(slot, (planned, config)): (usize, (&Planned, &SlotConfig))| {
        planned.origin == Origin::Kept(slot) && planned.config == *config
    };
    chain.len() == before.len() && chain.iter().zip(before).enumerate().all(same)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Rank, RankKind};
    use super::*;
    use proptest::prelude::*;

    fn planned(origin: Origin, id: Option<u32>, priority: u32) -> Planned {
        Planned {
            origin,
            id,
            config: SlotConfig { priority, actions: ChainActions::PASS, flags: 0 },
            rank: Rank { name: format!("{origin:?}"), kind: RankKind::Opened { size: 1 } },
        }
    }

    /// Programs 100, 101, … with priorities 0, 1, …
    fn chain(count: u32) -> Vec<Planned> {
        (0..count).map(|n| planned(Origin::Kept(n as usize), Some(100 + n), n)).collect()
    }

    #[allow(clippy::unnecessary_wraps, reason = "what apply() takes")]
    fn added(index: usize) -> Option<Planned> {
        Some(planned(Origin::Added(index), None, 50))
    }

    fn ids(chain: &[Planned]) -> Vec<Option<u32>> {
        chain.iter().map(|planned| planned.id).collect()
    }

    #[test]
    fn steps_follow_one_another() {
        let steps = [
            Step::Remove(100),
            Step::Insert(0),
            Step::SetPriority(101, 9),
            Step::SetActions(101, ChainActions::DROP),
            Step::Replace(102, 1),
            Step::SetFrags(101),
        ];
        let after = apply(chain(3), &steps, added).unwrap();
        assert_eq!(ids(&after), [Some(101), None, None]);
        assert_eq!((after[0].config.priority, after[0].config.actions), (9, ChainActions::DROP));
        assert!(after[0].config.has_frags() && !after[1].config.has_frags());
        // The replacement has its place's settings, the newcomer its own.
        assert_eq!((after[1].origin, after[1].config.priority), (Origin::Added(1), 2));
        assert_eq!((after[2].origin, after[2].config.priority), (Origin::Added(0), 50));
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        for step in [Step::Remove(7), Step::SetPriority(7, 1), Step::Replace(7, 0)] {
            let error = apply(chain(2), &[step], added).unwrap_err();
            assert!(matches!(error, ErrorKind::NotInChain { id: 7 }), "{error}");
        }
        let twice = [Step::Remove(100), Step::Remove(100)];
        assert!(matches!(apply(chain(2), &twice, added), Err(ErrorKind::NotInChain { id: 100 })));
        let again = |_| Some(planned(Origin::Added(0), Some(101), 50));
        let error = apply(chain(2), &[Step::Insert(0)], again).unwrap_err();
        assert!(matches!(error, ErrorKind::AlreadyAttached { id: 101 }), "{error}");
        // Taken out first, it can come back.
        assert!(apply(chain(2), &[Step::Remove(101), Step::Insert(0)], again).is_ok());
    }

    #[test]
    fn unchanged_is_the_same_programs_in_the_same_slots() {
        let before: Vec<_> = chain(2).iter().map(|planned| planned.config).collect();
        assert!(is_unchanged(&chain(2), &before));
        assert!(!is_unchanged(&chain(1), &before));
        let mut other = chain(2);
        other.reverse();
        assert!(!is_unchanged(&other, &before));
        let mut other = chain(2);
        other[1].config.priority = 9;
        assert!(!is_unchanged(&other, &before));
    }

    proptest! {
        #[test]
        fn the_steps_count_adds_up(
            kinds in proptest::collection::vec((0..5_u8, 98..106_u32), 0..12),
        ) {
            let steps: Vec<_> = kinds.iter().enumerate().map(|(at, (kind, id))| match kind {
                0 => Step::Insert(at),
                1 => Step::Remove(*id),
                2 => Step::Replace(*id, at),
                3 => Step::SetPriority(*id, 7),
                _ => Step::SetActions(*id, ChainActions::TX),
            }).collect();
            let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
            if let Ok(after) = apply(chain(4), &steps, added) {
                let inserts = count(|step| matches!(step, Step::Insert(_)));
                let removals = count(|step| matches!(step, Step::Remove(_)));
                prop_assert_eq!(after.len(), 4 + inserts - removals);
                let mut known: Vec<_> = ids(&after).into_iter().flatten().collect();
                let all = known.len();
                known.dedup();
                prop_assert_eq!(known.len(), all, "a program twice");
            } else {
                prop_assert!(steps.iter().any(|step| !matches!(step, Step::Insert(_))));
            }
        }
    }
}
