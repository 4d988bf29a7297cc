//! The schema of `spec.event`: a CloudEvent in the JSON event format.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{absolute_uri, any_json, media_type, rfc3339};

/// A CloudEvent 1.0 in the JSON event format, verbatim, as any CloudEvents SDK prints it.
///
/// Extension attributes are siblings of the other attributes. The operator itself reads the event as text and sends it
/// unchanged; this type defines the schema and helps programs that create Notifications.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(dyn(self).data) && has(self.data_base64))")
    .message("data and data_base64 are mutually exclusive: keep data for JSON or text, or data_base64 for bytes"))]
pub struct Event {
    /// CloudEvents version. Default: 1.0, the only supported value.
    #[serde(default = "default_specversion")]
    #[schemars(extend("enum" = ["1.0"]))]
    pub specversion: String,
    /// Identifies the event; receivers drop repeats of the same source and id. Omitted: metadata.uid, or the id in
    /// status.eventID. Set id on objects that are kept in Git or restored from a backup, so that a recreated object
    /// keeps the event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub id: Option<String>,
    /// Context in which the event happened: a URI reference such as /shop/orders.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// Type of the event, such as com.example.order.paid.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 1024))]
    pub type_: String,
    /// Subject of the event within the source, such as an order number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,
    /// Time of the event (RFC 3339), such as 2026-10-01T10:02:00Z. Omitted: metadata.creationTimestamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rfc3339")]
    pub time: Option<String>,
    /// Media type of the data. Default: application/json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "media_type")]
    pub datacontenttype: Option<String>,
    /// Schema of the data: an absolute URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "absolute_uri")]
    pub dataschema: Option<String>,
    /// Payload: any JSON value, or text as a string if datacontenttype is not JSON. Kubernetes stores 1.0 as 1, and
    /// kubectl loses digits of integers beyond 2^53; use data_base64 to carry exact bytes. Mutually exclusive with
    /// data_base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_json")]
    pub data: Option<Value>,
    /// Payload as bytes, base64 encoded (RFC 4648, section 4), at most 1 MiB of base64 text. Mutually exclusive with
    /// data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576), regex(pattern = r"^[A-Za-z0-9+/]*={0,2}$"))]
    pub data_base64: Option<String>,
    /// Extension attributes, such as traceparent. Names have 1 to 64 lower-case letters and digits; values are strings
    /// of at most 4096 bytes, booleans or 32-bit integers.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, Value>,
}

fn default_specversion() -> String {
    "1.0".into()
}
