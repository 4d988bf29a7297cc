//! What the queue hears of Subscribers, and what the watch shows of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::SubscriberStatus;
use tidings_queue::{Gate, SpecVersion, SubscriberKey};

use crate::subscribers::resolve::Route;

/// News for the queue.
pub enum Change {
    /// A Subscriber's Notifications may go, or not.
    Passage {
        /// The Subscriber.
        lane: SubscriberKey,
        /// Which of its specs was looked at (None: none yet).
        spec: Option<SpecVersion>,
        /// Whether, and where.
        passage: Passage,
        /// Not before this, whatever the passage.
        pause: Option<Instant>,
        /// Whether pause and open circuit end: its spec changed, or somebody asked for it.
        reset: bool,
    },
    /// A Subscriber's webhook asked to be left alone until then.
    Paused(SubscriberKey, Instant),
    /// All Subscribers of a namespace (None: of all) are known: one that is not there does not exist.
    Listed(Option<String>),
}

/// Whether a Subscriber's Notifications may go, and where.
#[derive(Clone)]
pub enum Passage {
    /// They may.
    Open(Arc<Route>),
    /// They wait behind this gate; those that may expire do so after this time (None: there is no Subscriber to say).
    Closed(Gate, Option<Duration>),
}

/// A Subscriber as the watch shows it.
pub struct Seen {
    /// Which spec of which Subscriber.
    pub spec: SpecVersion,
    /// Its `delivery.expireAfterSeconds`.
    pub expire_after: Duration,
    /// Its status.
    pub status: SubscriberStatus,
    /// The resourceVersion.
    pub version: u64,
}

/// Why a request to a webhook may not begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The Subscriber was deleted, or its spec is another one by now.
    Changed,
    /// The webhook answered 410.
    Gone,
    /// The webhook asked for a pause.
    Paused,
    /// The latest reconcile closed the way.
    Closed,
}

/// The end of a pause, at a full second, as the API writes times; never earlier than was asked for.
pub fn pause(asked: Duration, now: Timestamp) -> (Timestamp, Duration) {
    let end = now + asked;
    let until = Timestamp::from_second(end.as_second().saturating_add(i64::from(end.subsec_nanosecond() > 0)));
    let until = until.unwrap_or(end);
    (until, Duration::try_from(until.duration_since(now)).unwrap_or(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_at_a_full_second_never_too_early() {
        let now = Timestamp::new(100, 1).unwrap();
        let (until, wait) = pause(Duration::from_secs(2), now);
        assert_eq!(until, Timestamp::from_second(103).unwrap());
        assert_eq!(wait, Duration::new(2, 999_999_999));
        assert_eq!(pause(Duration::from_secs(2), Timestamp::from_second(100).unwrap()).1, Duration::from_secs(2));
    }
}
