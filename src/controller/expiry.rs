//! When an unfinished Notification expires. Pure: time is passed in.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use super::index::Uid;
use crate::dispatch::Gate;

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

impl Life {
    /// When it expires, behind this gate and under a Subscriber whose Notifications live so long.
    ///
    /// Its own time always counts. The Subscriber's ends only what was tried, what is behind a webhook that is gone, or
    /// what names a Subscriber that does not exist: neither a suspension nor an absence of the operator ends the rest.
    pub fn ends(&self, gate: Option<Gate>, subscriber: Duration) -> Option<Timestamp> {
        let own = self.own.map(|seconds| Duration::from_secs(seconds.into()));
        let is_subject = self.tried || matches!(gate, Some(Gate::EndpointGone | Gate::SubscriberNotFound));
        let shortest = own.into_iter().chain(is_subject.then_some(subscriber)).min()?;
        // A time beyond what a Timestamp can hold is never.
        self.began.checked_add(shortest).ok()
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
        life.ends(gate, DAY).map(|at| at.as_second())
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
