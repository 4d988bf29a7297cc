//! Computes the status of a Notification after an attempt. Pure.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use tidings_api::{
    AttemptReason, Condition, ConditionType, Conditions, LastAttempt, NotificationReason, NotificationStatus, Phase,
};
use tidings_delivery::webhook::{Outcome, Verdict};
use tidings_queue::Gate;

use super::wire::{Status, Unfinished};

/// The largest count that the schema allows (int32).
const MOST: u32 = i32::MAX as u32;

/// One attempt that ended.
pub struct Attempt<'a> {
    pub outcome: &'a Outcome,
    /// The id that the event was, or would have been, sent with.
    pub event_id: &'a str,
    pub duration: Duration,
    /// How long to wait before the next attempt, if there is one.
    pub next_wait: Duration,
    /// The maximum number of attempts, without deferred attempts.
    pub max_attempts: Option<u32>,
    /// Whether the attempt began before the replay label was set, so that it is not the attempt that the label
    /// requests.
    pub began_before_label: bool,
}

/// Returns the status to write after an attempt: the status that was read, with the attempt added.
pub fn after(read: &Unfinished, attempt: &Attempt<'_>, now: Timestamp) -> NotificationStatus {
    let outcome = attempt.outcome;
    let tried = u32::from(outcome.reason.is_attempt());
    let attempts = read.status.attempts.saturating_add(tried).min(MOST);
    let deferred = read.status.deferred_attempts.saturating_add(u32::from(outcome.verdict.is_deferred())).min(MOST);
    let is_last = attempt.max_attempts.is_some_and(|max| attempts.saturating_sub(deferred) >= max);
    let (phase, reason) = match outcome.verdict {
        Verdict::Delivered if outcome.reason == AttemptReason::Accepted => {
            (Phase::Delivered, NotificationReason::Accepted)
        }
        Verdict::Delivered => (Phase::Delivered, NotificationReason::Acknowledged),
        Verdict::Failed | Verdict::Rejected => (Phase::Failed, failed(outcome.reason)),
        Verdict::Hold => (Phase::Pending, NotificationReason::RejectsAll),
        Verdict::Defer => (Phase::Pending, NotificationReason::Retrying),
        Verdict::Retry | Verdict::RetryAfter(_) if is_last => (Phase::Failed, NotificationReason::Exhausted),
        Verdict::Retry | Verdict::RetryAfter(_) => (Phase::Pending, NotificationReason::Retrying),
        Verdict::Pause(_) => (Phase::Pending, NotificationReason::Paused),
        Verdict::Gone => (Phase::Pending, NotificationReason::EndpointGone),
    };
    let message = match reason {
        NotificationReason::Exhausted => format!("{}; that was the last of {attempts} attempts", outcome.message),
        _ => outcome.message.clone(),
    };
    let last_attempt = LastAttempt {
        time: Time(now),
        status_code: outcome.status.map(|status| status.as_u16()),
        reason: outcome.reason,
        duration_milliseconds: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
    };
    let status = in_phase(&read.metadata, &read.status, phase, reason, &message, now);
    let (last_handled_replay, handled_replays) = match handled_replay(read, attempt.began_before_label) {
        Some(label) => (Some(label.to_owned()), read.status.and_handled(label)),
        None => (status.last_handled_replay, status.handled_replays),
    };
    NotificationStatus {
        event_id: Some(attempt.event_id.to_owned()),
        attempts,
        deferred_attempts: deferred,
        last_attempt: if tried == 0 { read.status.last_attempt.clone() } else { Some(last_attempt) },
        next_attempt_time: (phase == Phase::Pending).then(|| Time(now + attempt.next_wait)),
        last_handled_replay,
        handled_replays,
        ..status
    }
}

/// Returns the value of the label that this attempt handles, if there is one. A first attempt that saw the label is the
/// attempt that the label requests: a Notification that Git or a template created with the label is sent once, not
/// twice. If there were attempts before, replay handles the label, and resets attempts and expiry.
fn handled_replay(read: &Unfinished, began_before_label: bool) -> Option<&str> {
    let is_first = read.status.attempts == 0 && !began_before_label;
    read.replay_label().filter(|label| is_first && !read.status.has_handled(label))
}

/// Returns the reason that names a gate, if there is one.
pub fn reason_of(gate: Gate) -> Option<NotificationReason> {
    match gate {
        Gate::SubscriberNotFound => Some(NotificationReason::SubscriberNotFound),
        Gate::SubscriberNotReady => Some(NotificationReason::SubscriberNotReady),
        Gate::Suspended => Some(NotificationReason::Suspended),
        Gate::EndpointGone => Some(NotificationReason::EndpointGone),
        Gate::Paused => Some(NotificationReason::Paused),
        Gate::CircuitOpen => Some(NotificationReason::CircuitOpen),
        Gate::RejectsAll => Some(NotificationReason::RejectsAll),
        // The process that acts for the Subscriber writes the status.
        Gate::NotOwned => None,
    }
}

/// Returns the gate that the reason of a Notification names.
pub fn gate_of(reason: &str) -> Option<Gate> {
    Gate::ALL.into_iter().find(|gate| reason_of(*gate).is_some_and(|named| named.as_str() == reason))
}

/// Returns the status of a Notification that expired.
pub fn expired(read: &Unfinished, now: Timestamp) -> NotificationStatus {
    let last = read.status.last_attempt.as_ref().map_or_else(String::new, |last| {
        let code = last.status_code.map_or_else(String::new, |code| format!(", status code {code}"));
        format!(" ({}{code})", last.reason)
    });
    let tried = match read.status.attempts {
        0 => "no attempt was made".to_owned(),
        n => format!("the last of {n} attempts failed{last}"),
    };
    let message =
        format!("expired before it was delivered: {tried}; set the label tidings.dev/replay to send it again");
    in_phase(&read.metadata, &read.status, Phase::Failed, NotificationReason::Expired, &message, now)
}

/// Returns the status that was read, in this phase and with the matching conditions.
pub(super) fn in_phase(
    metadata: &ObjectMeta,
    read: &Status,
    phase: Phase,
    reason: NotificationReason,
    message: &str,
    now: Timestamp,
) -> NotificationStatus {
    let message: String = message.chars().take(256).collect();
    let generation = metadata.generation;
    NotificationStatus {
        observed_generation: generation,
        phase,
        reason,
        conditions: conditions(read, generation, phase, reason, &message, now),
        message: Some(message),
        event_id: read.event_id.clone(),
        attempts: read.attempts,
        deferred_attempts: read.deferred_attempts,
        last_attempt: read.last_attempt.clone(),
        next_attempt_time: None,
        completion_time: (phase != Phase::Pending).then_some(Time(now)),
        replay_time: read.replay_time.clone(),
        last_handled_replay: read.last_handled_replay.clone(),
        handled_replays: read.handled_replays.clone(),
    }
}

/// Returns the conditions that were read, updated for this phase.
fn conditions(
    read: &Status,
    generation: Option<i64>,
    phase: Phase,
    reason: NotificationReason,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let abnormal = match phase {
        Phase::Delivered => None,
        Phase::Pending => Some(ConditionType::Reconciling),
        Phase::Failed => Some(ConditionType::Stalled),
    };
    let is_delivered = phase == Phase::Delivered;
    Conditions::from(&read.conditions, generation, now)
        .set(ConditionType::Ready, is_delivered, reason.as_str(), message)
        .set(ConditionType::Delivered, is_delivered, reason.as_str(), message)
        .finish(abnormal, reason.as_str(), message)
}

fn failed(reason: AttemptReason) -> NotificationReason {
    match reason {
        AttemptReason::InvalidEvent => NotificationReason::InvalidEvent,
        AttemptReason::TooLarge => NotificationReason::TooLarge,
        _ => NotificationReason::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use tidings_api::{ConditionStatus, REPLAY_LABEL};
    use tidings_delivery::webhook::ResponseRules;

    #[test]
    fn counts_stay_within_what_the_schema_allows() {
        let mut read = unfinished(MOST);
        read.status.deferred_attempts = MOST;
        let outcome = Outcome::of_answer(StatusCode::TOO_MANY_REQUESTS, None, "a test", &ResponseRules::default());
        let status = after(&read, &attempt(&outcome), Timestamp::UNIX_EPOCH);
        assert_eq!((status.attempts, status.deferred_attempts), (MOST, MOST));
    }

    fn attempt(outcome: &Outcome) -> Attempt<'_> {
        Attempt {
            outcome,
            event_id: "id",
            duration: Duration::from_millis(7),
            next_wait: Duration::from_secs(5),
            max_attempts: None,
            began_before_label: false,
        }
    }

    fn unfinished(attempts: u32) -> Unfinished {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "generation": 1},
            "spec": {"subscriberRef": {"name": "s"}, "event": {}},
            "status": {"phase": "Pending", "attempts": attempts}
        }))
        .unwrap()
    }

    fn status(code: u16) -> NotificationStatus {
        status_of(code, None, None)
    }

    fn status_of(code: u16, retry_after: Option<Duration>, max_attempts: Option<u32>) -> NotificationStatus {
        let outcome =
            Outcome::of_answer(StatusCode::from_u16(code).unwrap(), retry_after, "a test", &ResponseRules::default());
        let attempt = Attempt { max_attempts, ..attempt(&outcome) };
        after(&unfinished(2), &attempt, Timestamp::UNIX_EPOCH)
    }

    fn conditions(status: &NotificationStatus) -> Vec<(&str, ConditionStatus)> {
        status.conditions.iter().map(|c| (c.type_.as_str(), c.status)).collect()
    }

    #[test]
    fn a_delivered_one_is_complete_and_ready() {
        let status = status(204);
        assert_eq!((status.phase, status.reason), (Phase::Delivered, NotificationReason::Acknowledged));
        assert_eq!(status.attempts, 3);
        assert!(status.completion_time.is_some() && status.next_attempt_time.is_none());
        let expected = [("Ready", ConditionStatus::True), ("Delivered", ConditionStatus::True)];
        assert_eq!(conditions(&status), expected);
    }

    #[test]
    fn a_failed_one_is_complete_and_stalled() {
        let status = status(422);
        assert_eq!((status.phase, status.reason), (Phase::Failed, NotificationReason::Rejected));
        assert!(status.completion_time.is_some() && status.next_attempt_time.is_none());
        assert_eq!(conditions(&status)[2], ("Stalled", ConditionStatus::True));
    }

    #[test]
    fn one_to_be_retried_says_when() {
        let status = status(503);
        assert_eq!((status.phase, status.reason), (Phase::Pending, NotificationReason::Retrying));
        assert_eq!(status.next_attempt_time, Some(Time(Timestamp::from_second(5).unwrap())));
        assert!(status.completion_time.is_none());
        assert_eq!(conditions(&status)[2], ("Reconciling", ConditionStatus::True));
        assert_eq!(status.last_attempt.unwrap().status_code, Some(503));
    }

    #[test]
    fn the_last_attempt_exhausts_and_a_deferred_one_does_not_count() {
        let exhausted = status_of(503, None, Some(3));
        assert_eq!((exhausted.phase, exhausted.reason), (Phase::Failed, NotificationReason::Exhausted));
        assert_eq!(status_of(503, None, Some(4)).phase, Phase::Pending);
        let deferred = status_of(429, None, Some(3));
        assert_eq!((deferred.phase, deferred.reason), (Phase::Pending, NotificationReason::Paused));
        assert_eq!((deferred.attempts, deferred.deferred_attempts), (3, 1));
    }

    #[test]
    fn a_first_attempt_handles_the_label_that_it_saw_and_a_later_one_leaves_it_to_replay() {
        let outcome = Outcome::of_answer(StatusCode::OK, None, "a test", &ResponseRules::default());
        let labelled = |attempts, label: Option<&str>| {
            let mut read = unfinished(attempts);
            read.metadata.labels = label.map(|value| [(REPLAY_LABEL.to_owned(), value.to_owned())].into());
            read.status.last_handled_replay = Some("old".into());
            read
        };
        let handled = |read: Unfinished, began_before_label| {
            let attempt = Attempt { began_before_label, ..attempt(&outcome) };
            after(&read, &attempt, Timestamp::UNIX_EPOCH).last_handled_replay.unwrap()
        };
        assert_eq!(handled(labelled(0, Some("new")), false), "new");
        assert_eq!(handled(labelled(0, None), false), "old");
        assert_eq!(handled(labelled(2, Some("new")), false), "old");
        assert_eq!(handled(labelled(0, Some("new")), true), "old");
    }

    #[test]
    fn a_first_attempt_keeps_the_handled_values_and_ignores_a_label_that_was_handled_before() {
        let outcome = Outcome::of_answer(StatusCode::OK, None, "a test", &ResponseRules::default());
        let written = |label: &str| {
            let mut read = unfinished(0);
            read.metadata.labels = Some([(REPLAY_LABEL.to_owned(), label.to_owned())].into());
            (read.status.last_handled_replay, read.status.handled_replays) = (Some("2".into()), vec!["1".into()]);
            let status = after(&read, &attempt(&outcome), Timestamp::UNIX_EPOCH);
            (status.last_handled_replay.unwrap(), status.handled_replays)
        };
        assert_eq!(written("3"), ("3".into(), vec!["1".into(), "2".into(), "3".into()]));
        assert_eq!(written("1"), ("2".into(), vec!["1".into()]));
    }

    #[test]
    fn an_expired_one_keeps_what_was_tried() {
        let status = expired(&unfinished(2), Timestamp::UNIX_EPOCH);
        assert_eq!((status.phase, status.reason, status.attempts), (Phase::Failed, NotificationReason::Expired, 2));
        assert!(status.completion_time.is_some() && status.next_attempt_time.is_none());
        assert!(status.message.unwrap().contains("the last of 2 attempts failed"));
    }
}
