//! A Notification as the queue reads it: only what routing and sending need, the event as text.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::api::{Condition, Notification, Phase, SubscriberRef};

/// Selects the Notifications that are not finished; finished ones leave the watch and cost nothing.
pub const SELECTOR: &str = "status.phase!=Delivered,status.phase!=Failed";

/// An unfinished Notification.
#[derive(Clone, Debug, Deserialize)]
pub struct Unfinished {
    /// Name, namespace, uid, resourceVersion, generation and the two timestamps; nothing else is kept.
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// What to send, and to whom.
    pub spec: Spec,
    /// What happened so far.
    #[serde(default)]
    pub status: Status,
}

/// The part of the spec that is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The receiver.
    pub subscriber_ref: SubscriberRef,
    /// The event, as it was written.
    pub event: Box<RawValue>,
}

/// The part of the status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Any text: what is neither Delivered nor Failed is unfinished.
    pub phase: String,
    /// Attempts recorded.
    pub attempts: u32,
    /// When the next one is due.
    pub next_attempt_time: Option<Time>,
    /// The last attempt recorded.
    pub last_attempt: Option<LastAttempt>,
    /// For their transition times.
    pub conditions: Vec<Condition>,
}

/// The part of an attempt that is read.
#[derive(Clone, Debug, Deserialize)]
pub struct LastAttempt {
    /// When it ended.
    pub time: Time,
}

impl Unfinished {
    /// The resourceVersion as a number; the API server promises that they can be compared (0 if there is none).
    pub fn version(&self) -> u64 {
        self.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Whether the phase is final after all.
    pub fn is_finished(&self) -> bool {
        [Phase::Delivered, Phase::Failed].iter().any(|phase| self.status.phase == phase.as_str())
    }

    /// Whether somebody deletes it.
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// Reads a few of the fields: managedFields alone would be most of the memory.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
    }
    Slim::deserialize(deserializer).map(|slim| ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

impl Resource for Unfinished {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Notification::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Notification::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Notification::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Notification::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
