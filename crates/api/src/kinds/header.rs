//! `spec.webhook.headers` and `spec.tokenService.headers`: additional request headers.

use kube::{KubeSchema, core::Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::schema::{data_key, object_name};
use crate::{RESERVED_HEADER_PREFIXES, RESERVED_HEADERS, RESERVED_TOKEN_HEADERS};

/// One header, with exactly one of `value` and `valueFrom`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)")
    .message("set exactly one of value and valueFrom"))]
pub struct Header {
    /// Name of the header. Headers that Tidings or HTTP owns are rejected: Authorization, Host, Content-*, ce-*,
    /// WebHook-*, Proxy-* and connection headers.
    #[schemars(schema_with = "header_name")]
    pub name: String,
    /// Value in plain text. Set value or valueFrom, but not both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "header_value")]
    pub value: Option<String>,
    /// Source of the value. Keep confidential values in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderValueFrom>,
}

/// Source of a header value.
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
    /// Key that holds the value.
    #[schemars(schema_with = "data_key")]
    pub key: String,
}

/// The schema of a header name (RFC 9110, section 5.1) that is not reserved.
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
                "message": "must be a valid HTTP header name, for example X-Tenant",
            },
            {
                "rule": format!("!(self.lowerAscii() in [{}]) && {}", names.join(", "), prefixes.join(" && ")),
                "message": "must not be a header that Tidings or HTTP owns (Authorization, Host, Content-*, ce-*, WebHook-*, Proxy-* and connection headers): remove it",
            },
        ],
    })
}

/// The schema of a header value (RFC 9110, section 5.5) of printable ASCII.
fn header_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 4096,
        "x-kubernetes-validations": [{
            "rule": r"self.matches('^[!-~]([ -~\\t]*[!-~])?$')",
            "message": "must be printable ASCII without line breaks and must not begin or end with a space",
        }],
    })
}

/// The rule of a list of headers that no two have the same name.
pub(super) fn named_once() -> Rule {
    Rule::new("self.all(one, self.exists_one(other, one.name.lowerAscii() == other.name.lowerAscii()))")
        .message("must name each header once (header names are case-insensitive)")
}

/// The rule of a list of headers that its names and plain values have at most 32 KiB.
pub(super) fn within_32_kib() -> Rule {
    Rule::new("self.map(one, size(one.name) + (has(one.value) ? size(one.value) : 0)).sum() <= 32768")
        .message("names and values together exceed 32 KiB: shorten or remove some headers")
}

/// The rule of a list of headers that it has none that Tidings sets in a token request.
pub(super) fn free_in_token_requests() -> Rule {
    let names: Vec<_> = RESERVED_TOKEN_HEADERS.iter().map(|name| format!("'{name}'")).collect();
    Rule::new(format!("self.all(one, !(one.name.lowerAscii() in [{}]))", names.join(", ")))
        .message("must not set Accept or Accept-Encoding, which Tidings sets in a token request: remove them")
}
