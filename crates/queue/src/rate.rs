//! The rate limit of one lane.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Spaces starts evenly: two starts are at least a minute divided by the rate apart, so no 60 s contain more starts
/// than the rate.
///
/// The latest start is recorded without a limit too, so that a limit that is set later counts from it.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    spacing: Option<Duration>,
    /// The latest start that counts.
    latest: Option<Instant>,
    /// Starts that may still be returned, in order.
    under_way: Vec<Instant>,
}

impl Rate {
    /// Sets the limit from now on. 0 counts as 1.
    pub(crate) fn limit(&mut self, per_minute: Option<u32>) {
        // Rounded up: rounded down, a minute could contain one start too many.
        let spacing = |rate: u32| Duration::from_nanos((MINUTE.as_nanos() as u64).div_ceil(rate.max(1).into()));
        self.spacing = per_minute.map(spacing);
    }

    /// Returns the earliest time of the next start (None: now).
    pub(crate) fn next(&self) -> Option<Instant> {
        let latest = self.latest.max(self.under_way.last().copied());
        Some(latest? + self.spacing?)
    }

    /// Records a start.
    pub(crate) fn start(&mut self, now: Instant) {
        self.under_way.push(now);
    }

    /// Records that the attempt that started at `began` ended, so that it counts.
    pub(crate) fn ended(&mut self, began: Instant) {
        self.give_back(began);
        self.latest = self.latest.max(Some(began));
    }

    /// Returns the start at `began`, which does not count.
    pub(crate) fn give_back(&mut self, began: Instant) {
        if let Some(found) = self.under_way.iter().rposition(|start| *start == began) {
            self.under_way.remove(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: u32) -> Rate {
        let mut rate = Rate::default();
        rate.limit(Some(per_minute));
        rate
    }

    #[test]
    fn no_minute_holds_more_than_the_rate_whatever_the_rate() {
        for per_minute in [1, 7, 60, 601, 7001] {
            let (mut rate, begin) = (rate(per_minute), Instant::now());
            let (mut now, mut starts) = (begin, 0);
            while now < begin + MINUTE {
                rate.start(now);
                starts += 1;
                now = rate.next().unwrap();
            }
            assert_eq!(starts, per_minute);
        }
    }

    #[test]
    fn a_limit_set_later_counts_from_the_latest_start_and_none_waits_for_nothing() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        rate.start(now);
        assert_eq!(rate.next(), None);
        rate.limit(Some(6));
        assert_eq!(rate.next(), Some(now + Duration::from_secs(10)));
        rate.limit(Some(0));
        assert_eq!(rate.next(), Some(now + MINUTE));
    }

    #[test]
    fn only_a_start_that_is_given_back_does_not_count() {
        let (mut rate, begin) = (rate(60), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        (0..4).for_each(|second| rate.start(at(second)));
        rate.give_back(at(1));
        assert_eq!(rate.next(), Some(at(4)), "a later one counts still");
        rate.ended(at(2));
        rate.give_back(at(3));
        assert_eq!(rate.next(), Some(at(3)));
        rate.ended(at(0));
        assert_eq!(rate.next(), Some(at(3)));
    }
}
