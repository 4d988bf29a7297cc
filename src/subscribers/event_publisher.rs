//! Kubernetes Events for what changed in a Subscriber's conditions: what `kubectl describe` shows below the status.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tidings_api::{Condition, ConditionStatus, ConditionType, Subscriber, SubscriberReason as Reason};
use tidings_queue::SubscriberKey;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::cluster::call::in_time;

/// Of all conditions that may change, those that are told, in this order.
const PUBLISHED: [ConditionType; 5] = [
    ConditionType::Ready,
    ConditionType::TokenAvailable,
    ConditionType::Validated,
    ConditionType::Healthy,
    ConditionType::Tested,
];

/// So many Events wait at most; more are let go, since the status says the same.
const WAITING: usize = 256;

/// Tells of transitions, in a task of its own: nobody waits for an Event.
pub struct EventPublisher(mpsc::Sender<(Event, ObjectReference)>);

impl EventPublisher {
    /// Publishes by this client, for as long as the announcer is there.
    pub fn start(client: Client) -> Self {
        let reporter = Reporter { controller: "tidings.dev/tidings".into(), instance: None };
        let recorder = Recorder::new(client, reporter);
        let (sender, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        tokio::spawn(async move {
            while let Some((event, subscriber)) = waiting.recv().await {
                if let Err(error) = in_time(recorder.publish(&event, &subscriber)).await {
                    debug!(subscriber = subscriber.name, %error, "an Event could not be published");
                }
            }
        });
        Self(sender)
    }

    /// Tells what changed from `old` to `new`.
    pub fn publish(&self, key: &SubscriberKey, uid: &str, old: &[Condition], new: &[Condition]) {
        for condition in transitions(old, new) {
            let Condition { type_, reason, message, .. } = condition;
            let good = is_good(condition);
            if good {
                info!(subscriber = %key, condition = type_, %reason, why = message, "a Subscriber changed");
            } else {
                warn!(subscriber = %key, condition = type_, %reason, why = message, "a Subscriber changed");
            }
            let event = Event {
                type_: if good { EventType::Normal } else { EventType::Warning },
                reason: reason.clone(),
                // As long as an Event may hold, in bytes.
                note: Some(message.chars().filter(char::is_ascii).take(1000).collect()),
                // Events of one action are counted under the words of the first: other words, another action.
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
            if self.0.try_send((event, subscriber)).is_err() {
                debug!(subscriber = %key, "too many Events wait: this one is let go");
            }
        }
    }
}

/// The conditions whose status or reason changed and that are worth telling, each reason once.
fn transitions<'c>(old: &[Condition], new: &'c [Condition]) -> Vec<&'c Condition> {
    let mut published: Vec<&Condition> = Vec::new();
    for type_ in PUBLISHED {
        let of = |conditions: &'_ [Condition]| conditions.iter().position(|c| c.type_ == type_.as_str());
        let Some(condition) = of(new).map(|at| &new[at]) else { continue };
        let before = of(old).map(|at| &old[at]);
        let changed = before.is_none_or(|before| {
            before.status != condition.status
                || before.reason != condition.reason
                // Each test that was asked for is told.
                || (type_ == ConditionType::Tested && before.message != condition.message)
        });
        // That a part works is news only where it did not, and where the whole is none.
        let is_transition = matches!(type_, ConditionType::Ready | ConditionType::Tested)
            || condition.status == ConditionStatus::False
            || (published.is_empty() && before.is_some_and(|before| before.status == ConditionStatus::False));
        let repeats = published.iter().any(|other| other.reason == condition.reason);
        // It comes and goes with every event that is sent.
        let flickers = condition.reason == Reason::RateLimited.as_str()
            || before.is_some_and(|before| before.reason == Reason::RateLimited.as_str() && is_good(condition));
        // The first look is over in a moment, and its end is announced.
        let is_first_status = condition.reason == Reason::Progressing.as_str();
        if changed && is_transition && !repeats && !flickers && !is_first_status {
            published.push(condition);
        }
    }
    published
}

/// Whether nobody need be warned.
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
    fn what_changed_is_told_once_and_what_did_not_is_not() {
        use ConditionType::{Healthy, Ready, TokenAvailable, Validated};
        let well = [
            condition(Ready, true, Reason::Operational),
            condition(TokenAvailable, true, Reason::TokenIssued),
            condition(Validated, false, Reason::NotSupported),
            condition(Healthy, true, Reason::Idle),
        ];
        assert_eq!(published(&[], &well), ["Operational", "NotSupported"]);
        assert!(published(&well, &well).is_empty());
        let ill = [
            condition(Ready, false, Reason::TokenRejected),
            condition(TokenAvailable, false, Reason::TokenRejected),
            condition(Healthy, true, Reason::Delivering),
        ];
        assert_eq!(published(&well, &ill), ["TokenRejected"]);
        assert_eq!(published(&ill, &well), ["Operational", "NotSupported"]);
    }

    #[test]
    fn an_open_circuit_is_told_when_it_opens_and_closes_and_a_rate_limit_never() {
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
