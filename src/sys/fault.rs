//! Makes one chosen system call fail: what a real kernel will not do on demand.

use std::io;
use std::sync::Mutex;

/// Fails the call number `fail_at` (counted from 0) and records the names of all calls.
#[derive(Debug)]
pub(crate) struct Plan {
    fail_at: Option<usize>,
    errno: i32,
    seen: Mutex<Vec<&'static str>>,
}

impl Plan {
    /// Only records.
    pub(crate) fn record() -> Self {
        Self {
            fail_at: None,
            errno: 0,
            seen: Mutex::default(),
        }
    }

    /// Fails call number `index` with `errno`, before it reaches the kernel.
    pub(crate) fn fail_at(index: usize, errno: i32) -> Self {
        Self {
            fail_at: Some(index),
            errno,
            seen: Mutex::default(),
        }
    }

    /// The names of the calls so far, in order.
    pub(crate) fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn step(&self, name: &'static str) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let index = seen.len();
        seen.push(name);
        if self.fail_at == Some(index) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}
