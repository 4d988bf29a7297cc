//! `Notification`: one event for one Subscriber.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Event, schema::object_name};
use crate::{AttemptReason, NotificationReason};

/// The desired state of a Notification; none of it can be changed after creation.
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
    doc = "A Notification is one event for one Subscriber. The operator sends it at least once, always with the same event id, and writes what happened into the status.",
    printcolumn(
        name = "Subscriber",
        type_ = "string",
        json_path = ".spec.subscriberRef.name",
        description = "Who gets the event"
    ),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.event.type", description = "The event's type"),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Delivered or Failed when finished, otherwise unfinished"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "Why it is in this phase"
    ),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        description = "Attempts to deliver so far"
    ),
    printcolumn(
        name = "Code",
        type_ = "integer",
        json_path = ".status.lastAttempt.statusCode",
        description = "The webhook's last HTTP status code"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextAttemptTime",
        description = "When the next attempt is due",
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
    .message("a Notification's spec cannot be changed: create a new Notification instead (if nothing changed, a JSON number may have: 1.0 is stored as 1; write 1, or use kubectl apply --server-side)"))]
pub struct NotificationSpec {
    /// The Subscriber, in this namespace, that the event goes to. It may be created later: the Notification waits.
    pub subscriber_ref: SubscriberRef,
    /// The event: a CloudEvent 1.0 in the JSON event format. Extension attributes sit beside the others: names of 1 to
    /// 20 lower-case letters and digits, values strings of at most 4096 bytes, booleans or 32-bit integers.
    pub event: Event,
    /// Seconds after its creation (or replay) at which it fails (Expired), whatever holds it. Omitted: the Subscriber's
    /// delivery.expireAfterSeconds, which spares what was never tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expire_after_seconds: Option<u32>,
    /// Seconds after its completion at which it is deleted; 0 deletes it at once. Omitted: it is kept, but one made with
    /// generateName is deleted after the operator's --generated-ttl. Do not set it on what Git holds: a GitOps tool would
    /// create the object anew, and it would be sent again.
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

/// Where a Notification stands. Anything but Delivered or Failed means unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Phase {
    /// Not finished: to be sent, or sent again.
    #[default]
    Pending,
    /// The webhook acknowledged the event (a 2xx answer).
    Delivered,
    /// The event will not be sent again; the reason says why.
    Failed,
}

impl Phase {
    /// The word as it is published.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
        }
    }
}

/// What happened to a Notification so far.
// Atomic, since it is written as a whole: kept for each of its fields, `managedFields` would be as large as the status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NotificationStatus {
    /// The metadata.generation that this status describes; -1 before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Delivered or Failed; other values may come: anything but Delivered or Failed means unfinished.
    #[serde(default)]
    #[schemars(with = "String", length(max = 64))]
    pub phase: Phase,
    /// One word for why it is in this phase, such as Queued, Acknowledged, Retrying or Rejected.
    #[serde(default)]
    #[schemars(with = "String", length(max = 64))]
    pub reason: NotificationReason,
    /// The same for people: what happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// Ready and Delivered: True once the webhook acknowledged. Reconciling while it is being retried, Stalled once it
    /// failed (kstatus rules).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The id that the event was sent with, the same in every attempt.
    #[serde(rename = "eventID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub event_id: Option<String>,
    /// Attempts so far whose outcome was recorded.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: u32,
    /// The last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
    /// When the next attempt is due; absent when finished, or before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// When the phase became Delivered or Failed; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Attempts that the webhook put off (429, or 503 with Retry-After); they do not count toward maxAttempts.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub deferred_attempts: u32,
    /// When it was last set back to Pending by the label tidings.dev/replay; expiry counts from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_time: Option<Time>,
    /// The value of the label tidings.dev/replay that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub last_handled_replay: Option<String>,
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastAttempt {
    /// When it ended.
    pub time: Time,
    /// The webhook's HTTP status code; absent when there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// One word for how it ended, such as Acknowledged, ServerError, Timeout or ConnectionFailed.
    #[schemars(with = "String", length(max = 64))]
    pub reason: AttemptReason,
    /// How long it took, in milliseconds.
    pub duration_milliseconds: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
