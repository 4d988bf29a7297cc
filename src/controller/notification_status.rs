//! What a Notification's status says after an attempt. Pure.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::unfinished::Unfinished;
use crate::{
    api::{
        AttemptReason, Condition, ConditionStatus, ConditionType, LastAttempt, NotificationReason, NotificationStatus,
        Phase, set_condition,
    },
    webhook::{Outcome, Verdict},
};

/// One attempt that ended.
pub struct Attempt<'a> {
    /// How it ended.
    pub outcome: &'a Outcome,
    /// The id that the event was, or would have been, sent with.
    pub event_id: &'a str,
    /// How long it took.
    pub duration: Duration,
    /// How long to wait before the next one, should there be one.
    pub retry_after: Duration,
}

/// The status to write: what was read, with this attempt put in.
pub fn after(read: &Unfinished, attempt: &Attempt<'_>, now: Timestamp) -> NotificationStatus {
    let outcome = attempt.outcome;
    let (phase, reason) = match outcome.verdict {
        Verdict::Delivered if outcome.reason == AttemptReason::Accepted => {
            (Phase::Delivered, NotificationReason::Accepted)
        }
        Verdict::Delivered => (Phase::Delivered, NotificationReason::Acknowledged),
        Verdict::Failed => (Phase::Failed, failed(outcome.reason)),
        Verdict::Retry => (Phase::Pending, NotificationReason::Retrying),
    };
    let message: String = outcome.message.chars().take(256).collect();
    let generation = read.metadata.generation;
    let mut conditions = read.status.conditions.clone();
    let mut set = |type_: ConditionType, holds: bool| {
        set_condition(
            &mut conditions,
            Condition {
                type_: type_.to_string(),
                status: ConditionStatus::from(holds),
                observed_generation: generation,
                last_transition_time: Time(now),
                reason: reason.to_string(),
                message: message.clone(),
            },
        );
    };
    set(ConditionType::Ready, phase == Phase::Delivered);
    set(ConditionType::Delivered, phase == Phase::Delivered);
    let abnormal = match phase {
        Phase::Delivered => None,
        Phase::Pending => Some(ConditionType::Reconciling),
        Phase::Failed => Some(ConditionType::Stalled),
    };
    if let Some(type_) = abnormal {
        set(type_, true);
    }
    // kstatus: Reconciling and Stalled are there only while they are true.
    conditions.retain(|c| {
        [ConditionType::Reconciling, ConditionType::Stalled]
            .iter()
            .all(|type_| c.type_ != type_.as_str() || abnormal == Some(*type_))
    });
    let finished = phase != Phase::Pending;
    NotificationStatus {
        observed_generation: generation,
        phase,
        reason,
        message: Some(message),
        conditions,
        event_id: Some(attempt.event_id.to_owned()),
        attempts: read.status.attempts.saturating_add(1),
        last_attempt: Some(LastAttempt {
            time: Time(now),
            status_code: outcome.status.map(|status| status.as_u16()),
            reason: outcome.reason,
            duration_milliseconds: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        }),
        next_attempt_time: (!finished).then(|| Time(now + attempt.retry_after)),
        completion_time: finished.then_some(Time(now)),
    }
}

fn failed(reason: AttemptReason) -> NotificationReason {
    match reason {
        AttemptReason::RedirectRefused => NotificationReason::RedirectRefused,
        AttemptReason::InvalidEvent => NotificationReason::InvalidEvent,
        _ => NotificationReason::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    fn unfinished(attempts: u32) -> Unfinished {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "generation": 1},
            "spec": {"subscriberRef": {"name": "s"}, "event": {}},
            "status": {"phase": "Pending", "attempts": attempts}
        }))
        .unwrap()
    }

    fn status(code: u16) -> NotificationStatus {
        let outcome = Outcome::of_answer(StatusCode::from_u16(code).unwrap(), "a test");
        let attempt = Attempt {
            outcome: &outcome,
            event_id: "id",
            duration: Duration::from_millis(7),
            retry_after: Duration::from_secs(5),
        };
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
}
