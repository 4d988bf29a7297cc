//! The Notifications whose outcome the API server does not store in any form, because they are too large.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tidings_api::{NotificationReason, NotificationStatus};
use tracing::{debug, error};

use super::{names::Uid, wire::Unfinished};
use crate::{
    cluster::call::{in_time, plain},
    metrics::{Metrics, WriteResult, WrittenKind},
};

/// The maximum number of Notifications that are remembered. An older one may be sent again.
const MOST: usize = 10_000;

/// Remembers for the life of this process which Notifications can store no outcome, so that nothing is tried again, and
/// publishes a Kubernetes Event for each.
///
/// Such a Notification is within about a hundred bytes of the limit of etcd: an update takes more room there than the
/// creation. Its event was not sent, because the operator judges the size before it sends an event. If the limit of etcd
/// is below the default, or was lowered, the event was sent once, and is sent once again after a restart.
pub struct Unrecorded {
    known: Mutex<RefusedObjects>,
    recorder: Recorder,
    metrics: Metrics,
}

#[derive(Default)]
struct RefusedObjects {
    /// The size of each Notification when its outcome was refused.
    bytes: HashMap<Uid, usize>,
    /// The oldest first.
    order: VecDeque<Uid>,
}

impl Unrecorded {
    /// Publishes Events with `client`, and counts them in `metrics`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: "tidings.dev/tidings".into(), instance: None };
        Self { known: Mutex::default(), recorder: Recorder::new(client, reporter), metrics }
    }

    /// Whether the API server refused to store the outcome of this Notification, and the Notification has not become
    /// smaller since.
    pub fn contains(&self, object: &Unfinished) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        !known.bytes.is_empty() && known.contains(object)
    }

    /// Remembers that the API server refuses to store `status`, logs that and publishes an Event.
    pub async fn add(&self, object: &Unfinished, status: &NotificationStatus) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).add(object);
        let NotificationStatus { phase, attempts, .. } = status;
        let (phase, reason) = (phase.as_str(), NotificationReason::TooLarge);
        let why = format!(
            "the API server refuses to store the status of this Notification, because the object is too large: the result is {phase} after {attempts} attempts, and this operator makes no more. Delete the Notification; to send the event again, create a Notification with less data"
        );
        let (namespace, name) = (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
        let uid = object.metadata.uid.as_deref();
        error!(namespace, name, uid, %reason, detail = why, "the outcome cannot be stored");
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_string(),
            note: Some(why),
            action: "Record".into(),
            secondary: None,
        };
        let published = in_time(self.recorder.publish(&event, &object.object_ref(&()))).await;
        let result = if published.is_ok() { WriteResult::Recorded } else { WriteResult::Error };
        self.metrics.api_write(WrittenKind::Event, result);
        if let Err(error) = published {
            debug!(namespace, name, error = %plain(&error), "cannot publish the Event");
        }
    }
}

impl RefusedObjects {
    fn contains(&self, object: &Unfinished) -> bool {
        let known = object.metadata.uid.as_deref().and_then(|uid| self.bytes.get(&Uid::of(uid)));
        known.is_some_and(|bytes| object.bytes >= *bytes)
    }

    fn add(&mut self, object: &Unfinished) {
        let Some(uid) = object.metadata.uid.as_deref().map(Uid::of) else { return };
        if self.bytes.insert(uid, object.bytes).is_none() {
            self.order.push_back(uid);
        }
        while self.order.len() > MOST {
            self.order.pop_front().map(|oldest| self.bytes.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, annotation: &str) -> Unfinished {
        let metadata = json!({"name": "n", "uid": uid, "annotations": {"a": annotation}});
        let object = json!({"metadata": metadata, "spec": {"subscriberRef": {"name": "s"}, "event": {}}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_notification_is_held_back_until_it_becomes_smaller() {
        let mut known = RefusedObjects::default();
        known.add(&object("a", "12345"));
        assert!(known.contains(&object("a", "12345")) && known.contains(&object("a", "123456")));
        assert!(!known.contains(&object("a", "1234")) && !known.contains(&object("b", "12345")));
        known.add(&object("a", "1234"));
        assert!(known.contains(&object("a", "1234")) && !known.contains(&object("a", "123")));
        assert_eq!(known.order.len(), 1);
    }

    #[test]
    fn the_newest_are_remembered_up_to_a_bound() {
        let mut known = RefusedObjects::default();
        (0..MOST + 5).for_each(|n| known.add(&object(&n.to_string(), "")));
        assert_eq!((known.bytes.len(), known.order.len()), (MOST, MOST));
        assert!(known.contains(&object(&(MOST + 4).to_string(), "")) && !known.contains(&object("4", "")));
    }
}
