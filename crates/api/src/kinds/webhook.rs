//! `spec.webhook`: the webhook and how events are sent to it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Header, HttpsUrl, Signature, Tls,
    header::{named_once, within_32_kib},
};

/// The webhook and how events are sent to it.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.contentType) || self.contentMode == 'Structured'")
    .message("contentType requires contentMode Structured (Binary mode sends the event's datacontenttype): remove contentType or set contentMode to Structured"))]
pub struct Webhook {
    /// The https URL to which every event is POSTed, for example https://hooks.example.com/events. User name, password
    /// and fragment are not allowed.
    pub url: HttpsUrl,
    /// How an event is encoded in the request (CloudEvents HTTP protocol binding). Structured (default): one JSON
    /// object. Binary: attributes as ce- headers, data as the body; an event without data, or whose data is a
    /// CloudEvent, is still sent Structured.
    #[serde(default)]
    pub content_mode: ContentMode,
    /// Media type of a Structured event. Omitted: application/cloudevents+json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// Time limit for one exchange with the webhook, from connecting to the end of the response, in seconds. Default:
    /// 15.
    #[serde(default = "default_webhook_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// Additional headers for every event and for the validation request (abuseProtection). Names are case-insensitive.
    /// A value has at most 8 KiB; all names and values together have at most 32 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = named_once(),
        validation = within_32_kib()
    )]
    pub headers: Vec<Header>,
    /// What status codes of the webhook mean, if they differ from the default. For example, a webhook that recognizes
    /// repeated events by their id and answers 409: code 409, action Deliver. Status codes 2xx, 410 and 429 always have
    /// their default meaning. Default: see docs/delivery.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["code".into()]))]
    pub responses: Vec<ResponseRule>,
    /// Signs every event with a key from a Secret, so that the receiver can check that the operator sent it (Standard
    /// Webhooks: headers webhook-id, webhook-timestamp and webhook-signature). The validation request is not signed.
    /// Omitted: events are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// TLS settings: a private certificate authority and a client certificate. Omitted: only public certificate
    /// authorities are trusted, and no client certificate is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What one status code of the webhook means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.code != 410 && self.code != 429")
    .message("code must not be 410 or 429: their meaning is fixed (CloudEvents web hooks, section 2.2); remove the entry"))]
pub struct ResponseRule {
    /// Status code of the response, 300 to 599, except 410 and 429.
    #[schemars(range(min = 300, max = 599))]
    pub code: u16,
    /// Consequence of the status code. Deliver: the event is Delivered. Retry: the attempt failed, and the event is
    /// retried. Fail: the event is Failed, whatever the webhook answers to other events. RenewToken: like 401, the
    /// operator renews the token and sends the event once more; then it is retried.
    pub action: ResponseAction,
}

/// Consequence of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ResponseAction {
    /// The event is Delivered.
    Deliver,
    /// The attempt failed, and the event is retried.
    Retry,
    /// The event is Failed.
    Fail,
    /// The operator renews the token and sends the event once more.
    RenewToken,
}

/// How an event is encoded in an HTTP request (CloudEvents HTTP protocol binding, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentMode {
    /// The whole event as one JSON object in the body.
    #[default]
    Structured,
    /// Attributes as `ce-` headers, data as the body.
    Binary,
}

/// Media type of a Structured event. Omitted: application/cloudevents+json. Use application/json for receivers that do
/// not know the CloudEvents type; the body is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentType {
    /// The media type of the CloudEvents JSON event format.
    #[serde(rename = "application/cloudevents+json")]
    CloudEventsJson,
    /// Plain JSON, for receivers that do not know the CloudEvents type.
    #[serde(rename = "application/json")]
    Json,
}

fn default_webhook_timeout() -> u32 {
    15
}
