//! The `Notification` resource: one event for one Subscriber.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Event, schema::object_name};
use crate::{AttemptReason, NotificationReason};

/// Desired state of a Notification. Immutable after creation.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "Notification",
    namespaced,
    status = "NotificationStatus",
    shortname = "ntf",
    category = "tidings",
    selectable = ".spec.subscriberRef.name",
    selectable = ".status.phase",
    doc = "A Notification is one event for one Subscriber. The operator sends the event at least once, always with the same event id, and records the result in the status.",
    printcolumn(
        name = "Subscriber",
        type_ = "string",
        json_path = ".spec.subscriberRef.name",
        description = "Subscriber that receives the event"
    ),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.event.type", description = "Type of the event"),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Delivered or Failed; every other phase is unfinished"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", description = "Reason for the phase"),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        description = "Number of attempts"
    ),
    printcolumn(
        name = "Code",
        type_ = "integer",
        json_path = ".status.lastAttempt.statusCode",
        description = "HTTP status code of the last attempt"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextAttemptTime",
        description = "Time of the next attempt",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What happened and what to do",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("the spec of a Notification is immutable: create a new Notification instead (if you changed nothing, a JSON number may differ: 1.0 is stored as 1; write 1, or use kubectl apply --server-side)"))]
pub struct NotificationSpec {
    /// The Subscriber, in this namespace, that receives the event. It may be created later; the Notification waits for
    /// it.
    pub subscriber_ref: SubscriberRef,
    /// The event: a CloudEvent 1.0 in the JSON event format. Extension attributes are siblings of the other attributes:
    /// names have 1 to 64 lower-case letters and digits; values are strings of at most 4096 bytes, booleans or 32-bit
    /// integers.
    pub event: Event,
    /// Seconds after creation (or replay) at which the Notification fails (Expired), even if it is held or was never
    /// tried. Omitted: the Subscriber's delivery.expireAfterSeconds applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expire_after_seconds: Option<u32>,
    /// Seconds after completion at which the Notification is deleted; 0 deletes it immediately. Omitted: it is kept or,
    /// if it was created with generateName, deleted after the operator's --generated-ttl. Do not set this field on
    /// objects in Git: a GitOps tool would recreate the object, and the event would be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// Names a Subscriber in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
pub struct SubscriberRef {
    /// Name of the Subscriber.
    #[schemars(schema_with = "object_name")]
    pub name: String,
}

/// The phase of a Notification. Every phase except Delivered and Failed is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Phase {
    /// Not finished: waiting for the first attempt or for a retry.
    #[default]
    Pending,
    /// The webhook acknowledged the event (a 2xx response).
    Delivered,
    /// The event will not be sent again, except by a replay; the reason says why.
    Failed,
}

impl Phase {
    /// The published name of the phase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
        }
    }
}

/// Observed state of a Notification.
// Atomic because it is written as a whole: `managedFields` with an entry for each field would be as large as the
// status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NotificationStatus {
    /// The metadata.generation that this status describes; -1 before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Delivered or Failed. Later versions may add values: treat every value except Delivered and Failed as
    /// unfinished.
    #[serde(default)]
    #[schemars(with = "String", length(max = 64))]
    pub phase: Phase,
    /// Machine-readable reason for the phase, such as Queued, Acknowledged, Retrying or Rejected.
    #[serde(default)]
    #[schemars(with = "String", length(max = 64))]
    pub reason: NotificationReason,
    /// Human-readable explanation: what happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// Ready and Delivered: True once the webhook has acknowledged the event. Reconciling: True while the Notification
    /// is retried. Stalled: True once it has failed (kstatus rules).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The event id that was sent, the same in every attempt.
    #[serde(rename = "eventID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub event_id: Option<String>,
    /// Number of attempts with a recorded outcome.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: u32,
    /// The last attempt. Absent before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
    /// Time at which the next attempt is due. Absent before the first attempt and after completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Time at which the phase became Delivered or Failed. Absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Number of attempts that the webhook deferred (429, or 503 with Retry-After). They do not count toward
    /// delivery.maxAttempts.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub deferred_attempts: u32,
    /// Time at which the label tidings.dev/replay last set the Notification back to Pending; expiry counts from this
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_time: Option<Time>,
    /// Last value of the label tidings.dev/replay that the operator handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub last_handled_replay: Option<String>,
    /// The last ten values of the label tidings.dev/replay that the operator handled, the newest last. Setting one of
    /// these values again does nothing, so a GitOps tool that restores an earlier label sends nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub handled_replays: Vec<String>,
}

/// One delivery attempt.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastAttempt {
    /// Time at which the attempt ended.
    pub time: Time,
    /// HTTP status code of the webhook. Absent if there was no response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Machine-readable result, such as Acknowledged, ServerError, Timeout or ConnectionFailed.
    #[schemars(with = "String", length(max = 64))]
    pub reason: AttemptReason,
    /// Duration of the attempt, in milliseconds.
    pub duration_milliseconds: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
