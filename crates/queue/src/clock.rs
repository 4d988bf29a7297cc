//! The two clocks of the queue: a monotonic clock for waits, and the calendar.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of one call. The queue reads no clock itself.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic time, for waits.
    pub instant: Instant,
    /// The calendar time, for expiries.
    pub wall: SystemTime,
}

/// Nanoseconds since the queue was created, plus one; 0 means none.
pub(crate) type Tick = u64;

/// Whole seconds since 1970, up to 2106. [`NEVER`] means never.
pub(crate) type Seconds = u32;

/// Later than all times.
pub(crate) const NEVER: Seconds = Seconds::MAX;

/// Converts a calendar time to whole seconds, rounded down.
pub(crate) fn seconds(time: SystemTime) -> Seconds {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(NEVER)
}

/// Converts whole seconds to a calendar time.
pub(crate) fn calendar(seconds: Seconds) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// Converts a duration to whole seconds, rounded down.
pub(crate) fn span(duration: Duration) -> Seconds {
    Seconds::try_from(duration.as_secs()).unwrap_or(NEVER)
}

/// The latest known time.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    latest: Now,
}

impl Clock {
    pub(crate) fn new(now: Now) -> Self {
        Self { start: now.instant, latest: now }
    }

    /// Sets the time. An instant before the latest one counts as the latest one.
    pub(crate) fn set(&mut self, now: Now) {
        self.latest = Now { instant: now.instant.max(self.latest.instant), wall: now.wall };
    }

    /// Returns the latest known instant.
    pub(crate) fn now(&self) -> Instant {
        self.latest.instant
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.latest.wall
    }

    /// Returns the calendar time in whole seconds.
    pub(crate) fn today(&self) -> Seconds {
        seconds(self.latest.wall)
    }

    pub(crate) fn tick(&self, instant: Instant) -> Tick {
        let since = instant.saturating_duration_since(self.start).as_nanos();
        Tick::try_from(since).map_or(Tick::MAX, |nanos| nanos.saturating_add(1))
    }

    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        self.start + Duration::from_nanos(tick.saturating_sub(1))
    }

    /// Returns the instant at which the calendar will show `at`, unless the calendar is set.
    pub(crate) fn instant_of(&self, at: Seconds) -> Instant {
        let at = calendar(at);
        self.latest.instant + at.duration_since(self.latest.wall).unwrap_or_default()
    }
}
