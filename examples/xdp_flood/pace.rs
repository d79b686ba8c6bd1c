//! How many packets may be made by now, for all threads together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait before a thread looks whether it is to stop.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// The shortest wait: below that, a kernel call for each packet or two would cost more than the packets.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// What was missed longer ago than that is not made up for: the stream would come in a burst.
const MEMORY: Duration = Duration::from_millis(250);

/// What a thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Send(u32),
    Wait(Duration),
    Done,
}

/// A budget of packets, which grows with time where there is a rate.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<f64>,
    budget: Mutex<Budget>,
}

#[derive(Debug)]
struct Budget {
    /// Packets that are yet to be sent; `None` for no end.
    left: Option<u64>,
    /// Packets that the rate allows, and when that was.
    tokens: f64,
    counted: Instant,
}

impl Pace {
    pub(crate) fn new(count: Option<u64>, rate: Option<f64>) -> Self {
        let budget = Budget { left: count, tokens: 0.0, counted: Instant::now() };
        Self { rate, budget: Mutex::new(budget) }
    }

    /// Takes at most `most` packets out of the budget.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens are few and not negative"
    )]
    pub(crate) fn take(&self, most: u32) -> Turn {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let left = budget.left.map_or(most, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let mut number = most.min(left);
        if number == 0 {
            return Turn::Done;
        }
        if let Some(rate) = self.rate {
            budget.grow(rate);
            number = number.min(budget.tokens as u32);
            if number == 0 {
                let missing = Duration::from_secs_f64(((1.0 - budget.tokens) / rate).min(1.0));
                return Turn::Wait(missing.clamp(SHORTEST_WAIT, LONGEST_WAIT));
            }
            budget.tokens -= f64::from(number);
        }
        if let Some(left) = &mut budget.left {
            *left -= u64::from(number);
        }
        Turn::Send(number)
    }

    /// Puts back what was taken and not sent.
    pub(crate) fn put_back(&self, number: u64) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = &mut budget.left {
            *left += number;
        }
    }
}

impl Budget {
    fn grow(&mut self, rate: f64) {
        let now = Instant::now();
        let most = (rate * MEMORY.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + rate * (now - self.counted).as_secs_f64()).min(most);
        self.counted = now;
    }
}
