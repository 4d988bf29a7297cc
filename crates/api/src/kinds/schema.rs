//! Schemas that several fields share.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An absolute https URL with a host, without user name, password or fragment.
///
/// The API server checks it with the rules below; the operator parses it again before use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct HttpsUrl(pub String);

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for HttpsUrl {
    fn schema_name() -> Cow<'static, str> {
        "HttpsUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 2048,
            "x-kubernetes-validations": [
                {
                    "rule": "isURL(self) && url(self).getScheme() == 'https'",
                    "message": "must be an absolute https URL, for example https://hooks.example.com/events; plain http is not supported",
                },
                {
                    "rule": "!isURL(self) || url(self).getHostname() != ''",
                    "message": "must name a host, for example https://hooks.example.com/events",
                },
                {
                    "rule": "!self.matches('^[^/]*//[^/?#]*@')",
                    "message": "must not contain a user name or password: put client credentials into the Secret that tokenService.credentialsSecretRef names",
                },
                {
                    "rule": "!self.contains('#')",
                    "message": "must not contain a fragment (#...): fragments are never sent",
                },
            ],
        })
    }
}

/// The schema of `event.data`: any JSON value, kept unchanged.
pub(super) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// The name of an object: a DNS subdomain (RFC 1123).
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(
        253,
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "must be a valid object name: lower-case letters, digits, hyphens and dots",
    )
}

/// The name of a key of a Secret or ConfigMap.
pub(super) fn data_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$" })
}

/// An OAuth 2.0 client ID (RFC 6749, appendix A.1).
pub(super) fn client_id(_: &mut SchemaGenerator) -> Schema {
    text(1024, "self.matches('^[ -~]+$')", "must be printable ASCII (RFC 6749, appendix A.1)")
}

/// The ID of a key (RFC 7515, section 4.1.4).
pub(super) fn key_id(_: &mut SchemaGenerator) -> Schema {
    text(256, "self.matches('^[ -~]+$')", "must be printable ASCII")
}

/// An audience of a ServiceAccount's token. Spaces and commas separate audiences in the annotation that allows them.
pub(super) fn token_audience(_: &mut SchemaGenerator) -> Schema {
    text(1024, "self.matches('^[!-+.-~-]+$')", "must be printable ASCII without spaces and commas")
}

/// OAuth 2.0 scopes (RFC 6749, section 3.3) without duplicates.
pub(super) fn scopes(_: &mut SchemaGenerator) -> Schema {
    let scope = text(
        256,
        r#"self.matches('^[!#-\\[\\]-~]+$')"#,
        "must be a single scope without spaces, quotes or backslashes: write each scope as a separate item",
    );
    json_schema!({ "type": "array", "maxItems": 64, "x-kubernetes-list-type": "set", "items": scope })
}

/// A media type (RFC 9110, section 8.3.1).
pub(super) fn media_type(_: &mut SchemaGenerator) -> Schema {
    text(
        256,
        "self.matches('^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]*)?$')",
        "must be a media type, for example application/json or text/plain; charset=utf-8",
    )
}

/// An absolute URI (RFC 3986, section 4.3).
pub(super) fn absolute_uri(_: &mut SchemaGenerator) -> Schema {
    text(
        2048,
        "self.matches('^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$')",
        "must be an absolute URI, for example https://example.com/schemas/order.json",
    )
}

/// A time (RFC 3339, section 5.6). A plain string to the API server: with `format: date-time`, the API server would
/// accept times that its rules cannot compare later, and then reject every further write to the object.
pub(super) fn rfc3339(_: &mut SchemaGenerator) -> Schema {
    text(
        64,
        "self.matches('^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$')",
        "must be an RFC 3339 time, for example 2026-10-01T10:02:00Z",
    )
}

/// A non-empty string that satisfies a CEL rule.
fn text(max_length: u32, rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "x-kubernetes-validations": [{ "rule": rule, "message": message }],
    })
}
