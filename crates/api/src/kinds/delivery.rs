//! `spec.delivery`: how often and how fast deliveries are tried, and when they are given up.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often and how fast deliveries are tried, and when they are given up.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryPolicy {
    /// After so many attempts a Notification fails (Exhausted). Attempts that the webhook answered with 429, or 503 and
    /// Retry-After, do not count. Omitted: only expiry ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds after its creation (or replay) at which a Notification that was tried fails (Expired). One that was never
    /// tried does not expire by this, unless the webhook is gone or there is no Subscriber. Default: 24 hours.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expire_after_seconds: u32,
    /// The waits between attempts.
    pub backoff: BackoffPolicy,
    /// At most so many attempts are started a minute, evenly spaced. Omitted: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub rate_limit_per_minute: Option<u32>,
    /// At most so many deliveries are under way at once.
    #[schemars(range(min = 1, max = 128))]
    pub max_in_flight: u32,
}

/// The waits between attempts: initialSeconds, doubling up to maxSeconds, each up to a fifth shorter or longer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.initialSeconds <= self.maxSeconds")
    .message("initialSeconds must not be more than maxSeconds: lower initialSeconds or raise maxSeconds"))]
pub struct BackoffPolicy {
    /// Seconds to wait after the first failure.
    #[serde(default = "default_initial_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub initial_seconds: u32,
    /// The longest wait, in seconds.
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
