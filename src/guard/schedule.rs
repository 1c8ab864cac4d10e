//! When to look: soon after something has happened, never all the time, and now and then although nothing has.
//!
//! Times are counted from the start of the service.

use std::time::Duration;

/// Why to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Time has passed.
    Timer,
    /// The last look failed.
    Retry,
    /// Files under `/etc/pve` have changed.
    Files,
    /// An interface, an address, a neighbour or a route has changed.
    Network,
    /// The filter has changed: nothing may protect any more.
    Filter,
    /// The administrator asks for it.
    Request,
}

impl Cause {
    /// How long to wait for more of the same: a guest that starts changes a dozen things in a row.
    fn patience(self) -> Duration {
        match self {
            Self::Files | Self::Network => Duration::from_millis(10),
            Self::Timer | Self::Retry | Self::Filter | Self::Request => Duration::ZERO,
        }
    }

    /// How long to rest after a look, in lengths of that look.
    fn rest(self) -> u32 {
        match self {
            // A fifth of one processor at most.
            Self::Timer | Self::Retry | Self::Files | Self::Network => 4,
            // Half of one, if somebody empties the ruleset all the time.
            Self::Filter | Self::Request => 1,
        }
    }
}

/// Without any sign that something has changed.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks without a cause take at most this share of one processor: one part in two thousand.
const IDLE_SHARE: u32 = 2_000;

/// After the first failure, and doubled after each that follows.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Longest wait between two tries.
const LAST_RETRY: Duration = Duration::from_secs(10);

/// When to look next, and why.
#[derive(Debug)]
pub struct Schedule {
    due: Duration,
    cause: Cause,
    last_end: Duration,
    last_length: Duration,
    failures: u32,
}

impl Schedule {
    /// The first look is due at once.
    pub fn new() -> Self {
        let zero = Duration::ZERO;
        Self { due: zero, cause: Cause::Request, last_end: zero, last_length: zero, failures: 0 }
    }

    /// Something has happened.
    pub fn wake(&mut self, cause: Cause, now: Duration) {
        let due = (now + cause.patience()).max(self.last_end + self.last_length * cause.rest());
        if due < self.due {
            self.due = due;
            self.cause = cause;
        } else if self.due > now || self.cause < cause {
            self.cause = self.cause.max(cause);
        }
    }

    /// How long to sleep, unless something happens.
    pub fn left(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// Why the next look is made.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// A look could not be made yet. That was no work to rest from.
    pub fn put_off(&mut self, now: Duration) {
        self.last_end = now;
        self.last_length = Duration::ZERO;
        (self.cause, self.due) = (Cause::Retry, now + FIRST_RETRY);
    }

    /// A look has ended.
    pub fn looked(&mut self, began: Duration, ended: Duration, well: bool) {
        self.last_end = ended;
        self.last_length = ended.saturating_sub(began);
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        (self.cause, self.due) = match self.failures {
            0 => (Cause::Timer, ended + INTERVAL.max(self.last_length * IDLE_SHARE)),
            failures => (Cause::Retry, ended + LAST_RETRY.min(FIRST_RETRY * 2u32.saturating_pow(failures - 1))),
        };
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// After a look from 100 ms to 110 ms.
    fn rested() -> Schedule {
        let mut schedule = Schedule::new();
        assert_eq!(schedule.left(ms(0)), ms(0));
        schedule.looked(ms(100), ms(110), true);
        schedule
    }

    #[test]
    fn a_storm_is_one_look_and_looks_rest_in_between() {
        let mut schedule = rested();
        for now in 1000..1010 {
            schedule.wake(Cause::Network, ms(now));
        }
        assert_eq!(schedule.left(ms(1010)), ms(0), "the first one counts");
        schedule.looked(ms(1010), ms(1110), true);
        schedule.wake(Cause::Network, ms(1111));
        assert_eq!(schedule.left(ms(1111)), ms(399), "four times as long as it took");
        schedule.wake(Cause::Filter, ms(1112));
        assert_eq!(
            (schedule.left(ms(1112)), schedule.cause()),
            (ms(98), Cause::Filter),
            "the filter does not wait so long"
        );
        schedule.wake(Cause::Files, ms(1113));
        assert_eq!((schedule.left(ms(1113)), schedule.cause()), (ms(97), Cause::Filter));
    }

    #[test]
    fn without_events_it_looks_seldom() {
        let mut schedule = rested();
        assert_eq!((schedule.left(ms(110)), schedule.cause()), (ms(60_000), Cause::Timer));
        schedule.looked(ms(1000), ms(1200), true);
        assert_eq!(schedule.left(ms(1200)), ms(400_000), "a long look is made less often");
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly() {
        let mut schedule = rested();
        let mut waits = Vec::new();
        for _ in 0..7 {
            schedule.looked(ms(1000), ms(1000), false);
            assert_eq!(schedule.cause(), Cause::Retry);
            waits.push(schedule.left(ms(1000)).as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        schedule.wake(Cause::Files, ms(1001));
        assert_eq!(schedule.left(ms(1001)), ms(10), "a reason to hope");
        schedule.looked(ms(1000), ms(1200), true);
        schedule.put_off(ms(1400));
        assert_eq!(schedule.left(ms(1400)), ms(500));
        schedule.wake(Cause::Files, ms(1500));
        assert_eq!(schedule.left(ms(1500)), ms(10), "what it waited for has come");
        schedule.looked(ms(2000), ms(2000), true);
        schedule.looked(ms(3000), ms(3000), false);
        assert_eq!(schedule.left(ms(3000)), ms(500), "it was well in between");
    }
}
