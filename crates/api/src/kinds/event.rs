//! The schema of `spec.event`: a CloudEvent in the JSON event format.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{absolute_uri, any_json, media_type, rfc3339};

/// A CloudEvent 1.0 in the JSON event format, verbatim: what any CloudEvents SDK prints.
///
/// Extension attributes sit beside the others. The operator itself reads the event as text, so that it is sent as it
/// was written; this type is the schema, and a convenience for programs that create Notifications.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(dyn(self).data) && has(self.data_base64))")
    .message("data and data_base64 exclude each other: keep data for JSON or text, data_base64 for bytes"))]
pub struct Event {
    /// The CloudEvents version: 1.0.
    #[serde(default = "default_specversion")]
    #[schemars(extend("enum" = ["1.0"]))]
    pub specversion: String,
    /// Identifies the event; receivers drop repeats of the same source and id. Default: metadata.uid. Set it for
    /// anything kept in Git or restored from a backup, so that a new object for the same event keeps its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub id: Option<String>,
    /// The context in which the event happened, a URI-reference such as /shop/orders.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// What happened, such as com.example.order.paid.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 1024))]
    pub type_: String,
    /// What the event is about, inside its source, such as an order number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,
    /// When it happened (RFC 3339), such as 2026-10-01T10:02:00Z. Default: metadata.creationTimestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rfc3339")]
    pub time: Option<String>,
    /// The media type of the data. Default: application/json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "media_type")]
    pub datacontenttype: Option<String>,
    /// The schema that the data follows: an absolute URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "absolute_uri")]
    pub dataschema: Option<String>,
    /// The event's data: any JSON value; text, as a string, under a datacontenttype that is not JSON. Kubernetes keeps
    /// numbers as it does everywhere: 1.0 is stored as 1, and integers beyond 2^53 lose digits through kubectl; use
    /// data_base64 to carry bytes exactly. Excludes data_base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_json")]
    pub data: Option<Value>,
    /// The event's data as bytes, base64 encoded (RFC 4648, section 4), at most 1 MiB of text. Excludes data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576), regex(pattern = r"^[A-Za-z0-9+/]*={0,2}$"))]
    pub data_base64: Option<String>,
    /// Extension attributes, such as traceparent: names of 1 to 20 lower-case letters and digits; values are strings of at
    /// most 4096 bytes, booleans or 32-bit integers.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, Value>,
}

fn default_specversion() -> String {
    "1.0".into()
}
