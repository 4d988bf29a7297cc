//! `spec.webhook.headers`: what is sent besides Tidings' own headers.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema::{data_key, object_name};
use crate::{RESERVED_HEADER_PREFIXES, RESERVED_HEADERS};

/// One header. Exactly one of value and valueFrom is given.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)")
    .message("needs exactly one of value and valueFrom"))]
pub struct Header {
    /// The header's name. Those that Tidings or HTTP owns are refused: Authorization, Host, Content-*, ce-*, WebHook-*,
    /// Proxy-* and those that belong to a connection.
    #[schemars(schema_with = "header_name")]
    pub name: String,
    /// The value, in clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "header_value")]
    pub value: Option<String>,
    /// Where the value is kept: what must not be read by everybody belongs in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderValueFrom>,
}

/// Where a header's value is kept.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderValueFrom {
    /// A key of a Secret in the Subscriber's namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// Names one key of a Secret in the Subscriber's namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// The key that holds the value.
    #[schemars(schema_with = "data_key")]
    pub key: String,
}

/// A field name (RFC 9110, section 5.1) that is free.
fn header_name(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = RESERVED_HEADERS.iter().map(|name| format!("'{name}'")).collect();
    let prefixes: Vec<_> =
        RESERVED_HEADER_PREFIXES.iter().map(|prefix| format!("!self.lowerAscii().startsWith('{prefix}')")).collect();
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "x-kubernetes-validations": [
            {
                "rule": r#"self.matches("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")"#,
                "message": "must be the name of an HTTP header, for example X-Tenant",
            },
            {
                "rule": format!("!(self.lowerAscii() in [{}]) && {}", names.join(", "), prefixes.join(" && ")),
                "message": "must not be a header that Tidings or HTTP owns (Authorization, Host, Content-*, ce-*, WebHook-*, Proxy-* and those of a connection): remove it",
            },
        ],
    })
}

/// A field value (RFC 9110, section 5.5) of printable ASCII.
fn header_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 4096,
        "x-kubernetes-validations": [{
            "rule": r"self.matches('^[!-~]([ -~\\t]*[!-~])?$')",
            "message": "must be printable ASCII without line breaks, and neither begin nor end with a space",
        }],
    })
}
