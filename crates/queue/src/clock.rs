//! The two clocks of the queue: one to wait by, which never goes back, and the calendar.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of one call. The queue reads no clock itself.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// To wait by.
    pub instant: Instant,
    /// The calendar: expiries go by it.
    pub wall: SystemTime,
}

/// Nanoseconds since the queue began, plus one: 0 stands for none.
pub(crate) type Tick = u64;

/// Whole seconds since 1970, up to 2106. [`NEVER`] stands for a time that does not come.
pub(crate) type Seconds = u32;

/// Later than all times.
pub(crate) const NEVER: Seconds = Seconds::MAX;

/// A moment of the calendar in whole seconds, rounded down.
pub(crate) fn seconds(time: SystemTime) -> Seconds {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(NEVER)
}

/// The moment of the calendar that these seconds are.
pub(crate) fn calendar(seconds: Seconds) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// A span in whole seconds, rounded down.
pub(crate) fn span(duration: Duration) -> Seconds {
    Seconds::try_from(duration.as_secs()).unwrap_or(NEVER)
}

/// The latest time that is known.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    latest: Now,
}

impl Clock {
    pub(crate) fn new(now: Now) -> Self {
        Self { start: now.instant, latest: now }
    }

    /// Takes note of the time. An earlier instant than the latest one counts as the latest one.
    pub(crate) fn set(&mut self, now: Now) {
        self.latest = Now { instant: now.instant.max(self.latest.instant), wall: now.wall };
    }

    /// The latest instant known.
    pub(crate) fn now(&self) -> Instant {
        self.latest.instant
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.latest.wall
    }

    /// The same in whole seconds.
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

    /// When the calendar shows `at`, if it is not set meanwhile.
    pub(crate) fn instant_of(&self, at: Seconds) -> Instant {
        let at = calendar(at);
        self.latest.instant + at.duration_since(self.latest.wall).unwrap_or_default()
    }
}
