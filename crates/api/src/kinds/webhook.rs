//! `spec.webhook`: where and how events are sent.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Header, HttpsUrl, Tls};

/// Where and how events are sent.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.contentType) || self.contentMode == 'Structured'")
    .message("contentType applies to contentMode Structured only: in Binary mode the event's datacontenttype is sent; remove contentType or use contentMode: Structured"))]
pub struct Webhook {
    /// The https URL that every event is POSTed to, for example https://hooks.example.com/events. No user name or
    /// password, no fragment.
    pub url: HttpsUrl,
    /// How the event is put into the request (CloudEvents HTTP protocol binding). Structured (default): one JSON
    /// object. Binary: attributes as ce- headers and the data as the body; an event without data is sent structured
    /// even then, since a web hook request always has a body, and so is one whose data are a CloudEvent.
    #[serde(default)]
    pub content_mode: ContentMode,
    /// The media type of a structured event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// Seconds that one exchange with the webhook may take, from connecting to the end of the answer.
    #[serde(default = "default_webhook_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// Headers to send besides Tidings' own, with every event and with the question for consent (abuseProtection).
    /// Names are compared without case. A value has at most 8 KiB, and all names and values together at most 32 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(one, self.exists_one(other, one.name.lowerAscii() == other.name.lowerAscii()))")
            .message("names each header once: header names are compared without case"),
        validation = Rule::new("self.map(one, size(one.name) + (has(one.value) ? size(one.value) : 0)).sum() <= 32768")
            .message("names and values together have more than 32 KiB: shorten or remove some")
    )]
    pub headers: Vec<Header>,
    /// What to trust, besides the usual public certificate authorities, and what to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How an event is put into an HTTP request (CloudEvents HTTP protocol binding, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentMode {
    /// The whole event as one JSON object in the body.
    #[default]
    Structured,
    /// Attributes as `ce-` headers, the data as the body.
    Binary,
}

/// The media type of a structured event. Omitted: application/cloudevents+json. Use application/json for a receiver that
/// does not know the CloudEvents type; the body is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentType {
    /// The media type of the CloudEvents JSON event format.
    #[serde(rename = "application/cloudevents+json")]
    CloudEventsJson,
    /// Plain JSON, for receivers that ask for it.
    #[serde(rename = "application/json")]
    Json,
}

fn default_webhook_timeout() -> u32 {
    15
}
