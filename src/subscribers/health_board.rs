//! Keeps the delivery health of each Subscriber, from the queue and the attempts, and decides when to write it. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{
    AttemptReason, ConditionStatus, ConditionType, Conditions, LastFailure, SubscriberReason as Reason,
    SubscriberStatus,
};
use tidings_queue::{LaneSnapshot, LaneState, SubscriberKey};

use super::status::IDLE;

/// The maximum number of statuses written per second because health changed. If a provider of thousands of webhooks
/// fails, the statuses show it within minutes, and most of the several hundred writes per second that the API server
/// accepts remain for outcomes.
const HEALTH_WRITES: usize = 50;
/// The limits of the number of statuses written per second only for their numbers. One in sixty of the waiting statuses
/// is written, so that numbers are a minute old for up to 1,500 active Subscribers.
const LEAST_NUMBERS_WRITES: usize = 5;
const MOST_NUMBERS_WRITES: usize = 25;
/// Changed numbers wait this long before they are written, so that a short burst costs one write.
const SETTLE: Duration = Duration::from_secs(2);
/// The minimum time between two writes of one Subscriber: for its numbers, and for its health.
const NUMBERS_AFTER: Duration = Duration::from_secs(60);
const HEALTH_AFTER: Duration = Duration::from_secs(5);

/// A Subscriber's status, as input of [`HealthBoard::due`].
pub struct StoredStatus {
    /// The Subscriber.
    pub key: SubscriberKey,
    /// The Subscriber's uid.
    pub uid: Arc<str>,
    /// The status that the API server stores.
    pub status: SubscriberStatus,
    /// Whether the status has unwritten changes other than health.
    pub is_behind: bool,
}

/// The delivery health of one Subscriber.
#[derive(Clone, Debug)]
pub struct SubscriberHealth {
    uid: Arc<str>,
    lane: Option<LaneSnapshot>,
    last_success: Option<Timestamp>,
    last_failure: Option<LastFailure>,
    stored: Option<Instant>,
    /// Since when there is an unwritten change.
    unwritten_since: Option<Instant>,
    /// Until then, the Subscriber is skipped unless its health changes.
    rest_until: Option<Instant>,
}

/// The part of a status that is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MissingField {
    Health,
    Numbers,
}

/// What to do about a status.
enum HealthAction {
    /// This part is out of date, and its write is due.
    Write(MissingField),
    /// A part is out of date and not due yet, or will be out of date when a pause ends.
    Wait,
    /// The status is up to date.
    Settled,
}

/// The delivery health of all Subscribers. A settled Subscriber costs nothing.
#[derive(Debug, Default)]
pub struct HealthBoard {
    known: HashMap<SubscriberKey, SubscriberHealth>,
    /// The Subscribers whose status may be out of date.
    unsettled: HashSet<SubscriberKey>,
}

impl HealthBoard {
    /// Records an attempt that ended at `at` for the Subscriber with this uid. `failure` is None if the attempt
    /// delivered.
    pub fn attempted(&mut self, key: &SubscriberKey, uid: &str, at: Timestamp, failure: Option<LastFailure>) {
        let health = self.of(key, uid);
        match failure {
            None => health.last_success = Some(at),
            failure => health.last_failure = failure,
        }
    }

    /// Records the snapshots of the lanes that changed.
    pub fn count(&mut self, lanes: impl IntoIterator<Item = (SubscriberKey, LaneSnapshot)>) {
        for (key, lane) in lanes {
            let health = self.of(&key, &lane.uid);
            if health.lane.as_ref().is_none_or(|before| before.state != lane.state) {
                health.rest_until = None;
            }
            health.lane = Some(lane);
        }
    }

    /// Records that other writers changed the statuses of these Subscribers, by key and uid.
    pub fn disturb(&mut self, overwritten: impl IntoIterator<Item = (SubscriberKey, Arc<str>)>) {
        for (key, uid) in overwritten {
            self.of(&key, &uid).rest_until = None;
        }
    }

    /// The Subscribers to check now, by key and uid.
    pub fn unsettled(&self, now: Instant) -> Vec<(SubscriberKey, Arc<str>)> {
        let unsettled = self.unsettled.iter().filter_map(|key| Some((key, self.known.get(key)?)));
        let awake = unsettled.filter(|(_, health)| health.rest_until.is_none_or(|until| until <= now));
        awake.map(|(key, health)| (key.clone(), health.uid.clone())).collect()
    }

    /// Returns the Subscribers whose status is to be written now, with the health to put into it. Changed health comes
    /// first, then the Subscribers that have waited longest, up to `at_most`.
    pub fn due(
        &mut self,
        now: Instant,
        clock: Timestamp,
        stored: impl IntoIterator<Item = StoredStatus>,
        at_most: usize,
    ) -> Vec<(SubscriberKey, SubscriberHealth)> {
        let mut due = Vec::new();
        for StoredStatus { key, uid, status, is_behind } in stored {
            let health = self.known.get_mut(&key).filter(|health| health.uid == uid);
            // The reconciler writes the first status.
            let Some(health) = health.filter(|_| is_reconciled(&status)) else { continue };
            match health.compare(&status, is_behind, now, clock) {
                HealthAction::Write(missing) => due.push((missing, health.stored, key)),
                HealthAction::Wait => {}
                HealthAction::Settled => drop(self.unsettled.remove(&key)),
            }
        }
        self.choose(due, now, at_most)
    }

    /// Selects which of the due Subscribers are written now.
    fn choose(
        &mut self,
        mut due: Vec<(MissingField, Option<Instant>, SubscriberKey)>,
        now: Instant,
        at_most: usize,
    ) -> Vec<(SubscriberKey, SubscriberHealth)> {
        due.sort_unstable();
        let changed = due.iter().filter(|(missing, ..)| *missing == MissingField::Health).count();
        let numbers = ((due.len() - changed) / 60).clamp(LEAST_NUMBERS_WRITES, MOST_NUMBERS_WRITES);
        let (health, others) = due.split_at(changed);
        let chosen = health.iter().take(HEALTH_WRITES).chain(others.iter().take(numbers)).take(at_most);
        let chosen = chosen.filter_map(|(_, _, key)| {
            let health = self.known.get_mut(key)?;
            (health.stored, health.unwritten_since, health.rest_until) = (Some(now), None, None);
            Some((key.clone(), health.clone()))
        });
        chosen.collect()
    }

    /// Removes a Subscriber that no longer exists.
    pub fn forget(&mut self, key: &SubscriberKey) {
        self.known.remove(key);
        self.unsettled.remove(key);
    }

    /// The health of the Subscriber with this uid, for a change that makes the Subscriber unsettled.
    fn of(&mut self, key: &SubscriberKey, uid: &str) -> &mut SubscriberHealth {
        self.unsettled.insert(key.clone());
        let health = self.known.entry(key.clone()).or_insert_with(|| SubscriberHealth::new(uid.into()));
        if &*health.uid != uid {
            *health = SubscriberHealth::new(uid.into());
        }
        health
    }
}

pub(super) fn is_reconciled(status: &SubscriberStatus) -> bool {
    status.observed_generation.is_some_and(|generation| generation >= 0)
}

impl SubscriberHealth {
    fn new(uid: Arc<str>) -> Self {
        Self {
            uid,
            lane: None,
            last_success: None,
            last_failure: None,
            stored: None,
            unwritten_since: None,
            rest_until: None,
        }
    }

    /// Compares the health with the status. `is_behind`: the status has unwritten changes in any case.
    fn compare(&mut self, status: &SubscriberStatus, is_behind: bool, now: Instant, clock: Timestamp) -> HealthAction {
        let pause_ends = status
            .paused_until_time
            .as_ref()
            .map(|until| now + Duration::try_from(until.0.duration_since(clock)).unwrap_or_default());
        // A change that could not be written, or that another writer overwrote, is written again.
        let Some(missing) = self.missing(status, clock).or(is_behind.then_some(MissingField::Numbers)) else {
            // No report announces the end of a pause.
            (self.unwritten_since, self.rest_until) = (None, pause_ends);
            return if pause_ends.is_none() { HealthAction::Settled } else { HealthAction::Wait };
        };
        let since = *self.unwritten_since.get_or_insert(now);
        let earliest = match missing {
            MissingField::Health => self.stored.map_or(now, |stored| stored + HEALTH_AFTER),
            MissingField::Numbers => self.stored.map_or(now, |stored| stored + NUMBERS_AFTER).max(since + SETTLE),
        };
        if now >= earliest {
            return HealthAction::Write(missing);
        }
        self.rest_until = Some(pause_ends.map_or(earliest, |ends| ends.min(earliest)));
        HealthAction::Wait
    }

    fn missing(&self, status: &SubscriberStatus, clock: Timestamp) -> Option<MissingField> {
        let mut new = status.clone();
        self.put_into(&mut new, clock);
        // The reason why it is unhealthy. A rate limit does not count: it starts and ends with every event.
        let trouble = |status: &SubscriberStatus| {
            let healthy = status.condition(ConditionType::Healthy);
            let unhealthy =
                healthy.filter(|c| c.status == ConditionStatus::False && c.reason != Reason::RateLimited.as_str());
            unhealthy.map(|c| c.reason.clone())
        };
        let pause_has_ended = status.paused_until_time.is_some() && new.paused_until_time.is_none();
        match new != *status {
            false => None,
            true if trouble(&new) != trouble(status) || pause_has_ended => Some(MissingField::Health),
            true => Some(MissingField::Numbers),
        }
    }

    /// The uid of the Subscriber.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Puts the health into the status.
    pub fn put_into(&self, status: &mut SubscriberStatus, clock: Timestamp) {
        let Some(LaneSnapshot { pending, state, .. }) = self.lane.as_ref().filter(|_| is_reconciled(status)) else {
            return;
        };
        status.pending = Some(u32::try_from(*pending).unwrap_or(u32::MAX));
        status.paused_until_time.take_if(|until| until.0 <= clock);
        if let Some(at) = self.last_success {
            status.last_success_time = Some(Time(at));
        }
        if let Some(failure) = &self.last_failure {
            status.last_failure = Some(failure.clone());
        }
        let (holds, reason, message) = self.health(*state, status);
        status.conditions = Conditions::from(&status.conditions, status.observed_generation, clock)
            .set(ConditionType::Healthy, holds, reason.as_str(), &message)
            .into_vec();
    }

    fn health(&self, state: LaneState, status: &SubscriberStatus) -> (bool, Reason, String) {
        match state {
            LaneState::Idle => (true, Reason::Idle, IDLE.into()),
            LaneState::Delivering => {
                let failure = self.last_failure.as_ref().filter(|failure| self.last_success.is_none_or(|at| at < failure.time.0));
                let but = failure.map_or_else(String::new, |failure| format!("; the last attempt failed: {}", failure.reason));
                (true, Reason::Delivering, format!("events are being sent{but}"))
            }
            LaneState::RateLimited => (
                false,
                Reason::RateLimited,
                "Notifications wait because of the rate limit: raise delivery.rateLimitPerMinute, or the rate that the webhook allows (status.webhook.allowedRatePerMinute)"
                    .into(),
            ),
            LaneState::Paused => {
                let until = status.paused_until_time.as_ref().map_or_else(String::new, |until| format!(" until {}", until.0));
                (false, Reason::Paused, format!("the webhook requested a pause{until}; no events are sent during the pause: wait, or annotate the Subscriber with tidings.dev/reconcile-requested-at to end the pause now"))
            }
            LaneState::CircuitOpen => {
                let last = status.last_failure.as_ref().map_or_else(String::new, |failure| {
                    let code = failure.status_code.map_or_else(String::new, |code| format!(" {code}"));
                    format!(" (last: {}{code})", failure.reason)
                });
                (
                    false,
                    Reason::CircuitOpen,
                    format!("circuit open after five consecutive failures{last}; probing with one Notification at a time: fix the webhook, or annotate the Subscriber with tidings.dev/reconcile-requested-at to retry now"),
                )
            }
            LaneState::RejectsAll => {
                let last = status.last_failure.as_ref().filter(|failure| failure.reason == AttemptReason::Rejected.as_str());
                let code = last.and_then(|failure| failure.status_code).map_or_else(String::new, |code| format!(" (last: {code})"));
                (
                    false,
                    Reason::RejectsAll,
                    format!("the webhook has rejected five events in a row{code}; the operator holds all events and probes with one at a time: check the client certificate (webhook.tls), the gateway in front of the webhook, webhook.contentMode, webhook.contentType and the path in webhook.url; delivery resumes after the first accepted event; if the events are the cause, set delivery.onRejection to Fail"),
                )
            }
            LaneState::EndpointGone => {
                (false, Reason::EndpointGone, "the webhook answered 410 (Gone); no events are sent: change webhook.url, or annotate the Subscriber with tidings.dev/reconcile-requested-at to try the webhook again".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn lane(pending: usize, state: LaneState) -> LaneSnapshot {
        LaneSnapshot { uid: "uid".into(), pending, state }
    }

    /// Stored statuses, and the health that changes them.
    struct Fixture {
        health_board: HealthBoard,
        statuses: HashMap<SubscriberKey, SubscriberStatus>,
        begin: Instant,
    }

    impl Fixture {
        fn new(names: &[&str]) -> Self {
            let reconciled = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
            let statuses = names.iter().map(|name| (key(name), reconciled.clone())).collect();
            Self { health_board: HealthBoard::default(), statuses, begin: Instant::now() }
        }

        fn count(&mut self, all: &[(&str, LaneSnapshot)]) {
            self.health_board.count(all.iter().map(|(name, lane)| (key(name), lane.clone())));
        }

        /// Writes the statuses that are due after `second` seconds and returns the names of their Subscribers.
        fn write(&mut self, second: u32) -> Vec<String> {
            let (now, clock) = (self.begin + second * SECOND, Timestamp::from_second(second.into()).unwrap());
            let stored = self.health_board.unsettled(now).into_iter().map(|(key, uid)| {
                let status = self.statuses[&key].clone();
                StoredStatus { key, uid, status, is_behind: false }
            });
            let stored: Vec<_> = stored.collect();
            let due = self.health_board.due(now, clock, stored, 1000);
            for (key, health) in &due {
                health.put_into(self.statuses.get_mut(key).unwrap(), clock);
            }
            due.iter().map(|(key, _)| key.name.to_string()).collect()
        }

        fn reason(&self, name: &str) -> &str {
            &self.statuses[&key(name)].conditions[0].reason
        }
    }

    #[test]
    fn numbers_are_written_once_a_minute_and_health_soon() {
        let mut fixture = Fixture::new(&["s"]);
        fixture.count(&[("s", lane(1, LaneState::Delivering))]);
        assert!(fixture.write(0).is_empty(), "it may end soon");
        assert_eq!(fixture.write(2), ["s"]);
        fixture.count(&[("s", lane(2, LaneState::Delivering))]);
        assert!(fixture.write(61).is_empty());
        assert!(fixture.write(62).is_empty() && fixture.write(63) == ["s"]);
        fixture.count(&[("s", lane(2, LaneState::CircuitOpen))]);
        assert!(fixture.write(67).is_empty());
        assert_eq!(fixture.write(68), ["s"]);
        assert_eq!(fixture.reason("s"), "CircuitOpen");
        fixture.count(&[("s", lane(2, LaneState::EndpointGone))]);
        assert!(fixture.write(73) == ["s"] && fixture.reason("s") == "EndpointGone");
        assert!(fixture.write(3600).is_empty(), "nothing has changed since");
    }

    #[test]
    fn five_of_many_are_written_for_their_numbers_and_also_those_whose_health_changed() {
        let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut fixture = Fixture::new(&names);
        let all = |pending, failing: &str| {
            let state = |name: &str| if name == failing { LaneState::CircuitOpen } else { LaneState::Delivering };
            names.iter().map(|name| (*name, lane(pending, state(name)))).collect::<Vec<_>>()
        };
        fixture.count(&all(1, ""));
        assert_eq!([0, 2, 3, 4].map(|second| fixture.write(second).len()), [0, 5, 3, 0]);
        fixture.count(&all(2, "s7"));
        fixture.write(98);
        fixture.count(&all(2, "s6"));
        let stored = fixture.write(103);
        assert_eq!(&stored[..2], &["s6".to_owned(), "s7".to_owned()][..], "s7 is healthy again");
        // The other five have been written; the numbers of s6 and s7 are not written twice.
        assert!(stored.len() <= 7, "{stored:?}");
    }

    #[test]
    fn the_health_of_thousands_shows_within_minutes_and_starves_no_numbers() {
        let names: Vec<_> = (0..3_000).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut fixture = Fixture::new(&names);
        let all = |state| names.iter().map(|name| (*name, lane(1, state))).collect::<Vec<_>>();
        fixture.count(&all(LaneState::CircuitOpen));
        let stored: Vec<_> = (0..61).map(|second| fixture.write(second).len()).collect();
        assert_eq!((stored[0], stored[59], stored[60]), (HEALTH_WRITES, HEALTH_WRITES, 0));
        let mut both = Fixture::new(&names);
        both.count(&all(LaneState::CircuitOpen)[..1000]);
        both.count(&all(LaneState::Delivering)[1000..]);
        both.write(0);
        assert_eq!(both.write(2).len(), HEALTH_WRITES + MOST_NUMBERS_WRITES);
    }

    #[test]
    fn a_status_that_is_settled_or_not_due_is_not_checked() {
        let mut fixture = Fixture::new(&["s", "t"]);
        let unsettled =
            |fixture: &Fixture, second: u32| fixture.health_board.unsettled(fixture.begin + second * SECOND).len();
        fixture.count(&[("s", lane(1, LaneState::Delivering)), ("t", lane(0, LaneState::Idle))]);
        for second in 0..4 {
            fixture.write(second);
        }
        assert_eq!(unsettled(&fixture, 4), 0);
        fixture.count(&[("s", lane(2, LaneState::Delivering))]);
        assert_eq!(unsettled(&fixture, 4), 1);
        assert!(fixture.write(4).is_empty());
        assert_eq!((unsettled(&fixture, 61), unsettled(&fixture, 62)), (0, 1), "its numbers are not due for a minute");
        fixture.count(&[("s", lane(2, LaneState::CircuitOpen))]);
        assert_eq!(unsettled(&fixture, 8), 1, "but its health is due");
        fixture.health_board.disturb([(key("t"), "uid".into())]);
        assert_eq!(unsettled(&fixture, 8), 2, "and an overwritten status is checked");
        fixture.health_board.forget(&key("s"));
        assert_eq!(unsettled(&fixture, 8), 1);
    }

    #[test]
    fn a_rate_limit_that_comes_and_goes_costs_no_more_than_numbers_do() {
        let mut fixture = Fixture::new(&["s"]);
        fixture.count(&[("s", lane(9, LaneState::RateLimited))]);
        assert!(fixture.write(0).is_empty() && fixture.write(2) == ["s"]);
        for second in 3..62 {
            let state = if second % 2 == 0 { LaneState::RateLimited } else { LaneState::Delivering };
            fixture.count(&[("s", lane(9, state))]);
            assert!(fixture.write(second).is_empty(), "{second}");
        }
    }

    #[test]
    fn a_pause_that_has_ended_is_removed_and_another_subscriber_of_that_name_starts_from_scratch() {
        let mut fixture = Fixture::new(&["s"]);
        let until = Timestamp::from_second(10).unwrap();
        fixture.statuses.get_mut(&key("s")).unwrap().paused_until_time = Some(Time(until));
        fixture.count(&[("s", lane(1, LaneState::Paused))]);
        assert_eq!(fixture.write(1), ["s"]);
        assert!(fixture.statuses[&key("s")].conditions[0].message.contains("until 1970-01-01T00:00:10Z"));
        fixture.health_board.attempted(&key("s"), "uid", until, None);
        fixture.count(&[("s", lane(0, LaneState::Idle))]);
        fixture.write(10);
        assert_eq!(fixture.statuses[&key("s")].paused_until_time, None);
        assert_eq!(fixture.statuses[&key("s")].last_success_time, Some(Time(until)));
        fixture.health_board.count([(key("s"), LaneSnapshot { uid: "other".into(), ..lane(0, LaneState::Idle) })]);
        let mut status = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
        fixture.health_board.known[&key("s")].put_into(&mut status, until);
        assert_eq!(status.last_success_time, None);
    }

    #[test]
    fn no_health_is_written_before_the_first_reconcile() {
        let mut fixture = Fixture::new(&["s"]);
        fixture
            .statuses
            .insert(key("s"), SubscriberStatus { observed_generation: Some(-1), ..SubscriberStatus::default() });
        fixture.count(&[("s", lane(1, LaneState::Delivering))]);
        assert!(fixture.write(0).is_empty() && fixture.write(2).is_empty());
        fixture.statuses.get_mut(&key("s")).unwrap().observed_generation = Some(1);
        assert!(fixture.write(3).is_empty() && fixture.write(5) == ["s"]);
    }
}
