//! The time that deadlines are compared with: the wall clock, unless it has just jumped ahead. Pure: time is passed in.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// A wall clock that gained more than this on the monotonic clock has jumped.
const JUMP: Duration = Duration::from_secs(300);
/// The wall clock is believed after it stood ahead for this long.
const STANDS: Duration = Duration::from_secs(600);

/// Goes as the wall clock goes, but follows a jump ahead only after [`STANDS`]: what a wrong clock deletes is lost. It follows a
/// jump back at once, because that only deletes later.
#[derive(Debug)]
pub struct SteadyClock {
    /// What both clocks showed when they last agreed.
    agreed: (Timestamp, Instant),
    /// Since when the wall clock has been ahead.
    ahead_since: Option<Instant>,
}

/// What a look at the clock shows.
#[derive(Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The time to go by.
    pub now: Timestamp,
    /// Whether the wall clock has jumped ahead since the last look.
    pub has_jumped: bool,
}

impl SteadyClock {
    /// Begins with what both clocks show.
    pub fn new(wall: Timestamp, instant: Instant) -> Self {
        Self { agreed: (wall, instant), ahead_since: None }
    }

    /// The time to go by, now that the clocks show this.
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

    /// The clock after the monotonic one has gone `passed` seconds and the wall clock shows `wall`.
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
