//! `spec.abuseProtection`: the validation handshake with the webhook (CloudEvents web hooks, section 4).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The validation handshake. The operator sends a validation request (OPTIONS on `webhook.url`) when the Subscriber is
/// new or changed and once a day; the webhook allows events with the response header WebHook-Allowed-Origin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requestRatePerMinute) || self.policy != 'Disabled'")
    .message("requestRatePerMinute is part of the validation request, which policy Disabled turns off: remove requestRatePerMinute or change the policy"))]
pub struct AbuseProtection {
    /// Optional (default): the operator sends the validation request, and sends events unless the webhook allows only
    /// other origins. Required: no events are sent until the webhook allows the origin. Disabled: no validation request
    /// is sent.
    #[serde(default)]
    pub policy: AbuseProtectionPolicy,
    /// Rate to request (WebHook-Request-Rate), in requests per minute. The rate that the webhook grants
    /// (WebHook-Allowed-Rate) limits deliveries in addition to delivery.rateLimitPerMinute. Omitted: no rate is
    /// requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub request_rate_per_minute: Option<u32>,
}

/// Whether the webhook must allow events before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AbuseProtectionPolicy {
    /// No events are sent until the webhook allows them.
    Required,
    /// The validation request is sent; events are sent unless the webhook refuses.
    #[default]
    Optional,
    /// No validation request is sent.
    Disabled,
}
