//! The room that a Notification leaves for its status. Pure.
//!
//! The API server stores a Notification as one value. It can accept an object that leaves no room for the status, so
//! that an outcome could never be recorded. The operator therefore judges the size before it sends the event, and
//! shortens a status that the API server refuses because of its size.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{ConditionType, Conditions, NotificationReason, NotificationStatus, Phase};

/// The longest request that etcd accepts by default (`--max-request-bytes`), in bytes.
const ETCD: usize = 1_572_864;
/// The longest request that the API server sends to etcd, in bytes. It applies where etcd accepts more than by default.
const API_SERVER: usize = 2 << 20;
/// The room that an event must leave, in bytes: four texts of 256 characters and an event id of 1024, each character up
/// to six bytes in JSON, the handled replays, the rest of the status, and three times the key of the object.
const ROOM: usize = 16 << 10;

/// How much of a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The conditions without messages, and neither the last attempt nor the values of handled replays except the last.
    Short,
    /// Phase, reason, completion time, counts and, in phase Failed, the condition Stalled.
    Shorter,
    /// Phase, reason and attempts, and in phase Failed an observed generation of -1: without conditions, kstatus would
    /// show a Failed Notification as a success. No longer than the status of a new Notification, but for the reason.
    Least,
}

impl Extent {
    /// The next shorter extent.
    pub fn shorter(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::Short),
            Self::Short => Some(Self::Shorter),
            Self::Shorter => Some(Self::Least),
            Self::Least => None,
        }
    }
}

/// Whether a Notification of this size leaves room for its status; the error is for people. `bytes` is
/// [`super::wire::Unfinished::bytes`].
pub fn check(bytes: usize) -> Result<(), String> {
    // An object beyond the default shows that etcd accepts more.
    let limit = if bytes <= ETCD { ETCD } else { API_SERVER };
    if bytes + ROOM <= limit {
        return Ok(());
    }
    Err(format!(
        "the Notification has {bytes} bytes and leaves no room for its status (the limit is {}); the event was not sent: create a Notification with less data, for example with a URL of the content",
        limit - ROOM
    ))
}

/// Shortens a status that the API server refuses because of its size. A status in phase Pending becomes Failed: the
/// outcome of another attempt could not be recorded.
pub fn shortened(status: &NotificationStatus, extent: Extent, now: Timestamp) -> NotificationStatus {
    let mut status = status.clone();
    if extent == Extent::Whole {
        return status;
    }
    if status.phase == Phase::Pending {
        (status.phase, status.reason) = (Phase::Failed, NotificationReason::TooLarge);
        (status.completion_time, status.next_attempt_time) = (Some(Time(now)), None);
    }
    status.conditions = conditions(&status, now);
    status.message = Some("the Notification is too large for a longer status".into());
    (status.last_attempt, status.handled_replays) = (None, Vec::new());
    if extent == Extent::Short {
        return status;
    }
    let is_failed = status.phase == Phase::Failed;
    let is_least = extent == Extent::Least;
    status.conditions.retain(|condition| !is_least && condition.type_ == ConditionType::Stalled.as_str());
    NotificationStatus {
        observed_generation: (is_failed && is_least).then_some(-1),
        phase: status.phase,
        reason: status.reason,
        conditions: status.conditions,
        attempts: status.attempts,
        deferred_attempts: status.deferred_attempts,
        completion_time: status.completion_time.filter(|_| !is_least),
        last_handled_replay: status.last_handled_replay,
        ..NotificationStatus::default()
    }
}

/// The operator's own conditions for a final phase, without messages.
fn conditions(status: &NotificationStatus, now: Timestamp) -> Vec<tidings_api::Condition> {
    let (reason, is_delivered) = (status.reason.as_str(), status.phase == Phase::Delivered);
    let abnormal = (!is_delivered).then_some(ConditionType::Stalled);
    let mut conditions = Conditions::from(&status.conditions, status.observed_generation, now)
        .set(ConditionType::Ready, is_delivered, reason, "")
        .set(ConditionType::Delivered, is_delivered, reason, "")
        .finish(abnormal, reason, "");
    conditions.retain(|condition| ConditionType::ALL.iter().any(|own| condition.type_ == own.as_str()));
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_api::{LastAttempt, REPLAY_LABEL};
    use tidings_delivery::webhook::{Outcome, ResponseRules, Verdict};

    use super::*;
    use crate::notifications::{
        status::{Attempt, after},
        wire::Unfinished,
    };

    #[test]
    fn an_event_is_sent_only_if_it_leaves_room_below_the_limit_that_applies_to_it() {
        for fits in [0, ETCD - ROOM, ETCD + 1, API_SERVER - ROOM] {
            assert_eq!(check(fits), Ok(()), "{fits}");
        }
        for leaves_none in [ETCD - ROOM + 1, ETCD, API_SERVER - ROOM + 1, API_SERVER, 3 << 20] {
            let message = check(leaves_none).unwrap_err();
            assert!(message.contains(&leaves_none.to_string()) && message.len() <= 256, "{message}");
        }
    }

    /// The longest status of a Notification.
    fn longest(verdict: Verdict) -> NotificationStatus {
        let read: Unfinished = serde_json::from_value(json!({
            "metadata": {"name": "n", "generation": 1, "labels": {(REPLAY_LABEL): "x".repeat(63)}},
            "spec": {"subscriberRef": {"name": "s"}, "event": {}},
            "status": {
                "phase": "Pending", "lastHandledReplay": "0".repeat(63), "replayTime": "2026-01-01T00:00:00Z",
                "handledReplays": (0..10).map(|n| format!("{n:063}")).collect::<Vec<_>>(),
            },
        }))
        .unwrap();
        let outcome =
            Outcome::of_answer(http::StatusCode::INTERNAL_SERVER_ERROR, None, "a test", &ResponseRules::default());
        let outcome = Outcome { verdict, message: "\u{1}".repeat(256), ..outcome };
        let attempt = Attempt {
            outcome: &outcome,
            event_id: &"\u{1}".repeat(1024),
            duration: std::time::Duration::from_secs(60),
            next_wait: std::time::Duration::from_secs(60),
            max_attempts: None,
            began_before_label: false,
        };
        after(&read, &attempt, Timestamp::UNIX_EPOCH)
    }

    fn size(status: &NotificationStatus) -> usize {
        serde_json::to_string(status).unwrap().len()
    }

    #[test]
    fn the_room_is_enough_for_the_longest_status_and_three_keys() {
        let key = "/registry/tidings.dev/notifications//".len() + 63 + 253;
        for verdict in [Verdict::Delivered, Verdict::Retry, Verdict::Failed] {
            let size = size(&longest(verdict)) + 3 * key;
            assert!((ROOM / 2..ROOM).contains(&size), "{size}");
        }
    }

    #[test]
    fn each_extent_is_shorter_and_the_least_fits_in_the_place_of_the_first_status() {
        let first = json!({"attempts": 0, "observedGeneration": -1, "phase": "Pending", "reason": "Queued"});
        for verdict in [Verdict::Delivered, Verdict::Retry, Verdict::Failed] {
            let mut whole = longest(verdict);
            whole.last_handled_replay = None;
            let (mut extent, mut before) = (Extent::Whole, size(&whole));
            while let Some(shorter) = extent.shorter() {
                extent = shorter;
                let size = size(&shortened(&whole, extent, Timestamp::UNIX_EPOCH));
                assert!(size < before, "{extent:?}: {size}");
                before = size;
            }
            let longer_reason = "TooLarge".len() - "Queued".len();
            assert!(before <= first.to_string().len() + longer_reason, "{before}");
        }
    }

    #[test]
    fn a_shorter_status_ends_the_attempts_and_keeps_what_a_replay_depends_on() {
        let retrying = longest(Verdict::Retry);
        let last = retrying.last_handled_replay.clone();
        for extent in [Extent::Short, Extent::Shorter, Extent::Least] {
            let failed = shortened(&retrying, extent, Timestamp::UNIX_EPOCH);
            assert_eq!((failed.phase, failed.reason), (Phase::Failed, NotificationReason::TooLarge));
            assert_eq!((failed.attempts, &failed.last_handled_replay, &failed.next_attempt_time), (1, &last, &None));
            let delivered = shortened(&longest(Verdict::Delivered), extent, Timestamp::UNIX_EPOCH);
            assert_eq!((delivered.phase, delivered.attempts), (Phase::Delivered, 1));
            assert_eq!(delivered.completion_time.is_some(), extent != Extent::Least);
            let stalls = |status: &NotificationStatus| {
                status.conditions.iter().any(|condition| condition.type_ == ConditionType::Stalled.as_str())
            };
            // kstatus takes an object without conditions for a success.
            assert!(stalls(&failed) || failed.observed_generation == Some(-1), "{extent:?}");
            assert!(!stalls(&delivered) && delivered.observed_generation != Some(-1), "{extent:?}");
        }
        let short = shortened(&retrying, Extent::Short, Timestamp::UNIX_EPOCH);
        let types: Vec<_> = short.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Delivered", "Stalled"]);
        assert_eq!((short.event_id.is_some(), short.last_attempt), (true, None::<LastAttempt>));
    }
}
