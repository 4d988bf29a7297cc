//! How deliveries go: what the queue and the attempts see of each Subscriber, and when that is worth a write. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::status::IDLE;
use crate::{
    api::{ConditionStatus, ConditionType, Conditions, LastFailure, SubscriberReason as Reason, SubscriberStatus},
    dispatch::LaneKey,
};

/// The queue counts this often.
pub const CENSUS: Duration = Duration::from_secs(1);
/// So many Subscribers are written after each census, at most.
const WRITES: usize = 5;
/// Numbers are news for this long before they are written, so that a short burst costs one write.
const SETTLE: Duration = Duration::from_secs(2);
/// Numbers of one Subscriber are written again after this at the earliest, its health after the other.
const NUMBERS_AFTER: Duration = Duration::from_secs(60);
const HEALTH_AFTER: Duration = Duration::from_secs(5);

/// What the queue sees of one Subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// How many Notifications are unfinished.
    pub pending: usize,
    /// How they get on.
    pub state: State,
}

/// How a Subscriber's Notifications get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There are none, or the Subscriber holds them.
    Idle,
    /// They are sent.
    Delivering,
    /// They wait for the rate.
    RateLimited,
    /// They wait for the end of a pause.
    Paused,
    /// They wait for a probe to succeed.
    CircuitOpen,
    /// The webhook answered 410.
    EndpointGone,
}

/// What is known of one Subscriber.
#[derive(Clone, Debug)]
pub struct Vital {
    uid: String,
    census: Option<Census>,
    last_success: Option<Timestamp>,
    last_failure: Option<LastFailure>,
    written: Option<Instant>,
    /// Since when there is something that is not written.
    news: Option<Instant>,
    /// Nothing is new since the status was found to say it all.
    settled: bool,
}

/// What a status lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Health,
    Numbers,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Vitals(HashMap<LaneKey, Vital>);

impl Vitals {
    /// An attempt for the Subscriber with this uid ended at `at`; `failure` says how, if it did not deliver.
    pub fn attempted(&mut self, key: &LaneKey, uid: &str, at: Timestamp, failure: Option<LastFailure>) {
        let vital = self.of(key, uid);
        vital.settled = false;
        match failure {
            None => vital.last_success = Some(at),
            failure => vital.last_failure = failure,
        }
    }

    /// What the queue counted. Subscribers that it does not name are forgotten.
    pub fn count(&mut self, census: impl IntoIterator<Item = (LaneKey, String, Census)>) {
        let mut known = std::mem::take(&mut self.0);
        for (key, uid, census) in census {
            let vital = known.remove(&key).filter(|vital| vital.uid == uid).unwrap_or_else(|| Vital::new(uid));
            let settled = vital.settled && vital.census == Some(census);
            self.0.insert(key, Vital { census: Some(census), settled, ..vital });
        }
    }

    /// The Subscribers whose status is to be written now, with what to put into it: health first, then who waits longest.
    /// `status` is what is written, `unwritten` whether anything is to be written that this does not know of.
    pub fn due(
        &mut self,
        now: Instant,
        clock: Timestamp,
        status: impl Fn(&LaneKey, &str) -> Option<SubscriberStatus>,
        unwritten: impl Fn(&LaneKey, &str) -> bool,
    ) -> Vec<(LaneKey, Vital)> {
        let mut due = Vec::new();
        for (key, vital) in &mut self.0 {
            // What could not be written, or what somebody else wrote over it, is written again.
            let other = unwritten(key, &vital.uid).then_some(Lack::Numbers);
            if vital.settled && other.is_none() {
                continue;
            }
            // Its reconciler says the first word.
            let status = status(key, &vital.uid).filter(is_looked_at);
            let Some(status) = status else { continue };
            let Some(lack) = vital.lacks(&status, clock).or(other) else {
                vital.news = None;
                // The end of a pause is news that nobody brings.
                vital.settled = status.paused_until_time.is_none();
                continue;
            };
            let news = *vital.news.get_or_insert(now);
            let earliest = match lack {
                Lack::Health => vital.written.map_or(now, |written| written + HEALTH_AFTER),
                Lack::Numbers => vital.written.map_or(now, |written| written + NUMBERS_AFTER).max(news + SETTLE),
            };
            if now >= earliest {
                due.push((lack, vital.written, key.clone()));
            }
        }
        due.sort_unstable();
        due.truncate(WRITES);
        let written = due.into_iter().filter_map(|(_, _, key)| {
            let vital = self.0.get_mut(&key)?;
            (vital.written, vital.news) = (Some(now), None);
            Some((key, vital.clone()))
        });
        written.collect()
    }

    fn of(&mut self, key: &LaneKey, uid: &str) -> &mut Vital {
        let vital = self.0.entry(key.clone()).or_insert_with(|| Vital::new(uid.to_owned()));
        if vital.uid != uid {
            *vital = Vital::new(uid.to_owned());
        }
        vital
    }
}

fn is_looked_at(status: &SubscriberStatus) -> bool {
    status.observed_generation.is_some_and(|generation| generation >= 0)
}

impl Vital {
    fn new(uid: String) -> Self {
        Self { uid, census: None, last_success: None, last_failure: None, written: None, news: None, settled: false }
    }

    fn lacks(&self, status: &SubscriberStatus, clock: Timestamp) -> Option<Lack> {
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
            true if illness(&new) != illness(status) || pause_is_over => Some(Lack::Health),
            true => Some(Lack::Numbers),
        }
    }

    /// Whose vital signs these are.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Puts what is known into the status.
    pub fn put_into(&self, status: &mut SubscriberStatus, clock: Timestamp) {
        let Some(Census { pending, state }) = self.census.filter(|_| is_looked_at(status)) else { return };
        status.pending = Some(u32::try_from(pending).unwrap_or(u32::MAX));
        status.paused_until_time.take_if(|until| until.0 <= clock);
        if let Some(at) = self.last_success {
            status.last_success_time = Some(Time(at));
        }
        if let Some(failure) = &self.last_failure {
            status.last_failure = Some(failure.clone());
        }
        let (holds, reason, message) = self.health(state, status);
        status.conditions = Conditions::from(&status.conditions, status.observed_generation, clock)
            .set(ConditionType::Healthy, holds, reason.as_str(), &message)
            .into_vec();
    }

    fn health(&self, state: State, status: &SubscriberStatus) -> (bool, Reason, String) {
        match state {
            State::Idle => (true, Reason::Idle, IDLE.into()),
            State::Delivering => {
                let failure = self.last_failure.as_ref().filter(|failure| self.last_success.is_none_or(|at| at < failure.time.0));
                let but = failure.map_or_else(String::new, |failure| format!("; the last attempt failed: {}", failure.reason));
                (true, Reason::Delivering, format!("events are sent{but}"))
            }
            State::RateLimited => (
                false,
                Reason::RateLimited,
                "Notifications wait for the rate: see delivery.rateLimitPerMinute and status.webhook.allowedRatePerMinute"
                    .into(),
            ),
            State::Paused => {
                let until = status.paused_until_time.as_ref().map_or_else(String::new, |until| format!(" until {}", until.0));
                (false, Reason::Paused, format!("the webhook asked to be left alone{until}; nothing is sent before"))
            }
            State::CircuitOpen => {
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
            State::EndpointGone => {
                (false, Reason::EndpointGone, "the webhook answered 410: nothing more is sent to it".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: &str) -> LaneKey {
        LaneKey { namespace: "a".into(), name: name.into() }
    }

    fn census(pending: usize, state: State) -> Census {
        Census { pending, state }
    }

    /// Statuses as they stand, and the vitals that change them.
    struct Ward {
        vitals: Vitals,
        statuses: HashMap<LaneKey, SubscriberStatus>,
        begin: Instant,
    }

    impl Ward {
        fn new(names: &[&str]) -> Self {
            let looked_at = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
            let statuses = names.iter().map(|name| (key(name), looked_at.clone())).collect();
            Self { vitals: Vitals::default(), statuses, begin: Instant::now() }
        }

        fn count(&mut self, all: &[(&str, Census)]) {
            self.vitals.count(all.iter().map(|(name, census)| (key(name), "uid".to_owned(), *census)));
        }

        /// Writes what is due after so many seconds, and tells whose.
        fn write(&mut self, second: u32) -> Vec<String> {
            let clock = Timestamp::from_second(second.into()).unwrap();
            let status = |key: &LaneKey, _: &str| self.statuses.get(key).cloned();
            let due = self.vitals.due(self.begin + second * SECOND, clock, status, |_, _| false);
            for (key, vital) in &due {
                vital.put_into(self.statuses.get_mut(key).unwrap(), clock);
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
        ward.count(&[("s", census(1, State::Delivering))]);
        assert!(ward.write(0).is_empty(), "it may be over in a moment");
        assert_eq!(ward.write(2), ["s"]);
        ward.count(&[("s", census(2, State::Delivering))]);
        assert!(ward.write(61).is_empty());
        assert!(ward.write(62).is_empty() && ward.write(63) == ["s"]);
        ward.count(&[("s", census(2, State::CircuitOpen))]);
        assert!(ward.write(67).is_empty());
        assert_eq!(ward.write(68), ["s"]);
        assert_eq!(ward.reason("s"), "CircuitOpen");
        ward.count(&[("s", census(2, State::EndpointGone))]);
        assert!(ward.write(73) == ["s"] && ward.reason("s") == "EndpointGone");
        assert!(ward.write(3600).is_empty(), "nothing changed since");
    }

    #[test]
    fn of_many_five_are_written_those_whose_health_changed_first() {
        let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut ward = Ward::new(&names);
        let all = |pending, ill: &str| {
            let state = |name: &str| if name == ill { State::CircuitOpen } else { State::Delivering };
            names.iter().map(|name| (*name, census(pending, state(name)))).collect::<Vec<_>>()
        };
        ward.count(&all(1, ""));
        assert_eq!([0, 2, 3, 4].map(|second| ward.write(second).len()), [0, 5, 3, 0]);
        ward.count(&all(2, "s7"));
        ward.write(98);
        ward.count(&all(2, "s6"));
        let written = ward.write(103);
        assert_eq!((written.len(), &written[..2]), (5, &["s6".to_owned(), "s7".to_owned()][..]), "s7 is well again");
    }

    #[test]
    fn a_rate_limit_that_comes_and_goes_costs_no_more_than_numbers_do() {
        let mut ward = Ward::new(&["s"]);
        ward.count(&[("s", census(9, State::RateLimited))]);
        assert!(ward.write(0).is_empty() && ward.write(2) == ["s"]);
        for second in 3..62 {
            let state = if second % 2 == 0 { State::RateLimited } else { State::Delivering };
            ward.count(&[("s", census(9, state))]);
            assert!(ward.write(second).is_empty(), "{second}");
        }
    }

    #[test]
    fn a_pause_that_is_over_is_taken_out_and_another_subscriber_of_that_name_begins_anew() {
        let mut ward = Ward::new(&["s"]);
        let until = Timestamp::from_second(10).unwrap();
        ward.statuses.get_mut(&key("s")).unwrap().paused_until_time = Some(Time(until));
        ward.count(&[("s", census(1, State::Paused))]);
        assert_eq!(ward.write(1), ["s"]);
        assert!(ward.statuses[&key("s")].conditions[0].message.contains("until 1970-01-01T00:00:10Z"));
        ward.vitals.attempted(&key("s"), "uid", until, None);
        ward.count(&[("s", census(0, State::Idle))]);
        ward.write(10);
        assert_eq!(ward.statuses[&key("s")].paused_until_time, None);
        assert_eq!(ward.statuses[&key("s")].last_success_time, Some(Time(until)));
        ward.vitals.count([(key("s"), "other".to_owned(), census(0, State::Idle))]);
        let mut status = SubscriberStatus { observed_generation: Some(1), ..SubscriberStatus::default() };
        ward.vitals.0[&key("s")].put_into(&mut status, until);
        assert_eq!(status.last_success_time, None);
    }

    #[test]
    fn nothing_is_said_before_the_reconciler_has() {
        let mut ward = Ward::new(&["s"]);
        ward.statuses
            .insert(key("s"), SubscriberStatus { observed_generation: Some(-1), ..SubscriberStatus::default() });
        ward.count(&[("s", census(1, State::Delivering))]);
        assert!(ward.write(0).is_empty() && ward.write(2).is_empty());
        ward.statuses.get_mut(&key("s")).unwrap().observed_generation = Some(1);
        assert!(ward.write(3).is_empty() && ward.write(5) == ["s"]);
    }
}
