//! Publishes Kubernetes Events for changed conditions of a Subscriber: what `kubectl describe` shows below the status.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tidings_api::{Condition, ConditionStatus, ConditionType, Subscriber, SubscriberReason as Reason};
use tidings_queue::SubscriberKey;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    cluster::call::{in_time, plain},
    metrics::{Metrics, WriteResult, WrittenKind},
};

/// The conditions whose changes are published, in this order.
const PUBLISHED: [ConditionType; 5] = [
    ConditionType::Ready,
    ConditionType::TokenAvailable,
    ConditionType::Validated,
    ConditionType::Healthy,
    ConditionType::Tested,
];

/// The maximum number of Events that wait. Further Events are dropped, because the status shows the same.
const WAITING: usize = 256;

/// Publishes Kubernetes Events for condition changes. Runs in its own task, so that no caller waits for an Event.
pub struct EventPublisher {
    waiting: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Metrics,
}

impl EventPublisher {
    /// Starts a task that publishes with this client until the publisher is dropped, and counts in `metrics`.
    pub fn start(client: Client, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: "tidings.dev/tidings".into(), instance: None };
        let recorder = Recorder::new(client, reporter);
        let (sender, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let published = metrics.clone();
        tokio::spawn(async move {
            while let Some((event, subscriber)) = waiting.recv().await {
                let result = in_time(recorder.publish(&event, &subscriber)).await;
                let counted = if result.is_ok() { WriteResult::Recorded } else { WriteResult::Error };
                published.api_write(WrittenKind::Event, counted);
                if let Err(error) = result {
                    debug!(namespace = subscriber.namespace, subscriber = subscriber.name, error = %plain(&error), "cannot publish the Event");
                }
            }
        });
        Self { waiting: sender, metrics }
    }

    /// Logs and publishes the changes from `old` to `new`.
    pub fn publish(&self, key: &SubscriberKey, uid: &str, old: &[Condition], new: &[Condition]) {
        for condition in transitions(old, new) {
            let Condition { type_, reason, message, .. } = condition;
            let good = is_good(condition);
            if good {
                info!(namespace = %key.namespace, subscriber = %key.name, condition = type_, %reason, detail = message, "condition changed");
            } else {
                warn!(namespace = %key.namespace, subscriber = %key.name, condition = type_, %reason, detail = message, "condition changed");
            }
            let event = Event {
                type_: if good { EventType::Normal } else { EventType::Warning },
                reason: reason.clone(),
                // Within the API server's limit for the note of an Event, in bytes.
                note: Some(message.chars().filter(char::is_ascii).take(1000).collect()),
                // The recorder counts further Events of an action under the first note: a different message needs a
                // different action.
                action: format!("{type_}: {message}").chars().filter(char::is_ascii).take(128).collect(),
                secondary: None,
            };
            let subscriber = ObjectReference {
                api_version: Some(Subscriber::api_version(&()).into_owned()),
                kind: Some(Subscriber::kind(&()).into_owned()),
                namespace: Some(key.namespace.to_string()),
                name: Some(key.name.to_string()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            };
            if self.waiting.try_send((event, subscriber)).is_err() {
                self.metrics.api_write(WrittenKind::Event, WriteResult::Dropped);
                debug!(namespace = %key.namespace, subscriber = %key.name, "dropped an Event: too many Events are waiting");
            }
        }
    }
}

/// The conditions whose status or reason changed and whose change is worth an Event. Each reason appears once.
fn transitions<'c>(old: &[Condition], new: &'c [Condition]) -> Vec<&'c Condition> {
    let mut published: Vec<&Condition> = Vec::new();
    for type_ in PUBLISHED {
        let of = |conditions: &'_ [Condition]| conditions.iter().position(|c| c.type_ == type_.as_str());
        let Some(condition) = of(new).map(|at| &new[at]) else { continue };
        let before = of(old).map(|at| &old[at]);
        let changed = before.is_none_or(|before| {
            before.status != condition.status
                || before.reason != condition.reason
                // Every requested test is published, even with the same result.
                || (type_ == ConditionType::Tested && before.message != condition.message)
        });
        // A condition that is fine is published only if it was False before and no earlier condition is published.
        let is_transition = matches!(type_, ConditionType::Ready | ConditionType::Tested)
            || condition.status == ConditionStatus::False
            || (published.is_empty() && before.is_some_and(|before| before.status == ConditionStatus::False));
        let repeats = published.iter().any(|other| other.reason == condition.reason);
        // A rate limit starts and ends with every event that is sent.
        let flickers = condition.reason == Reason::RateLimited.as_str()
            || before.is_some_and(|before| before.reason == Reason::RateLimited.as_str() && is_good(condition));
        // The first pass ends soon, and its result is published.
        let is_first_status = condition.reason == Reason::Progressing.as_str();
        if changed && is_transition && !repeats && !flickers && !is_first_status {
            published.push(condition);
        }
    }
    published
}

/// Whether the Event is Normal rather than a Warning.
fn is_good(condition: &Condition) -> bool {
    condition.status == ConditionStatus::True || condition.reason == Reason::NotSupported.as_str()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn condition(type_: ConditionType, holds: bool, reason: Reason) -> Condition {
        Condition {
            type_: type_.to_string(),
            status: ConditionStatus::from(holds),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: reason.to_string(),
            message: String::new(),
        }
    }

    fn published(old: &[Condition], new: &[Condition]) -> Vec<String> {
        transitions(old, new).iter().map(|c| c.reason.clone()).collect()
    }

    #[test]
    fn a_change_is_published_once_and_an_unchanged_condition_is_not() {
        use ConditionType::{Healthy, Ready, TokenAvailable, Validated};
        let healthy = [
            condition(Ready, true, Reason::Operational),
            condition(TokenAvailable, true, Reason::TokenIssued),
            condition(Validated, false, Reason::NotSupported),
            condition(Healthy, true, Reason::Idle),
        ];
        assert_eq!(published(&[], &healthy), ["Operational", "NotSupported"]);
        assert!(published(&healthy, &healthy).is_empty());
        let rejected = [
            condition(Ready, false, Reason::TokenRejected),
            condition(TokenAvailable, false, Reason::TokenRejected),
            condition(Healthy, true, Reason::Delivering),
        ];
        assert_eq!(published(&healthy, &rejected), ["TokenRejected"]);
        assert_eq!(published(&rejected, &healthy), ["Operational", "NotSupported"]);
    }

    #[test]
    fn an_open_circuit_is_published_when_it_opens_and_closes_and_a_rate_limit_never() {
        let healthy = |holds, reason| [condition(ConditionType::Healthy, holds, reason)];
        let delivering = healthy(true, Reason::Delivering);
        let open = healthy(false, Reason::CircuitOpen);
        let limited = healthy(false, Reason::RateLimited);
        assert_eq!(published(&delivering, &open), ["CircuitOpen"]);
        assert_eq!(published(&open, &delivering), ["Delivering"]);
        assert!(published(&delivering, &limited).is_empty() && published(&limited, &delivering).is_empty());
        assert_eq!(published(&limited, &open), ["CircuitOpen"]);
    }
}
