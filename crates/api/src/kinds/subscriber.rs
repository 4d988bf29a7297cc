//! The `Subscriber` resource: a webhook and the token service that guards it.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{AbuseProtection, DeliveryPolicy, SubscriberStatus, TokenService, Webhook};

/// Desired state of a Subscriber.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "Subscriber",
    namespaced,
    status = "SubscriberStatus",
    shortname = "subr",
    category = "tidings",
    doc = "A Subscriber defines a webhook that receives events and the OAuth 2.0 token service that guards the webhook. Every object that it references is in its own namespace.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "True when Notifications can be sent, or are held by spec.suspend"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Reason of the condition Ready"
    ),
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".status.webhook.host",
        description = "Host of the webhook"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        description = "Notifications that are neither Delivered nor Failed; updated at most once a minute"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessTime",
        description = "Time of the last successful delivery; updated at most once a minute"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].reason"#,
        description = "Reason of the condition Healthy",
        priority = 1
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".spec.webhook.url",
        description = "URL of the webhook",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "Message of the condition Ready: what happened and what to do",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberSpec {
    /// Set to true to hold this Subscriber's Notifications: they stay Pending and none is lost. A requested test event
    /// is still sent. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// The webhook and how events are sent to it.
    pub webhook: Webhook,
    /// The OAuth 2.0 token endpoint that issues the bearer token for every event (client credentials grant, RFC 6749,
    /// section 4.4).
    pub token_service: TokenService,
    /// The validation handshake: whether the webhook must allow events before they are sent (CloudEvents web hooks,
    /// section 4). Omitted: policy Optional.
    #[serde(default)]
    pub abuse_protection: AbuseProtection,
    /// Retries, expiry, rate limit and concurrency of deliveries. Omitted: the defaults of its fields.
    #[serde(default)]
    pub delivery: DeliveryPolicy,
}
