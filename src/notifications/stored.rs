//! A Notification in any phase, without its event, as replay and retention read it.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::wire::{Status, reads_notifications, replay_label, slim};

/// A Notification without its event.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredNotification {
    /// The same few fields as in [`super::wire::Unfinished`].
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// The part of the spec that is read.
    #[serde(default)]
    pub spec: StoredSpec,
    #[serde(default)]
    pub status: Status,
}

/// The part of the spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoredSpec {
    /// Seconds from completion to deletion.
    pub ttl_seconds_after_finished: Option<u32>,
}

impl StoredNotification {
    /// Returns the value of the replay label.
    pub fn replay_label(&self) -> Option<&str> {
        replay_label(&self.metadata)
    }

    /// Returns the value of the replay label, unless it was handled already.
    pub fn requested_replay(&self) -> Option<&str> {
        self.replay_label().filter(|asked| !self.status.has_handled(asked))
    }

    /// Returns the name, which is never empty in what the API server sends.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the namespace, which is never empty in what the API server sends.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether the Notification is being deleted.
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

reads_notifications!(StoredNotification);
