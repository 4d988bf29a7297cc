//! Expiry of unfinished entries.

use std::collections::{BTreeSet, HashMap};

use crate::{
    SubscriberKey,
    clock::{NEVER, Seconds},
    numbers::{LaneNumber, RecordNumber},
};

/// The lifetime of entries whose Subscriber is missing: the default of `delivery.expireAfterSeconds`.
const MISSING_EXPIRY: Seconds = 24 * 3600;
/// How long the Subscriber must be missing before its entries expire, so that a deleted and recreated Subscriber loses
/// nothing.
const MISSING_FOR: Seconds = 3600;

/// The age at which a Subscriber's lifetime ends its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The lifetime in its spec.
    Known(Seconds),
    /// The Subscriber or its spec is not known yet: no entry expires.
    Unknown,
    /// The Subscriber has been missing since then.
    Missing(Seconds),
}

impl Lifetime {
    /// Returns when it ends a life that began at `began`. A time beyond the calendar is never.
    pub(crate) fn ends(self, began: Seconds) -> Seconds {
        match self {
            Self::Known(age) => began.saturating_add(age),
            Self::Missing(since) => began.saturating_add(MISSING_EXPIRY).max(since.saturating_add(MISSING_FOR)),
            Self::Unknown => NEVER,
        }
    }
}

/// The entries of one lane by when their lives began: the order in which any lifetime of the Subscriber ends them.
///
/// The lifetime ends only entries with an attempt, entries behind a webhook that is gone, and entries whose Subscriber
/// does not exist: a suspension or an absence of the operator does not end other entries.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    tried: BTreeSet<(Seconds, RecordNumber)>,
    untried: BTreeSet<(Seconds, RecordNumber)>,
}

impl Ages {
    pub(crate) fn insert(&mut self, began: Seconds, no: RecordNumber, is_tried: bool) {
        self.of(is_tried).insert((began, no));
    }

    pub(crate) fn remove(&mut self, began: Seconds, no: RecordNumber, is_tried: bool) {
        self.of(is_tried).remove(&(began, no));
    }

    /// Returns the first entry that the lifetime ends, and when. `all`: also entries without an attempt.
    pub(crate) fn first(&self, lifetime: Lifetime, all: bool) -> Option<(Seconds, RecordNumber)> {
        let untried = self.untried.first().filter(|_| all);
        let (began, no) = *self.tried.first().into_iter().chain(untried).min()?;
        let ends = lifetime.ends(began);
        (ends != NEVER).then_some((ends, no))
    }

    /// Returns when the life of the oldest entry began.
    pub(crate) fn oldest(&self) -> Option<Seconds> {
        let first = [self.tried.first(), self.untried.first()];
        first.into_iter().flatten().map(|(began, _)| *began).min()
    }

    /// Returns all entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RecordNumber> {
        self.tried.iter().chain(&self.untried).map(|(_, no)| *no)
    }

    fn of(&mut self, is_tried: bool) -> &mut BTreeSet<(Seconds, RecordNumber)> {
        if is_tried { &mut self.tried } else { &mut self.untried }
    }
}

/// When missing Subscribers were deleted: for the first hour, and until all Subscribers of their namespace are known.
#[derive(Debug, Default)]
pub(crate) struct MissingSubscribers(HashMap<SubscriberKey, Seconds>);

impl MissingSubscribers {
    /// Records that the Subscriber is missing since `today`. `are_known` says whether all Subscribers of a namespace are
    /// known, so that a Subscriber that is not known is missing.
    pub(crate) fn insert(&mut self, key: SubscriberKey, today: Seconds, are_known: impl Fn(&str) -> bool) {
        // Cleaned up when it has doubled, not with each deletion.
        if self.0.len().is_power_of_two() {
            self.0.retain(|key, since| today.saturating_sub(*since) < MISSING_FOR || !are_known(&key.namespace));
        }
        self.0.insert(key, today);
    }

    pub(crate) fn remove(&mut self, key: &SubscriberKey) {
        self.0.remove(key);
    }

    pub(crate) fn since(&self, key: &SubscriberKey) -> Option<Seconds> {
        self.0.get(key).copied()
    }
}

/// The next expiries: of entries by their own lifetime, of lanes by their first entry.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    own: BTreeSet<(Seconds, RecordNumber)>,
    lanes: BTreeSet<(Seconds, LaneNumber)>,
}

/// The next to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextExpiry {
    Entry(RecordNumber),
    /// The first entry of this lane.
    OfLane(LaneNumber),
}

impl Expiries {
    pub(crate) fn insert(&mut self, expires: Seconds, no: RecordNumber) {
        if expires != NEVER {
            self.own.insert((expires, no));
        }
    }

    pub(crate) fn remove(&mut self, expires: Seconds, no: RecordNumber) {
        self.own.remove(&(expires, no));
    }

    /// Moves a lane from one time to another. None: it had, or has, no time.
    pub(crate) fn move_lane(&mut self, lane: LaneNumber, old: Option<Seconds>, new: Option<Seconds>) {
        if old != new {
            old.map(|old| self.lanes.remove(&(old, lane)));
            self.lanes.extend(new.map(|new| (new, lane)));
        }
    }

    pub(crate) fn first(&self) -> Option<(Seconds, NextExpiry)> {
        let own = self.own.first().map(|(at, no)| (*at, NextExpiry::Entry(*no)));
        let of_lane = self.lanes.first().map(|(at, lane)| (*at, NextExpiry::OfLane(*lane)));
        own.into_iter().chain(of_lane).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Seconds = 24 * 3600;

    #[test]
    fn a_subscriber_that_is_not_known_yet_ends_nothing_and_one_that_is_missing_nothing_for_an_hour() {
        assert_eq!(Lifetime::Unknown.ends(0), NEVER);
        assert_eq!(Lifetime::Known(60).ends(5), 65);
        assert_eq!(Lifetime::Missing(10).ends(0), DAY);
        assert_eq!(Lifetime::Missing(7 * DAY).ends(0), 7 * DAY + 3600);
        assert_eq!(Lifetime::Known(NEVER - 1).ends(5), NEVER, "beyond the calendar is never");
    }

    #[test]
    fn a_missing_subscriber_is_remembered_for_an_hour_and_until_its_namespace_is_known() {
        let key = |name: &str| SubscriberKey { namespace: "a".into(), name: name.into() };
        let mut missing = MissingSubscribers::default();
        missing.insert(key("x"), 0, |_| false);
        missing.insert(key("y"), 2 * MISSING_FOR, |_| false);
        assert_eq!(missing.since(&key("x")), Some(0), "its namespace is not known yet");
        missing.insert(key("z"), 2 * MISSING_FOR, |_| true);
        assert_eq!((missing.since(&key("x")), missing.since(&key("y"))), (None, Some(2 * MISSING_FOR)));
    }

    #[test]
    fn the_lifetime_ends_the_eldest_of_those_that_were_tried_or_of_all() {
        let (mut ages, lifetime) = (Ages::default(), Lifetime::Known(DAY));
        assert_eq!(ages.first(lifetime, true), None);
        ages.insert(5, 1, true);
        ages.insert(3, 2, false);
        ages.insert(4, 3, true);
        assert_eq!(ages.first(lifetime, false), Some((DAY + 4, 3)));
        assert_eq!(ages.first(lifetime, true), Some((DAY + 3, 2)));
        assert_eq!(ages.first(Lifetime::Unknown, true), None);
        assert_eq!(ages.iter().collect::<BTreeSet<_>>(), [1, 2, 3].into());
        ages.remove(4, 3, true);
        ages.remove(3, 2, false);
        assert_eq!(ages.first(lifetime, true), Some((DAY + 5, 1)));
    }

    #[test]
    fn each_comes_up_at_its_time_and_can_be_moved() {
        let mut expiries = Expiries::default();
        assert_eq!(expiries.first(), None);
        expiries.insert(DAY, 1);
        expiries.insert(DAY / 2, 2);
        expiries.insert(NEVER, 3);
        expiries.move_lane(7, None, Some(DAY / 4));
        assert_eq!(expiries.first(), Some((DAY / 4, NextExpiry::OfLane(7))));
        expiries.move_lane(7, Some(DAY / 4), Some(2 * DAY));
        assert_eq!(expiries.first(), Some((DAY / 2, NextExpiry::Entry(2))));
        expiries.remove(DAY / 2, 2);
        assert_eq!(expiries.first(), Some((DAY, NextExpiry::Entry(1))));
        expiries.remove(DAY, 1);
        assert_eq!(expiries.first(), Some((2 * DAY, NextExpiry::OfLane(7))));
        expiries.move_lane(7, Some(2 * DAY), None);
        assert_eq!(expiries.first(), None, "what never comes does not come up");
    }
}
