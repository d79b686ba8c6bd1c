//! What goes wrong, told once for each change of state and not in each turn.

use std::collections::BTreeMap;

/// What is wrong now: by place, and what there; the agent itself is no place.
#[derive(Debug, Default)]
pub(crate) struct Report {
    trouble: BTreeMap<(String, String), String>,
}

impl Report {
    /// Whether anything is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.trouble.is_empty()
    }

    /// How it stands with something at a place.
    pub(crate) fn tell(&mut self, place: &str, what: &str, outcome: &anyhow::Result<()>) {
        let key = (place.to_owned(), what.to_owned());
        let name = if place.is_empty() { what.to_owned() } else { format!("{what} in {place}") };
        match outcome {
            Ok(()) if self.trouble.remove(&key).is_some() => {
                log::info!("{name}: all is well again");
            }
            Ok(()) => {}
            Err(error) => {
                let text = one_line(error);
                if self.trouble.get(&key) != Some(&text) {
                    log::error!("{name}: {text}");
                    self.trouble.insert(key, text);
                }
            }
        }
    }

    /// Forgets places that are gone.
    pub(crate) fn keep_places(&mut self, is_there: impl Fn(&str) -> bool) {
        self.trouble.retain(|(place, _), _| place.is_empty() || is_there(place));
    }

    /// Forgets what is gone from a place.
    pub(crate) fn keep_of(&mut self, place: &str, is_there: impl Fn(&str) -> bool) {
        self.trouble.retain(|(own, what), _| own != place || is_there(what));
    }
}

/// How it went, for a report, of what is still to be used.
pub(crate) fn outcome<T>(result: &anyhow::Result<T>) -> anyhow::Result<()> {
    result.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// An error in one line; a cause that is part of what was said is not said again.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn trouble_lasts_until_it_is_over_or_its_object_gone() {
        let mut report = Report::default();
        let broken = || Err(anyhow!("broken"));
        report.tell("red", "eth0", &broken());
        report.tell("blue", "eth0", &broken());
        report.tell("blue", "eth1", &broken());
        report.tell("", "recovery", &broken());
        report.tell("red", "eth0", &Ok(()));
        assert_eq!(report.trouble.len(), 3);
        report.keep_of("blue", |what| what == "eth1");
        assert_eq!(report.trouble.len(), 2);
        report.keep_places(|place| place == "red");
        assert_eq!(report.trouble.len(), 1);
        report.tell("", "recovery", &Ok(()));
        assert!(report.is_clean());
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("open x: no such file").context("program a");
        assert_eq!(one_line(&error), "program a: open x: no such file");
    }
}
