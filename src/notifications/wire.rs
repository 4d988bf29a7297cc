//! A Notification as the queue reads it: only what routing and sending need, with the event as text.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny},
};
use serde_json::value::RawValue;
use tidings_api::{Condition, LastAttempt, Phase, REPLAY_LABEL, SubscriberRef, if_readable, was_handled, with_handled};

use crate::cluster::call::version;

/// Selects unfinished Notifications. Finished Notifications leave the watch and cost nothing.
pub const SELECTOR: &str = "status.phase!=Delivered,status.phase!=Failed";

#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Read")]
pub struct Unfinished {
    /// Name, generateName, namespace, uid, resourceVersion, generation, the two timestamps and the replay label;
    /// nothing else is kept.
    pub metadata: ObjectMeta,
    /// The event and the Subscriber.
    pub spec: Spec,
    pub status: Status,
    /// The size of metadata and event as stored, in bytes, without `managedFields`: the API server drops these when
    /// they take the room of the rest.
    pub bytes: usize,
}

/// A Notification as it is read, with the size of its metadata.
#[derive(Deserialize)]
struct Read {
    #[serde(deserialize_with = "measured")]
    metadata: (ObjectMeta, usize),
    spec: Spec,
    #[serde(default)]
    status: Status,
}

impl From<Read> for Unfinished {
    fn from(Read { metadata: (metadata, size), spec, status }: Read) -> Self {
        let bytes = size + spec.event.get().len();
        Self { metadata, spec, status, bytes }
    }
}

/// Reads what [`slim`] reads, and the size of all but `managedFields`.
fn measured<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, usize), D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    let read: SlimMetadata<&RawValue> = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
    let managed = read.managed_fields.map_or(0, |fields| fields.get().len());
    Ok((read.into(), text.get().len() - managed))
}

/// The part of the spec that is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub subscriber_ref: SubscriberRef,
    /// The event, verbatim.
    pub event: Box<RawValue>,
    /// Seconds from creation or replay to expiry.
    #[serde(default)]
    pub expire_after_seconds: Option<u32>,
    /// Seconds from completion to deletion.
    #[serde(default)]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// The part of the status that is read. A field that cannot be read counts as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Any text: every phase except Delivered and Failed is unfinished.
    pub phase: String,
    /// Any text: the reason for the phase.
    pub reason: String,
    #[serde(deserialize_with = "if_readable")]
    pub attempts: u32,
    /// The attempts that do not count toward maxAttempts.
    #[serde(deserialize_with = "if_readable")]
    pub deferred_attempts: u32,
    /// When the next attempt is due.
    #[serde(deserialize_with = "if_readable")]
    pub next_attempt_time: Option<Time>,
    #[serde(deserialize_with = "if_readable")]
    pub last_attempt: Option<LastAttempt>,
    /// The conditions, for their transition times.
    #[serde(deserialize_with = "if_readable")]
    pub conditions: Vec<Condition>,
    /// The id that the event was sent with.
    #[serde(rename = "eventID")]
    pub event_id: Option<String>,
    /// When a replay set the Notification back to Pending.
    #[serde(deserialize_with = "if_readable")]
    pub replay_time: Option<Time>,
    /// The value of the replay label that was handled last.
    pub last_handled_replay: Option<String>,
    /// The values of the replay label that were handled recently.
    #[serde(deserialize_with = "if_readable")]
    pub handled_replays: Vec<String>,
    /// When the Notification became Delivered or Failed.
    #[serde(deserialize_with = "if_readable")]
    pub completion_time: Option<Time>,
}

impl Status {
    /// Whether the phase is final.
    pub fn is_finished(&self) -> bool {
        [Phase::Delivered, Phase::Failed].iter().any(|phase| self.phase == phase.as_str())
    }

    /// Whether this value of the replay label was handled already.
    pub fn has_handled(&self, value: &str) -> bool {
        was_handled(value, self.last_handled_replay.as_deref(), &self.handled_replays)
    }

    /// Returns the values of the replay label to remember once this value is handled.
    pub fn and_handled(&self, value: &str) -> Vec<String> {
        with_handled(value, self.last_handled_replay.as_deref(), &self.handled_replays)
    }
}

impl Unfinished {
    /// Returns the resourceVersion as a number, or 0 if there is none.
    pub fn version(&self) -> u64 {
        version(&self.metadata)
    }

    /// Returns when the current life began: at creation or at the last replay.
    pub fn began(&self) -> Timestamp {
        let began = self.status.replay_time.as_ref().or(self.metadata.creation_timestamp.as_ref());
        began.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// Returns the value of the replay label.
    pub fn replay_label(&self) -> Option<&str> {
        replay_label(&self.metadata)
    }

    /// Returns the id for an event that has none: the id that it was sent with before, also if a restore gave the
    /// Notification another uid, or the uid.
    pub fn default_id(&self) -> &str {
        let sent_with = self.status.event_id.as_deref().filter(|id| !id.is_empty());
        sent_with.or(self.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// Whether the phase is final.
    pub fn is_finished(&self) -> bool {
        self.status.is_finished()
    }

    /// Whether the Notification is being deleted.
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// Returns the value of the replay label.
pub(super) fn replay_label(metadata: &ObjectMeta) -> Option<&str> {
    metadata.labels.as_ref()?.get(REPLAY_LABEL).map(String::as_str)
}

/// The metadata that is read. `M`: what is read of `managedFields`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata<M> {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<ObjectLabels>,
    managed_fields: Option<M>,
}

#[derive(Deserialize)]
struct ObjectLabels {
    #[serde(rename = "tidings.dev/replay")]
    replay: Option<String>,
}

impl<M> From<SlimMetadata<M>> for ObjectMeta {
    fn from(slim: SlimMetadata<M>) -> Self {
        Self {
            name: slim.name,
            generate_name: slim.generate_name,
            namespace: slim.namespace,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            creation_timestamp: slim.creation_timestamp,
            deletion_timestamp: slim.deletion_timestamp,
            labels: slim.labels.and_then(|labels| labels.replay).map(|value| [(REPLAY_LABEL.to_owned(), value)].into()),
            ..Self::default()
        }
    }
}

/// Reads only a few fields: managedFields alone would take most of the memory.
pub(super) fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    SlimMetadata::<IgnoredAny>::deserialize(deserializer).map(ObjectMeta::from)
}

/// Implements `Resource` for a type that reads Notifications.
macro_rules! reads_notifications {
    ($type:ty) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                <tidings_api::Notification as kube::Resource>::kind(&())
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                <tidings_api::Notification as kube::Resource>::group(&())
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <tidings_api::Notification as kube::Resource>::version(&())
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                <tidings_api::Notification as kube::Resource>::plural(&())
            }

            fn meta(&self) -> &kube::api::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(super) use reads_notifications;

reads_notifications!(Unfinished);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_an_id_keeps_the_id_that_it_was_sent_with() {
        let id = |status: &str| {
            let object = format!(
                r#"{{"metadata":{{"name":"n","uid":"new"}},"spec":{{"event":{{}},"subscriberRef":{{"name":"s"}}}},"status":{status}}}"#
            );
            serde_json::from_str::<Unfinished>(&object).unwrap().default_id().to_owned()
        };
        assert_eq!(id(r#"{"phase":"Pending"}"#), "new");
        assert_eq!(id(r#"{"phase":"Pending","eventID":""}"#), "new");
        assert_eq!(id(r#"{"phase":"Pending","eventID":"old"}"#), "old");
    }

    #[test]
    fn the_size_counts_metadata_and_event_as_they_are_stored_and_no_managed_fields() {
        let metadata = r#"{"annotations":{"a":"<\u003c>"},"name":"n","uid":"u"}"#;
        let event = r#"{"data":"x","id":"e"}"#;
        let read = |metadata: &str| {
            let object = format!(
                r#"{{"kind":"Notification","metadata":{metadata},"spec":{{"event":{event},"subscriberRef":{{"name":"s"}}}},"status":{{"phase":"Pending"}}}}"#
            );
            serde_json::from_str::<Unfinished>(&object).unwrap()
        };
        assert_eq!(read(metadata).bytes, metadata.len() + event.len());
        let managed = metadata.replace(r#""name""#, r#""managedFields":[{"manager":"kubectl"}],"name""#);
        let read = read(&managed);
        assert_eq!(read.bytes, metadata.len() + event.len() + r#""managedFields":,"#.len());
        assert_eq!((read.metadata.name.as_deref(), read.metadata.managed_fields), (Some("n"), None));
    }
}
