//! How deliveries go: what the queue and the attempts see of each Subscriber, and when that is worth a write. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{
    ConditionStatus, ConditionType, Conditions, LastFailure, SubscriberReason as Reason, SubscriberStatus,
};
use tidings_queue::{LaneSnapshot, LaneState, SubscriberKey};

use super::status::IDLE;

/// The most statuses written each second because health changed. If a provider of thousands of webhooks fails, that shows
/// within minutes, and most of the several hundred writes a second that the API server takes are left to outcomes.
const HEALTH_WRITES: usize = 50;
/// The most statuses written each second for their numbers alone: one in sixty of those that wait, within these bounds, so
/// that numbers are a minute old for up to 1,500 active Subscribers.
const LEAST_NUMBERS_WRITES: usize = 5;
const MOST_NUMBERS_WRITES: usize = 25;
/// Numbers are news for this long before they are written, so that a short burst costs one write.
const SETTLE: Duration = Duration::from_secs(2);
/// Numbers of one Subscriber are written again after this at the earliest, its health after the other.
const NUMBERS_AFTER: Duration = Duration::from_secs(60);
const HEALTH_AFTER: Duration = Duration::from_secs(5);

/// A Subscriber's status, for [`HealthBoard::due`].
pub struct StoredStatus {
    /// The Subscriber.
    pub key: SubscriberKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// What the API server has.
    pub status: SubscriberStatus,
    /// Whether anything is to be written that the vital signs do not know of.
    pub is_behind: bool,
}

/// What is known of one Subscriber.
#[derive(Clone, Debug)]
pub struct SubscriberHealth {
    uid: Arc<str>,
    lane: Option<LaneSnapshot>,
    last_success: Option<Timestamp>,
    last_failure: Option<LastFailure>,
    stored: Option<Instant>,
    /// Since when there is something that is not written.
    news: Option<Instant>,
    /// Until then it need not be seen to, unless its health changes.
    rest: Option<Instant>,
}

/// What a status lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MissingField {
    Health,
    Numbers,
}

/// What to do about a status.
enum HealthAction {
    /// It lacks this, and its time has come.
    Write(MissingField),
    /// It lacks something, or will when a pause ends.
    Wait,
    /// It says all that is known.
    Settled,
}

/// All of them. What is settled costs nothing.
#[derive(Debug, Default)]
pub struct HealthBoard {
    known: HashMap<SubscriberKey, SubscriberHealth>,
    /// Those whose status may not say all that is known.
    unsettled: HashSet<SubscriberKey>,
}

impl HealthBoard {
    /// An attempt for the Subscriber with this uid ended at `at`; `failure` says how, if it did not deliver.
    pub fn attempted(&mut self, key: &SubscriberKey, uid: &str, at: Timestamp, failure: Option<LastFailure>) {
        let health = self.of(key, uid);
        match failure {
            None => health.last_success = Some(at),
            failure => health.last_failure = failure,
        }
    }

    /// How those lanes stand that changed.
    pub fn count(&mut self, lanes: impl IntoIterator<Item = (SubscriberKey, LaneSnapshot)>) {
        for (key, lane) in lanes {
            let health = self.of(&key, &lane.uid);
            if health.lane.as_ref().is_none_or(|before| before.state != lane.state) {
                health.rest = None;
            }
            health.lane = Some(lane);
        }
    }

    /// The status of these, by key and uid, is not as it should be.
    pub fn disturb(&mut self, overwritten: impl IntoIterator<Item = (SubscriberKey, Arc<str>)>) {
        for (key, uid) in overwritten {
            self.of(&key, &uid).rest = None;
        }
    }

    /// Those to see to now, by key and uid.
    pub fn unsettled(&self, now: Instant) -> Vec<(SubscriberKey, Arc<str>)> {
        let health_board = self.unsettled.iter().filter_map(|key| Some((key, self.known.get(key)?)));
        let awake = health_board.filter(|(_, health)| health.rest.is_none_or(|rest| rest <= now));
        awake.map(|(key, health)| (key.clone(), health.uid.clone())).collect()
    }

    /// Of those with these statuses, the Subscribers whose status is to be written now, with what to put into it: health
    /// first, then those that wait longest, up to a limit.
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
            // Its reconciler says the first word.
            let Some(health) = health.filter(|_| is_reconciled(&status)) else { continue };
            match health.compare(&status, is_behind, now, clock) {
                HealthAction::Write(lack) => due.push((lack, health.stored, key)),
                HealthAction::Wait => {}
                HealthAction::Settled => drop(self.unsettled.remove(&key)),
            }
        }
        self.choose(due, now, at_most)
    }

    /// Of those that are due, the ones that are written now.
    fn choose(
        &mut self,
        mut due: Vec<(MissingField, Option<Instant>, SubscriberKey)>,
        now: Instant,
        at_most: usize,
    ) -> Vec<(SubscriberKey, SubscriberHealth)> {
        due.sort_unstable();
        let ill = due.iter().filter(|(lack, ..)| *lack == MissingField::Health).count();
        let numbers = ((due.len() - ill) / 60).clamp(LEAST_NUMBERS_WRITES, MOST_NUMBERS_WRITES);
        let (health, others) = due.split_at(ill);
        let chosen = health.iter().take(HEALTH_WRITES).chain(others.iter().take(numbers)).take(at_most);
        let chosen = chosen.filter_map(|(_, _, key)| {
            let health = self.known.get_mut(key)?;
            (health.stored, health.news, health.rest) = (Some(now), None, None);
            Some((key.clone(), health.clone()))
        });
        chosen.collect()
    }

    /// The Subscriber of this name is not there any more.
    pub fn forget(&mut self, key: &SubscriberKey) {
        self.known.remove(key);
        self.unsettled.remove(key);
    }

    /// What is known of the Subscriber with this uid, to which something is added.
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
        Self { uid, lane: None, last_success: None, last_failure: None, stored: None, news: None, rest: None }
    }

    /// Compares what is known with the status; `is_behind`: something is to be written in any case.
    fn compare(&mut self, status: &SubscriberStatus, is_behind: bool, now: Instant, clock: Timestamp) -> HealthAction {
        let pause_ends = status
            .paused_until_time
            .as_ref()
            .map(|until| now + Duration::try_from(until.0.duration_since(clock)).unwrap_or_default());
        // What could not be written, or what somebody else wrote over it, is written again.
        let Some(lack) = self.lacks(status, clock).or(is_behind.then_some(MissingField::Numbers)) else {
            // The end of a pause is news that nobody brings.
            (self.news, self.rest) = (None, pause_ends);
            return if pause_ends.is_none() { HealthAction::Settled } else { HealthAction::Wait };
        };
        let news = *self.news.get_or_insert(now);
        let earliest = match lack {
            MissingField::Health => self.stored.map_or(now, |stored| stored + HEALTH_AFTER),
            MissingField::Numbers => self.stored.map_or(now, |stored| stored + NUMBERS_AFTER).max(news + SETTLE),
        };
        if now >= earliest {
            return HealthAction::Write(lack);
        }
        self.rest = Some(pause_ends.map_or(earliest, |ends| ends.min(earliest)));
        HealthAction::Wait
    }

    fn lacks(&self, status: &SubscriberStatus, clock: Timestamp) -> Option<MissingField> {
        let mut new = status.clone();
        self.put_into(&mut new, clock);
        // What is ill with it; a rate limit comes and goes with every event.
        let illness = |status: &SubscriberStatus| {
            let healthy = status.condition(ConditionType::Healthy);
            let ill =
                healthy.filter(|c| c.status == ConditionStatus::False && c.reason != Reason::RateLimited.as_str());
            ill.map(|c| c.reason.clone())
        };
        let pause_is_over = status.paused_until_time.is_some() && new.paused_until_time.is_none();
        match new != *status {
            false => None,
            true if illness(&new) != illness(status) || pause_is_over => Some(MissingField::Health),
            true => Some(MissingField::Numbers),
        }
    }

    /// Whose vital signs these are.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Puts what is known into the status.
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
                (true, Reason::Delivering, format!("events are sent{but}"))
            }
            LaneState::RateLimited => (
                false,
                Reason::RateLimited,
                "Notifications wait for the rate: see delivery.rateLimitPerMinute and status.webhook.allowedRatePerMinute"
                    .into(),
            ),
            LaneState::Paused => {
                let until = status.paused_until_time.as_ref().map_or_else(String::new, |until| format!(" until {}", until.0));
                (false, Reason::Paused, format!("the webhook asked to be left alone{until}; nothing is sent before"))
            }
            LaneState::CircuitOpen => {
                let last = status.last_failure.as_ref().map_or_else(String::new, |failure| {
                    let code = failure.status_code.map_or_else(String::new, |code| format!(" {code}"));
                    format!(", last with {}{code}", failure.reason)
                });
                (
                    false,
                    Reason::CircuitOpen,
                    format!("the webhook failed five times in a row{last}; one Notification at a time tries whether it works again"),
                )
            }
            LaneState::EndpointGone => {
                (false, Reason::EndpointGone, "the webhook answered 410: nothing more is sent to it".into())
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

    /// Statuses as they stand, and the vitals that change them.
    struct Ward {
        health_board: HealthBoard,
        statuses: HashMap<SubscriberKey, SubscriberStatus>,
        begin: Instant,
    }

    impl Ward {
        fn new(names: &[&str]) -> Self {
            let reconciled = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
            let statuses = names.iter().map(|name| (key(name), reconciled.clone())).collect();
            Self { health_board: HealthBoard::default(), statuses, begin: Instant::now() }
        }

        fn count(&mut self, all: &[(&str, LaneSnapshot)]) {
            self.health_board.count(all.iter().map(|(name, lane)| (key(name), lane.clone())));
        }

        /// Writes what is due after so many seconds, and tells whose.
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
        let mut ward = Ward::new(&["s"]);
        ward.count(&[("s", lane(1, LaneState::Delivering))]);
        assert!(ward.write(0).is_empty(), "it may be over in a moment");
        assert_eq!(ward.write(2), ["s"]);
        ward.count(&[("s", lane(2, LaneState::Delivering))]);
        assert!(ward.write(61).is_empty());
        assert!(ward.write(62).is_empty() && ward.write(63) == ["s"]);
        ward.count(&[("s", lane(2, LaneState::CircuitOpen))]);
        assert!(ward.write(67).is_empty());
        assert_eq!(ward.write(68), ["s"]);
        assert_eq!(ward.reason("s"), "CircuitOpen");
        ward.count(&[("s", lane(2, LaneState::EndpointGone))]);
        assert!(ward.write(73) == ["s"] && ward.reason("s") == "EndpointGone");
        assert!(ward.write(3600).is_empty(), "nothing changed since");
    }

    #[test]
    fn of_many_five_are_written_for_their_numbers_besides_those_whose_health_changed() {
        let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut ward = Ward::new(&names);
        let all = |pending, ill: &str| {
            let state = |name: &str| if name == ill { LaneState::CircuitOpen } else { LaneState::Delivering };
            names.iter().map(|name| (*name, lane(pending, state(name)))).collect::<Vec<_>>()
        };
        ward.count(&all(1, ""));
        assert_eq!([0, 2, 3, 4].map(|second| ward.write(second).len()), [0, 5, 3, 0]);
        ward.count(&all(2, "s7"));
        ward.write(98);
        ward.count(&all(2, "s6"));
        let stored = ward.write(103);
        assert_eq!(&stored[..2], &["s6".to_owned(), "s7".to_owned()][..], "s7 is well again");
        // The other five have been written; numbers of those two are not written twice.
        assert!(stored.len() <= 7, "{stored:?}");
    }

    #[test]
    fn the_health_of_thousands_shows_within_minutes_and_starves_no_numbers() {
        let names: Vec<_> = (0..3_000).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut ward = Ward::new(&names);
        let all = |state| names.iter().map(|name| (*name, lane(1, state))).collect::<Vec<_>>();
        ward.count(&all(LaneState::CircuitOpen));
        let stored: Vec<_> = (0..61).map(|second| ward.write(second).len()).collect();
        assert_eq!((stored[0], stored[59], stored[60]), (HEALTH_WRITES, HEALTH_WRITES, 0));
        let mut both = Ward::new(&names);
        both.count(&all(LaneState::CircuitOpen)[..1000]);
        both.count(&all(LaneState::Delivering)[1000..]);
        both.write(0);
        assert_eq!(both.write(2).len(), HEALTH_WRITES + MOST_NUMBERS_WRITES);
    }

    #[test]
    fn what_is_settled_or_need_not_be_written_yet_is_not_looked_at() {
        let mut ward = Ward::new(&["s", "t"]);
        let reconciled = |ward: &Ward, second: u32| ward.health_board.unsettled(ward.begin + second * SECOND).len();
        ward.count(&[("s", lane(1, LaneState::Delivering)), ("t", lane(0, LaneState::Idle))]);
        for second in 0..4 {
            ward.write(second);
        }
        assert_eq!(reconciled(&ward, 4), 0);
        ward.count(&[("s", lane(2, LaneState::Delivering))]);
        assert_eq!(reconciled(&ward, 4), 1);
        assert!(ward.write(4).is_empty());
        assert_eq!((reconciled(&ward, 61), reconciled(&ward, 62)), (0, 1), "its numbers rest for a minute");
        ward.count(&[("s", lane(2, LaneState::CircuitOpen))]);
        assert_eq!(reconciled(&ward, 8), 1, "but its health does not");
        ward.health_board.disturb([(key("t"), "uid".into())]);
        assert_eq!(reconciled(&ward, 8), 2, "and what others wrote over is seen to");
        ward.health_board.forget(&key("s"));
        assert_eq!(reconciled(&ward, 8), 1);
    }

    #[test]
    fn a_rate_limit_that_comes_and_goes_costs_no_more_than_numbers_do() {
        let mut ward = Ward::new(&["s"]);
        ward.count(&[("s", lane(9, LaneState::RateLimited))]);
        assert!(ward.write(0).is_empty() && ward.write(2) == ["s"]);
        for second in 3..62 {
            let state = if second % 2 == 0 { LaneState::RateLimited } else { LaneState::Delivering };
            ward.count(&[("s", lane(9, state))]);
            assert!(ward.write(second).is_empty(), "{second}");
        }
    }

    #[test]
    fn a_pause_that_is_over_is_taken_out_and_another_subscriber_of_that_name_begins_anew() {
        let mut ward = Ward::new(&["s"]);
        let until = Timestamp::from_second(10).unwrap();
        ward.statuses.get_mut(&key("s")).unwrap().paused_until_time = Some(Time(until));
        ward.count(&[("s", lane(1, LaneState::Paused))]);
        assert_eq!(ward.write(1), ["s"]);
        assert!(ward.statuses[&key("s")].conditions[0].message.contains("until 1970-01-01T00:00:10Z"));
        ward.health_board.attempted(&key("s"), "uid", until, None);
        ward.count(&[("s", lane(0, LaneState::Idle))]);
        ward.write(10);
        assert_eq!(ward.statuses[&key("s")].paused_until_time, None);
        assert_eq!(ward.statuses[&key("s")].last_success_time, Some(Time(until)));
        ward.health_board.count([(key("s"), LaneSnapshot { uid: "other".into(), ..lane(0, LaneState::Idle) })]);
        let mut status = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
        ward.health_board.known[&key("s")].put_into(&mut status, until);
        assert_eq!(status.last_success_time, None);
    }

    #[test]
    fn nothing_is_said_before_the_reconciler_has() {
        let mut ward = Ward::new(&["s"]);
        ward.statuses
            .insert(key("s"), SubscriberStatus { observed_generation: Some(-1), ..SubscriberStatus::default() });
        ward.count(&[("s", lane(1, LaneState::Delivering))]);
        assert!(ward.write(0).is_empty() && ward.write(2).is_empty());
        ward.statuses.get_mut(&key("s")).unwrap().observed_generation = Some(1);
        assert!(ward.write(3).is_empty() && ward.write(5) == ["s"]);
    }
}
