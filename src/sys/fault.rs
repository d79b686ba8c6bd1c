//! What a real kernel will not do on demand: fail at chosen calls, lose an answer, or be changed by somebody
//! just before a call.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

type Action = Box<dyn FnOnce() + Send>;

/// Records the names of all calls, and meddles with one of them.
pub(crate) struct Plan {
    seen: Mutex<Vec<&'static str>>,
    /// Which calls fail, counted from 0, and with which errno.
    failures: Range<usize>,
    errno: i32,
    death: Option<usize>,
    /// Done just before the first call of this name.
    interruption: Mutex<Option<(&'static str, Action)>>,
}

impl Plan {
    /// Only records.
    pub(crate) fn record() -> Self {
        Self {
            seen: Mutex::default(),
            failures: 0..0,
            errno: 0,
            death: None,
            interruption: Mutex::default(),
        }
    }

    /// Fails these calls with `errno`, before they reach the kernel.
    pub(crate) fn fail(failures: Range<usize>, errno: i32) -> Self {
        Self { failures, errno, ..Self::record() }
    }

    /// Ends the process, at once and without any clean-up, in place of call number `index`.
    pub(crate) fn die_at(index: usize) -> Self {
        Self { death: Some(index), ..Self::record() }
    }

    /// Does `action` just before the first call named `call`.
    pub(crate) fn interrupt(call: &'static str, action: impl FnOnce() + Send + 'static) -> Self {
        let interruption = Mutex::new(Some((call, Box::new(action) as Action)));
        Self { interruption, ..Self::record() }
    }

    /// The names of the calls so far, in order.
    pub(crate) fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn step(&self, name: &'static str) -> io::Result<()> {
        let index = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(name);
            seen.len() - 1
        };
        let due = |(call, _): &mut (&'static str, Action)| *call == name;
        if let Some((_, action)) = self.interruption.lock().unwrap().take_if(due) {
            action();
        }
        if self.death == Some(index) {
            std::process::abort();
        }
        if self.failures.contains(&index) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("failures", &self.failures).finish_non_exhaustive()
    }
}
