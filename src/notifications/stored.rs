//! A Notification in any phase as replay and retention read it: without its event.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::wire::{Status, reads_notifications, replay_label, slim};

/// A Notification without its event.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredNotification {
    /// As slim as that of [`super::wire::Unfinished`].
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// The little that is read of it.
    #[serde(default)]
    pub spec: StoredSpec,
    #[serde(default)]
    pub status: Status,
}

/// The part of the spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoredSpec {
    /// Seconds after its completion at which it is deleted.
    pub ttl_seconds_after_finished: Option<u32>,
}

impl StoredNotification {
    /// The value of the label that asks for a replay.
    pub fn replay_label(&self) -> Option<&str> {
        replay_label(&self.metadata)
    }

    /// The value of that label, unless it was handled already.
    pub fn replay_asked_for(&self) -> Option<&str> {
        self.replay_label().filter(|asked| self.status.last_handled_replay.as_deref() != Some(asked))
    }

    /// Its name, never empty on what the API server sends.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace, never empty on what the API server sends.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether somebody deletes it.
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

reads_notifications!(StoredNotification);
