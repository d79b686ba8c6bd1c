//! From what is wanted on an interface and what is there to what is to be done. Pure.

use crate::version::Version;
use oxdp::ChainActions;
use std::fmt;

/// A program that the policy wants in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) version: Version,
    pub(crate) priority: u32,
    pub(crate) actions: ChainActions,
}

/// A program of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Have {
    /// Its id.
    pub(crate) program: u32,
    pub(crate) priority: u32,
    pub(crate) actions: ChainActions,
    /// What it is, if it is ours.
    pub(crate) version: Option<Version>,
}

/// A step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Remove(&'a Have),
    Replace(&'a Have, &'a Want),
    /// Gives it its priority and actions.
    Adjust(&'a Have, &'a Want),
    Insert(&'a Want),
}

/// Makes those programs of a chain that are ours the wanted ones, of which no two are of one rule. A program that is right
/// is not touched, nor one that is not ours. Removals come first, so that their slots are free.
pub(crate) fn steps<'a>(wants: &'a [Want], chain: &'a [Have]) -> Vec<Step<'a>> {
    let kept: Vec<_> = wants.iter().map(|want| (want, place(want, chain))).collect();
    let is_kept = |have: &Have| kept.iter().any(|(_, place)| *place == Some(have));
    let spare = chain.iter().filter(|have| have.version.is_some() && !is_kept(have));
    let changes = kept.iter().filter_map(|(want, place)| match place {
        None => Some(Step::Insert(want)),
        Some(have) if have.version.as_ref() != Some(&want.version) => {
            Some(Step::Replace(have, want))
        }
        Some(have) if (have.priority, have.actions) != (want.priority, want.actions) => {
            Some(Step::Adjust(have, want))
        }
        Some(_) => None,
    });
    spare.map(Step::Remove).chain(changes).collect()
}

/// Which program of a chain is the wanted one, or else another version of it.
fn place<'a>(want: &Want, chain: &'a [Have]) -> Option<&'a Have> {
    let is_it = |have: &&Have| have.version.as_ref() == Some(&want.version);
    let is_of_rule =
        |have: &&Have| have.version.as_ref().is_some_and(|own| own.rule() == want.version.rule());
    chain.iter().find(is_it).or_else(|| chain.iter().find(is_of_rule))
}

impl fmt::Display for Have {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.version.as_ref().map_or("(not ours)", Version::rule);
        write!(f, "{rule} (program {})", self.program)
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(have) => write!(f, "take out {have}"),
            Self::Replace(have, want) => write!(f, "replace {have} by version {}", want.version),
            Self::Adjust(have, want) => {
                write!(f, "give {have} priority {} and actions {}", want.priority, want.actions)
            }
            Self::Insert(want) => write!(f, "attach {}", want.version.rule()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(rule: u8, digest: u8) -> Version {
        format!("{}-{}", char::from(b'a' + rule), format!("{digest:02x}").repeat(16))
            .parse()
            .unwrap()
    }

    fn want(rule: u8, digest: u8, priority: u32) -> Want {
        Want { version: version(rule, digest), priority, actions: ChainActions::PASS }
    }

    fn have(program: u32, version: Option<Version>, priority: u32) -> Have {
        Have { program, priority, actions: ChainActions::PASS, version }
    }

    #[test]
    fn each_case_has_its_step() {
        let wants = [want(0, 1, 10), want(1, 1, 20), want(2, 1, 30), want(3, 1, 40)];
        let chain = [
            have(100, Some(version(0, 1)), 10),
            have(101, Some(version(1, 1)), 99),
            have(102, Some(version(2, 9)), 30),
            have(103, Some(version(4, 1)), 50),
            have(104, None, 60),
        ];
        let expected = [
            Step::Remove(&chain[3]),
            Step::Adjust(&chain[1], &wants[1]),
            Step::Replace(&chain[2], &wants[2]),
            Step::Insert(&wants[3]),
        ];
        assert_eq!(steps(&wants, &chain), expected);
    }

    /// As after a kill in a change that was made by hand: the right version stays where it is.
    #[test]
    fn of_two_versions_the_right_one_stays() {
        let wants = [want(0, 1, 10)];
        let chain = [have(100, Some(version(0, 9)), 10), have(101, Some(version(0, 1)), 10)];
        assert_eq!(steps(&wants, &chain), [Step::Remove(&chain[0])]);
    }

    /// Does what an edit does.
    fn apply(mut chain: Vec<Have>, steps: &[Step<'_>]) -> Vec<Have> {
        for step in steps {
            let at = |chain: &[Have], have: &Have| {
                chain.iter().position(|own| own.program == have.program).unwrap()
            };
            let new = |id, want: &Want| Have {
                actions: want.actions,
                ..have(id, Some(want.version.clone()), want.priority)
            };
            match step {
                Step::Remove(old) => drop(chain.remove(at(&chain, old))),
                Step::Replace(old, want) => {
                    let at = at(&chain, old);
                    chain[at] = new(old.program + 1000, want);
                }
                Step::Adjust(old, want) => {
                    let at = at(&chain, old);
                    chain[at] = new(old.program, want);
                }
                Step::Insert(want) => {
                    chain.push(new(2000 + u32::try_from(chain.len()).unwrap(), want));
                }
            }
        }
        chain
    }

    proptest! {
        /// Ours are what is wanted, the others are what they were, and then there is nothing to do.
        #[test]
        fn one_change_is_enough(
            wanted in proptest::collection::btree_map(0..6_u8, (0..3_u8, 0..3_u32), 0..6),
            present in proptest::collection::vec((0..9_u8, 0..3_u8, 0..3_u32), 0..8),
        ) {
            let wants: Vec<_> = wanted.iter().map(|(rule, (digest, p))| want(*rule, *digest, *p)).collect();
            let chain: Vec<_> = (100..).zip(&present).map(|(id, (rule, digest, priority))| {
                have(id, (*rule < 6).then(|| version(*rule, *digest)), *priority)
            }).collect();
            let after = apply(chain.clone(), &steps(&wants, &chain));
            let foreign = |chain: &[Have]| {
                chain.iter().filter(|have| have.version.is_none()).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(foreign(&after), foreign(&chain));
            let mut own: Vec<_> = after.iter().filter_map(|have| {
                Some(Want { version: have.version.clone()?, priority: have.priority, actions: have.actions })
            }).collect();
            own.sort_by(|a, b| a.version.cmp(&b.version));
            let mut expected = wants.clone();
            expected.sort_by(|a, b| a.version.cmp(&b.version));
            prop_assert_eq!(own, expected);
            prop_assert!(steps(&wants, &after).is_empty());
        }
    }
}
