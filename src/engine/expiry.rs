//! When an unfinished Notification expires. Pure: time is passed in.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_queue::Gate;

use super::index::Uid;

/// What names a missing Subscriber expires after this: the default of `delivery.expireAfterSeconds`.
const MISSING_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// But not before the Subscriber has been missing for this long.
pub const MISSING_FOR: Duration = Duration::from_secs(3600);

/// What a Notification's expiry depends on.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its creation, or its replay.
    pub began: Timestamp,
    /// Its own `expireAfterSeconds`.
    pub own: Option<u32>,
    /// Whether it was tried at least once.
    pub tried: bool,
}

/// After what time the Notifications of a Subscriber expire, those that its own time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// By its spec.
    Known(Duration),
    /// Whether there is a Subscriber, or what it says, is not known yet: it ends nothing.
    Unknown,
    /// There is no such Subscriber, as far as is known since then.
    Missing(Timestamp),
}

impl Life {
    /// When it expires, behind this gate and by the Subscriber's time.
    ///
    /// Its own time always counts. The Subscriber's ends only what was tried, what is behind a webhook that is gone, or
    /// what names a Subscriber that does not exist: neither a suspension nor an absence of the operator ends the rest. A
    /// Subscriber that is missing ends nothing for an hour, so one that is deleted and created again costs nothing.
    pub fn ends(&self, gate: Option<Gate>, lifetime: Lifetime) -> Option<Timestamp> {
        let is_subject = self.tried || matches!(gate, Some(Gate::EndpointGone | Gate::SubscriberNotFound));
        let by_subscriber = match lifetime {
            Lifetime::Known(after) => self.after(after),
            Lifetime::Missing(since) => {
                let earliest = since.checked_add(MISSING_FOR).ok();
                self.after(MISSING_EXPIRY).and_then(|at| earliest.map(|earliest| at.max(earliest)))
            }
            Lifetime::Unknown => None,
        };
        let own = self.own.and_then(|seconds| self.after(Duration::from_secs(seconds.into())));
        own.into_iter().chain(by_subscriber.filter(|_| is_subject)).min()
    }

    /// A time beyond what a Timestamp can hold is never.
    fn after(&self, time: Duration) -> Option<Timestamp> {
        self.began.checked_add(time).ok()
    }
}

/// The Notifications that will expire, by time.
#[derive(Default)]
pub struct Expiries(BTreeSet<(Instant, Uid)>);

impl Expiries {
    /// Moves `uid` from one time to another; None: it had, or has, none.
    pub fn set(&mut self, uid: &Uid, old: Option<Instant>, new: Option<Instant>) {
        if old != new {
            if let Some(old) = old {
                self.0.remove(&(old, uid.clone()));
            }
            if let Some(new) = new {
                self.0.insert((new, uid.clone()));
            }
        }
    }

    /// The next one whose time has come, if any.
    pub fn next(&self, now: Instant) -> Option<Uid> {
        self.0.first().filter(|(at, _)| *at <= now).map(|(_, uid)| uid.clone())
    }

    /// When the next one's time comes.
    pub fn wake_at(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn ends(own: Option<u32>, tried: bool, gate: Option<Gate>) -> Option<i64> {
        let life = Life { began: Timestamp::UNIX_EPOCH, own, tried };
        life.ends(gate, Lifetime::Known(DAY)).map(|at| at.as_second())
    }

    #[test]
    fn a_subscriber_that_is_not_known_yet_ends_nothing_and_one_that_is_missing_nothing_for_an_hour() {
        let life = |own| Life { began: Timestamp::UNIX_EPOCH, own, tried: true };
        let ends = |own, gate, lifetime| life(own).ends(Some(gate), lifetime).map(|at| at.as_second());
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(ends(None, Gate::SubscriberNotReady, Lifetime::Unknown), None);
        assert_eq!(ends(Some(60), Gate::SubscriberNotReady, Lifetime::Unknown), Some(60), "its own time counts");
        let missing = |since| ends(None, Gate::SubscriberNotFound, Lifetime::Missing(at(since)));
        assert_eq!(missing(10), Some(24 * 3600));
        assert_eq!(missing(7 * 24 * 3600), Some(7 * 24 * 3600 + 3600));
    }

    #[test]
    fn its_own_time_always_counts_and_the_subscribers_only_for_what_was_tried_or_cannot_be_sent() {
        let day = DAY.as_secs() as i64;
        assert_eq!(ends(None, false, None), None);
        assert_eq!(ends(None, true, None), Some(day));
        assert_eq!(ends(Some(60), false, None), Some(60));
        assert_eq!(ends(Some(60), true, Some(Gate::CircuitOpen)), Some(60));
        assert_eq!(ends(Some(u32::MAX), true, None), Some(day));
        for gate in [Gate::EndpointGone, Gate::SubscriberNotFound] {
            assert_eq!(ends(None, false, Some(gate)), Some(day), "{gate:?}");
        }
        for gate in [Gate::Suspended, Gate::SubscriberNotReady, Gate::Paused, Gate::CircuitOpen] {
            assert_eq!(ends(None, false, Some(gate)), None, "{gate:?}");
        }
    }

    #[test]
    fn each_comes_up_at_its_time_and_can_be_moved() {
        let (mut expiries, now) = (Expiries::default(), Instant::now());
        let (a, b): (Uid, Uid) = ("a".into(), "b".into());
        expiries.set(&a, None, Some(now + DAY));
        expiries.set(&b, None, Some(now + DAY / 2));
        assert_eq!((expiries.next(now), expiries.wake_at()), (None, Some(now + DAY / 2)));
        assert_eq!(expiries.next(now + DAY), Some(b.clone()));
        expiries.set(&b, Some(now + DAY / 2), None);
        assert_eq!(expiries.next(now + DAY), Some(a));
    }
}
