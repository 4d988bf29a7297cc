//! `spec.abuseProtection`: whether the webhook is asked for its consent (CloudEvents web hooks, section 4).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the webhook is asked for its consent. It is asked with OPTIONS on `webhook.url`, when the Subscriber is new or
/// changed and once a day, and agrees with the header WebHook-Allowed-Origin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requestRatePerMinute) || self.policy != 'Disabled'")
    .message("requestRatePerMinute goes with the question for consent, which policy: Disabled leaves out: remove one of them"))]
pub struct AbuseProtection {
    /// Optional (default): the webhook is asked, and events are sent unless it names other origins than ours. Required:
    /// nothing is sent without its consent. Disabled: it is not asked.
    #[serde(default)]
    pub policy: AbuseProtectionPolicy,
    /// The rate to ask for (WebHook-Request-Rate), in requests a minute. What the webhook grants (WebHook-Allowed-Rate)
    /// bounds what is sent, beside delivery.rateLimitPerMinute. Omitted: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub request_rate_per_minute: Option<u32>,
}

/// What a webhook's consent is needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AbuseProtectionPolicy {
    /// Nothing is sent without it.
    Required,
    /// It is asked for; only a refusal counts.
    #[default]
    Optional,
    /// It is not asked for.
    Disabled,
}
