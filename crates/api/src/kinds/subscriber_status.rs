//! The status of a Subscriber.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, condition::if_readable};
use crate::ConditionType;

/// Observed state of a Subscriber.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    /// The metadata.generation that this status describes; -1 before the first reconciliation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: Notifications can be sent, or are held by spec.suspend. TokenAvailable: the token service issues tokens.
    /// Validated: the webhook allows events. Healthy: deliveries go well. Tested: the last requested test passed.
    /// Reconciling and Stalled follow Ready by the kstatus rules, for tools that wait.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Result of the last validation request to the webhook.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// End of the pause that the webhook requested (Retry-After); no requests are sent before this time. Absent without
    /// a pause.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub paused_until_time: Option<Time>,
    /// Number of Notifications that are neither Delivered nor Failed. Updated at most once a minute.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Time of the last successful delivery. Updated at most once a minute.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// The last attempt that did not deliver. Updated at most once a minute.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// Last value of the annotation tidings.dev/reconcile-requested-at that the operator handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_request: Option<String>,
    /// Last value of the annotation tidings.dev/test-requested-at that the operator handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_test: Option<String>,
    /// The last ten values of the annotation tidings.dev/test-requested-at that the operator handled, the newest last.
    /// Setting one of these values again sends no test event.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub handled_tests: Vec<String>,
}

impl SubscriberStatus {
    /// Returns the condition of this type.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_.as_str())
    }
}

/// Result of the last validation request to the webhook (CloudEvents web hooks, section 4).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// Host of webhook.url.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub host: String,
    /// Origin that is sent with every request (WebHook-Request-Origin).
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub origin: String,
    /// Time of the last validation response; the condition Validated shows the result. Absent if no validation request
    /// was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_time: Option<Time>,
    /// Rate that the webhook granted (WebHook-Allowed-Rate), in requests per minute. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_rate_per_minute: Option<u32>,
}

/// An attempt that did not deliver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Time at which the attempt ended.
    pub time: Time,
    /// HTTP status code of the webhook. Absent if there was no response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Machine-readable result, as in lastAttempt.reason of a Notification.
    #[schemars(length(max = 64))]
    pub reason: String,
}
