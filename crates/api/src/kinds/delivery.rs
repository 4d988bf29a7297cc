//! `spec.delivery`: retries, expiry, rate limit and concurrency of deliveries.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Retries, expiry, rate limit and concurrency of deliveries.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryPolicy {
    /// Number of attempts after which a Notification fails (Exhausted). Attempts that the webhook answers with 429,
    /// attempts that it answers with 401, 403 or 503 and Retry-After, and rejections while it rejects all events do not
    /// count. Omitted: attempts continue until the Notification expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds after creation (or replay) at which a Notification that was tried fails (Expired). Does not apply to a
    /// Notification that was never tried, unless the webhook is gone (410) or the Subscriber does not exist. Default:
    /// 86400 (24 hours).
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expire_after_seconds: u32,
    /// Waits between attempts: initialSeconds, doubled after each failure up to maxSeconds; each wait varies randomly
    /// by up to a fifth.
    pub backoff: BackoffPolicy,
    /// Maximum number of attempts that start per minute, evenly spaced. Omitted: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub rate_limit_per_minute: Option<u32>,
    /// Maximum number of concurrent deliveries. Default: 16.
    #[schemars(range(min = 1, max = 128))]
    pub max_in_flight: u32,
    /// What a rejection (400, 413, 414, 415, 422 or 431) means. Hold (default): it ends the event; but after rejections
    /// of five events in a row the operator holds all events, because the cause may be the webhook, the certificate or
    /// a gateway, and probes with one event at a time until the webhook accepts one (RejectsAll). Fail: it always ends
    /// the event.
    pub on_rejection: OnRejection,
}

/// What a rejection means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnRejection {
    /// It ends the event, unless the webhook rejects all events.
    #[default]
    Hold,
    /// It always ends the event.
    Fail,
}

/// Waits between attempts: `initialSeconds`, doubled after each failure up to `maxSeconds`; each wait varies randomly
/// by up to a fifth.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.initialSeconds <= self.maxSeconds")
    .message("initialSeconds must not exceed maxSeconds: lower initialSeconds or raise maxSeconds"))]
pub struct BackoffPolicy {
    /// Wait after the first failure, in seconds. Default: 5.
    #[serde(default = "default_initial_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub initial_seconds: u32,
    /// Longest wait, in seconds. Default: 3600 (1 hour).
    #[serde(default = "default_max_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: u32,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: None,
            expire_after_seconds: 24 * 3600,
            backoff: BackoffPolicy::default(),
            rate_limit_per_minute: None,
            max_in_flight: 16,
            on_rejection: OnRejection::default(),
        }
    }
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self { initial_seconds: default_initial_seconds(), max_seconds: default_max_seconds() }
    }
}

fn default_initial_seconds() -> u32 {
    5
}

fn default_max_seconds() -> u32 {
    3600
}
