//! A Notification as the queue reads it: only what routing and sending need, the event as text.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidings_api::{Condition, LastAttempt, Phase, REPLAY_LABEL, SubscriberRef, if_readable};

use crate::cluster::call::version;

/// Selects the Notifications that are not finished; finished ones leave the watch and cost nothing.
pub const SELECTOR: &str = "status.phase!=Delivered,status.phase!=Failed";

#[derive(Clone, Debug, Deserialize)]
pub struct Unfinished {
    /// Name, generateName, namespace, uid, resourceVersion, generation, the two timestamps and the label that asks for
    /// a replay; nothing else is kept.
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// What to send, and to whom.
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

/// The part of the spec that is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub subscriber_ref: SubscriberRef,
    /// The event, as it was written.
    pub event: Box<RawValue>,
    /// Seconds after creation or replay at which it fails.
    #[serde(default)]
    pub expire_after_seconds: Option<u32>,
    /// Seconds after its completion at which it is deleted.
    #[serde(default)]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// The part of the status that is read; what cannot be read counts as absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Any text: what is neither Delivered nor Failed is unfinished.
    pub phase: String,
    /// Any text: why it is in that phase.
    pub reason: String,
    #[serde(deserialize_with = "if_readable")]
    pub attempts: u32,
    /// Those of them that do not count toward maxAttempts.
    #[serde(deserialize_with = "if_readable")]
    pub deferred_attempts: u32,
    /// When the next one is due.
    #[serde(deserialize_with = "if_readable")]
    pub next_attempt_time: Option<Time>,
    #[serde(deserialize_with = "if_readable")]
    pub last_attempt: Option<LastAttempt>,
    /// For their transition times.
    #[serde(deserialize_with = "if_readable")]
    pub conditions: Vec<Condition>,
    /// The id that it was sent with.
    #[serde(rename = "eventID")]
    pub event_id: Option<String>,
    /// When it was set back to Pending.
    #[serde(deserialize_with = "if_readable")]
    pub replay_time: Option<Time>,
    /// By which value of the label.
    pub last_handled_replay: Option<String>,
    /// When it became Delivered or Failed.
    #[serde(deserialize_with = "if_readable")]
    pub completion_time: Option<Time>,
}

impl Status {
    /// Whether the phase is final.
    pub fn is_finished(&self) -> bool {
        [Phase::Delivered, Phase::Failed].iter().any(|phase| self.phase == phase.as_str())
    }
}

impl Unfinished {
    /// The resourceVersion as a number; the API server promises that they can be compared (0 if there is none).
    pub fn version(&self) -> u64 {
        version(&self.metadata)
    }

    /// When its life began: its creation, or its replay.
    pub fn began(&self) -> Timestamp {
        let began = self.status.replay_time.as_ref().or(self.metadata.creation_timestamp.as_ref());
        began.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// The value of the label that asks for a replay.
    pub fn replay_label(&self) -> Option<&str> {
        replay_label(&self.metadata)
    }

    /// Whether the phase is final after all.
    pub fn is_finished(&self) -> bool {
        self.status.is_finished()
    }

    /// Whether somebody deletes it.
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// The value of the label that asks for a replay.
pub(super) fn replay_label(metadata: &ObjectMeta) -> Option<&str> {
    metadata.labels.as_ref()?.get(REPLAY_LABEL).map(String::as_str)
}

/// Reads a few of the fields: managedFields alone would be most of the memory.
pub(super) fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct SlimNotification {
        name: Option<String>,
        generate_name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<ObjectLabels>,
    }
    #[derive(Deserialize)]
    struct ObjectLabels {
        #[serde(rename = "tidings.dev/replay")]
        replay: Option<String>,
    }
    SlimNotification::deserialize(deserializer).map(|slim| ObjectMeta {
        name: slim.name,
        generate_name: slim.generate_name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        labels: slim.labels.and_then(|labels| labels.replay).map(|value| [(REPLAY_LABEL.to_owned(), value)].into()),
        ..ObjectMeta::default()
    })
}

/// Makes a type that reads Notifications known to the client as such.
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
