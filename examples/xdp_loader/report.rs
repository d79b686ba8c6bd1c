//! What came of the lines of a plan.

use anyhow::{Result, ensure};
use oxdp::{Applied, Done};
use std::fmt;

/// How many lines came out how.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) changed: usize,
    pub(crate) outdated: usize,
    pub(crate) failed: usize,
}

impl Outcomes {
    /// Counts one, and says why it was not done; whether it was.
    pub(crate) fn count(&mut self, applied: &Applied) -> bool {
        match &applied.done {
            Done::Changed => self.changed += 1,
            Done::Outdated { why } => {
                self.outdated += 1;
                log::warn!("{}: not done, since things have changed: {why}", applied.line.action);
            }
            Done::Failed(error) => {
                self.failed += 1;
                log::error!("{}: {error}", applied.line.action);
            }
            _ => {}
        }
        matches!(applied.done, Done::Changed)
    }

    /// Fails if one has failed.
    pub(crate) fn end(&self) -> Result<()> {
        ensure!(self.failed == 0, "{} of the changes failed", self.failed);
        Ok(())
    }
}

/// As `, 1 outdated, 2 failed`; nothing if there are none.
impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, what) in [(self.outdated, "outdated"), (self.failed, "failed")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}
