//! The clock for deadlines: the wall clock, unless the wall clock has just jumped ahead. Pure: the caller passes the
//! time in.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// A wall clock that gained more than this on the monotonic clock has jumped ahead.
const JUMP: Duration = Duration::from_secs(300);
/// A wall clock that has been ahead for this long is accepted.
const STANDS: Duration = Duration::from_secs(600);

/// Follows the wall clock, but follows a jump ahead only after [`STANDS`]: objects that a wrong clock deletes are lost.
/// It follows a jump back immediately, because that only delays deletions.
#[derive(Debug)]
pub struct SteadyClock {
    /// The time on both clocks when they last agreed.
    agreed: (Timestamp, Instant),
    /// Since when the wall clock has been ahead.
    ahead_since: Option<Instant>,
}

/// One reading of the clock.
#[derive(Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The time to use.
    pub now: Timestamp,
    /// Whether the wall clock has jumped ahead since the last reading.
    pub has_jumped: bool,
}

impl SteadyClock {
    /// Starts with the time on both clocks.
    pub fn new(wall: Timestamp, instant: Instant) -> Self {
        Self { agreed: (wall, instant), ahead_since: None }
    }

    /// Returns the time to use, given the time on both clocks.
    pub fn read(&mut self, wall: Timestamp, instant: Instant) -> ClockReading {
        let passed = instant.saturating_duration_since(self.agreed.1);
        let expected = self.agreed.0.checked_add(passed).unwrap_or(Timestamp::MAX);
        let gained = Duration::try_from(wall.duration_since(expected)).unwrap_or_default();
        if gained > JUMP {
            let has_jumped = self.ahead_since.is_none();
            let since = *self.ahead_since.get_or_insert(instant);
            if instant.saturating_duration_since(since) < STANDS {
                return ClockReading { now: expected, has_jumped };
            }
        }
        (self.agreed, self.ahead_since) = ((wall, instant), None);
        ClockReading { now: wall, has_jumped: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the clock `passed` seconds after `begin`, when the wall clock shows `wall`.
    fn read(clock: &mut SteadyClock, begin: Instant, passed: u64, wall: i64) -> (i64, bool) {
        let reading = clock.read(Timestamp::from_second(wall).unwrap(), begin + Duration::from_secs(passed));
        (reading.now.as_second(), reading.has_jumped)
    }

    fn clock() -> (SteadyClock, Instant) {
        let begin = Instant::now();
        (SteadyClock::new(Timestamp::from_second(1_000).unwrap(), begin), begin)
    }

    #[test]
    fn it_goes_as_the_wall_clock_goes_with_its_small_corrections_and_back() {
        let (mut clock, begin) = clock();
        for (passed, wall) in [(60, 1_060), (120, 1_420), (180, 1_000), (240, 900), (300, 960)] {
            assert_eq!(read(&mut clock, begin, passed, wall), (wall, false));
        }
    }

    #[test]
    fn after_a_jump_ahead_it_goes_on_as_before_until_the_wall_clock_has_stood_there_for_ten_minutes() {
        let (mut clock, begin) = clock();
        let year = 31_536_000;
        assert_eq!(read(&mut clock, begin, 60, year), (1_060, true));
        assert_eq!(read(&mut clock, begin, 659, year + 599), (1_659, false), "one jump is reported once");
        assert_eq!(read(&mut clock, begin, 660, year + 600), (year + 600, false));
        assert_eq!(read(&mut clock, begin, 720, year + 660), (year + 660, false));
    }

    #[test]
    fn a_jump_that_is_taken_back_was_none() {
        let (mut clock, begin) = clock();
        assert_eq!(read(&mut clock, begin, 60, 9_000), (1_060, true));
        assert_eq!(read(&mut clock, begin, 120, 1_120), (1_120, false));
        assert_eq!(read(&mut clock, begin, 700, 9_000), (1_700, true), "the next one begins its own wait");
        assert_eq!(read(&mut clock, begin, 1_299, 9_599), (2_299, false));
    }
}
