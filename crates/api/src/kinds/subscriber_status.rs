//! A Subscriber's status: what the operator has seen of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, condition::if_readable};
use crate::ConditionType;

/// What the operator has seen of a Subscriber.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    /// The metadata.generation that this status describes; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: Notifications can be sent, or are held on purpose (Suspended). TokenAvailable: the token service issues
    /// tokens. Validated: the webhook consents to what is sent. Healthy: deliveries go well. Tested: the last test that
    /// was asked for passed. Reconciling and Stalled follow Ready by the kstatus rules, for tools that wait.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The webhook as it was last asked for its consent.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// The webhook asked (Retry-After) to be left alone until then: nothing is sent to it before. Absent when it did not.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub paused_until_time: Option<Time>,
    /// How many of its Notifications are neither Delivered nor Failed. Up to a minute old.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// When a Notification was last delivered. Up to a minute old.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// How the last attempt that did not deliver ended. Up to a minute old.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// The value of the annotation tidings.dev/reconcile-requested-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_request: Option<String>,
    /// The value of the annotation tidings.dev/test-requested-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_test: Option<String>,
}

impl SubscriberStatus {
    /// The condition of this type.
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_.as_str())
    }
}

/// The webhook as it was last asked for its consent (CloudEvents web hooks, section 4).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The host of webhook.url.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub host: String,
    /// The origin that is sent with every request (WebHook-Request-Origin).
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub origin: String,
    /// When the webhook last answered the question for its consent; the condition Validated says what. Absent when it
    /// was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_time: Option<Time>,
    /// The rate that it granted (WebHook-Allowed-Rate), in requests a minute. Absent: it named no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_rate_per_minute: Option<u32>,
}

/// How an attempt ended that did not deliver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// When it ended.
    pub time: Time,
    /// The webhook's HTTP status code, if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// One word for how, as in a Notification's lastAttempt.reason.
    #[schemars(length(max = 64))]
    pub reason: String,
}
