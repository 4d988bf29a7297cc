//! Which Subscribers have series of their own. The number of series is limited: what the other Subscribers count and
//! hold is added up in one series more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tidings_queue::{Circuit, Gate, LaneReading, SubscriberKey};

use super::labels::AttemptOutcome;

/// When what a Subscriber uses expires (None: not known).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryTimes {
    /// The client certificate for the webhook.
    pub webhook_certificate: Option<SystemTime>,
    /// The client certificate for the token service.
    pub token_service_certificate: Option<SystemTime>,
    /// The credentials for the token service, as their Secret says.
    pub credentials: Option<SystemTime>,
}

/// The attempts of one series, in the order of [`AttemptOutcome::ALL`].
pub(super) type Attempts = [u64; AttemptOutcome::ALL.len()];

/// What each Subscriber counts, and which Subscribers have series of their own: the first ones that became known, up to
/// a limit. A Subscriber keeps its series until it is deleted. Another one then gets series of its own, which begin at
/// zero.
///
/// The lock is held for a short computation only.
#[derive(Debug)]
pub(super) struct SubscriberSeries {
    limit: usize,
    known: Mutex<KnownSubscribers>,
}

#[derive(Debug, Default)]
struct KnownSubscribers {
    own: BTreeMap<SubscriberKey, OwnSeries>,
    /// The Subscribers without series of their own, and when what they use expires.
    rest: BTreeMap<SubscriberKey, ExpiryTimes>,
    /// The attempts of the rest. They never decrease, whichever Subscribers are in the rest.
    attempts_of_rest: Attempts,
}

#[derive(Debug, Default)]
struct OwnSeries {
    attempts: Attempts,
    expiries: ExpiryTimes,
}

/// The values of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeriesValues {
    pub(super) pending: usize,
    /// The earliest.
    pub(super) oldest: Option<SystemTime>,
    pub(super) attempts: Attempts,
    /// The number of circuits in each state, in the order of [`Circuit::ALL`].
    pub(super) circuits: [usize; Circuit::ALL.len()],
    /// The earliest of each.
    pub(super) expiries: ExpiryTimes,
    /// How many are Stalled, by reason.
    pub(super) stalled: BTreeMap<&'static str, usize>,
}

impl SubscriberSeries {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, known: Mutex::default() }
    }

    /// Records that a Subscriber exists.
    pub(super) fn add(&self, of: &SubscriberKey) {
        let mut known = self.lock();
        if known.own.contains_key(of) || known.rest.contains_key(of) {
        } else if known.own.len() < self.limit {
            known.own.insert(of.clone(), OwnSeries::default());
        } else {
            known.rest.insert(of.clone(), ExpiryTimes::default());
        }
    }

    /// Records that a Subscriber no longer exists. Its series go to the first Subscriber of the rest by name.
    pub(super) fn remove(&self, of: &SubscriberKey) {
        let mut known = self.lock();
        known.rest.remove(of);
        if known.own.remove(of).is_some()
            && let Some((next, expiries)) = known.rest.pop_first()
        {
            known.own.insert(next, OwnSeries { expiries, ..OwnSeries::default() });
        }
    }

    /// Counts an attempt. Ignores an attempt for a Subscriber that no longer exists.
    pub(super) fn count(&self, of: &SubscriberKey, outcome: AttemptOutcome) {
        let known = &mut *self.lock();
        let attempts = match known.own.get_mut(of) {
            Some(own) => &mut own.attempts,
            None if known.rest.contains_key(of) => &mut known.attempts_of_rest,
            None => return,
        };
        AttemptOutcome::ALL.iter().zip(attempts).filter(|(of, _)| **of == outcome).for_each(|(_, count)| *count += 1);
    }

    /// Records when what a Subscriber uses expires.
    pub(super) fn expire(&self, of: &SubscriberKey, expiries: ExpiryTimes) {
        let known = &mut *self.lock();
        if let Some(own) = known.own.get_mut(of) {
            own.expiries = expiries;
        } else if let Some(of_rest) = known.rest.get_mut(of) {
            *of_rest = expiries;
        }
    }

    /// Returns the values of each Subscriber with series of its own, by name, and those of the rest, if there is or was
    /// one. `stalled` are the Subscribers that are Stalled, with the reason. What belongs to other Subscribers, which do
    /// not exist, is left out.
    pub(super) fn values(
        &self,
        lanes: &[LaneReading],
        stalled: &[(SubscriberKey, &'static str)],
    ) -> (BTreeMap<SubscriberKey, SeriesValues>, Option<SeriesValues>) {
        let known = self.lock();
        // What they use is not read, so what is known of it may be outdated.
        let at_rest: HashSet<_> = lanes.iter().filter(|lane| is_at_rest(lane)).map(|lane| &lane.of).collect();
        let expiries_of = |of, expiries| if at_rest.contains(of) { ExpiryTimes::default() } else { expiries };
        let of_own = |of, own: &OwnSeries| {
            let OwnSeries { attempts, expiries } = *own;
            SeriesValues { attempts, expiries: expiries_of(of, expiries), ..SeriesValues::default() }
        };
        let mut own: BTreeMap<_, _> = known.own.iter().map(|(of, own)| (of.clone(), of_own(of, own))).collect();
        let mut rest = SeriesValues { attempts: known.attempts_of_rest, ..SeriesValues::default() };
        known.rest.iter().for_each(|(of, expiries)| rest.expiries.merge(&expiries_of(of, *expiries)));
        let mut with = |of: &SubscriberKey, change: &dyn Fn(&mut SeriesValues)| match own.get_mut(of) {
            Some(values) => change(values),
            None if known.rest.contains_key(of) => change(&mut rest),
            None => {}
        };
        lanes.iter().for_each(|lane| with(&lane.of, &|values| values.add(lane)));
        stalled.iter().for_each(|(of, reason)| with(of, &|values| *values.stalled.entry(*reason).or_default() += 1));
        let has_rest = !known.rest.is_empty() || known.attempts_of_rest != Attempts::default();
        (own, has_rest.then_some(rest))
    }

    fn lock(&self) -> MutexGuard<'_, KnownSubscribers> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeriesValues {
    fn add(&mut self, lane: &LaneReading) {
        self.pending += lane.pending;
        self.oldest = earliest(self.oldest, oldest_unheld(lane));
        for (state, count) in Circuit::ALL.iter().zip(&mut self.circuits) {
            *count += usize::from(lane.circuit == Some(*state));
        }
    }
}

impl ExpiryTimes {
    fn merge(&mut self, other: &Self) {
        self.webhook_certificate = earliest(self.webhook_certificate, other.webhook_certificate);
        self.token_service_certificate = earliest(self.token_service_certificate, other.token_service_certificate);
        self.credentials = earliest(self.credentials, other.credentials);
    }
}

/// When the oldest event of a lane began, unless a user holds the lane on purpose: what is suspended is never too old.
pub(super) fn oldest_unheld(lane: &LaneReading) -> Option<SystemTime> {
    lane.oldest.filter(|_| lane.gate != Some(Gate::Suspended))
}

/// Whether the Subscriber of a lane is suspended, or its webhook answered 410: passes do not read what it uses.
fn is_at_rest(lane: &LaneReading) -> bool {
    matches!(lane.gate, Some(Gate::Suspended | Gate::EndpointGone))
}

/// Returns the earlier of two times, or the one that there is.
pub(super) fn earliest(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn key(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn lane(name: &str, pending: usize, oldest: u64, circuit: Option<Circuit>) -> LaneReading {
        let (of, oldest) = (key(name), at(oldest));
        LaneReading { of, is_known: true, pending, in_flight: 0, oldest, gate: None, circuit, is_paused: false }
    }

    #[test]
    fn what_a_subscriber_at_rest_uses_does_not_expire_and_is_known_again_afterwards() {
        let series = SubscriberSeries::new(1);
        let expiries = |at| ExpiryTimes { credentials: at, webhook_certificate: at, ..ExpiryTimes::default() };
        for (name, time) in [("own", at(5)), ("rest", at(6)), ("other", at(7))] {
            series.add(&key(name));
            series.expire(&key(name), expiries(time));
        }
        let expires = |gate| {
            let lanes = ["own", "rest"].map(|name| LaneReading { gate, ..lane(name, 1, 1, None) });
            let (own, rest) = series.values(&lanes, &[]);
            (own[&key("own")].expiries, rest.unwrap().expiries)
        };
        for gate in [Gate::Suspended, Gate::EndpointGone] {
            assert_eq!(expires(Some(gate)), (ExpiryTimes::default(), expiries(at(7))), "{gate:?}");
        }
        for gate in [None, Some(Gate::SubscriberNotReady), Some(Gate::Paused)] {
            assert_eq!(expires(gate), (expiries(at(5)), expiries(at(6))), "{gate:?}");
        }
    }

    fn names(series: &SubscriberSeries) -> Vec<String> {
        series.values(&[], &[]).0.keys().map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn the_first_subscribers_up_to_the_limit_have_series_and_the_rest_is_added_up() {
        let series = SubscriberSeries::new(2);
        ["z", "y", "b", "a", "z"].iter().for_each(|name| series.add(&key(name)));
        assert_eq!(names(&series), ["y", "z"], "a Subscriber that comes later takes no series away");
        for (name, outcome) in
            [("z", AttemptOutcome::Delivered), ("a", AttemptOutcome::Rejected), ("b", AttemptOutcome::Rejected)]
        {
            series.count(&key(name), outcome);
        }
        series.count(&key("unknown"), AttemptOutcome::Failed);
        series.expire(&key("a"), ExpiryTimes { credentials: at(9), ..ExpiryTimes::default() });
        series.expire(
            &key("b"),
            ExpiryTimes { credentials: at(7), webhook_certificate: at(8), ..ExpiryTimes::default() },
        );
        let lanes = [
            lane("z", 1, 50, None),
            lane("a", 2, 40, Some(Circuit::Open)),
            lane("b", 3, 30, Some(Circuit::Open)),
            lane("unknown", 100, 1, Some(Circuit::Open)),
        ];
        let stalled = [("a", "EgressDenied"), ("y", "TokenRejected"), ("unknown", "TokenRejected")];
        let (own, rest) = series.values(&lanes, &stalled.map(|(name, reason)| (key(name), reason)));
        let of_z = SeriesValues { pending: 1, oldest: at(50), attempts: [1, 0, 0, 0], ..SeriesValues::default() };
        assert_eq!(own[&key("z")], of_z);
        let of_y = SeriesValues { stalled: [("TokenRejected", 1)].into(), ..SeriesValues::default() };
        assert_eq!(own[&key("y")], of_y);
        let expiries = ExpiryTimes { credentials: at(7), webhook_certificate: at(8), token_service_certificate: None };
        let (attempts, circuits, stalled) = ([0, 0, 0, 2], [2, 0, 0], [("EgressDenied", 1)].into());
        let expected = SeriesValues { pending: 5, oldest: at(30), attempts, circuits, expiries, stalled };
        assert_eq!(rest, Some(expected));
    }

    #[test]
    fn the_series_of_a_deleted_subscriber_vanish_and_go_to_the_next_one() {
        let series = SubscriberSeries::new(2);
        ["a", "b", "d", "c"].iter().for_each(|name| series.add(&key(name)));
        ["a", "c", "d"].iter().for_each(|name| series.count(&key(name), AttemptOutcome::Delivered));
        series.expire(&key("c"), ExpiryTimes { credentials: at(5), ..ExpiryTimes::default() });
        series.remove(&key("a"));
        assert_eq!(names(&series), ["b", "c"]);
        let (own, rest) = series.values(&[], &[]);
        assert_eq!((own[&key("c")].attempts, own[&key("c")].expiries.credentials), ([0; 4], at(5)));
        assert_eq!(rest.unwrap().attempts, [2, 0, 0, 0], "a counter never decreases");
        ["b", "c"].iter().for_each(|name| series.remove(&key(name)));
        assert_eq!(names(&series), ["d"]);
        assert_eq!(series.values(&[], &[]).1.unwrap().attempts, [2, 0, 0, 0], "nor does it vanish");
        series.remove(&key("d"));
        series.add(&key("a"));
        assert_eq!(
            series.values(&[], &[]).0[&key("a")].attempts,
            [0; 4],
            "a Subscriber of the same name begins at zero"
        );
    }

    #[test]
    fn without_more_subscribers_than_the_limit_there_is_no_rest() {
        let series = SubscriberSeries::new(2);
        ["a", "b"].iter().for_each(|name| series.add(&key(name)));
        series.count(&key("a"), AttemptOutcome::Failed);
        assert_eq!(series.values(&[], &[]).1, None);
        series.add(&key("c"));
        assert_eq!(series.values(&[], &[]).1, Some(SeriesValues::default()));
        series.remove(&key("c"));
        assert_eq!(series.values(&[], &[]).1, None);
    }
}
