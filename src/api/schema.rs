//! Schema pieces that several fields share.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An absolute https URL with a host, without user name, password or fragment.
///
/// The API server checks this by the rules below; the operator parses the text again before it uses it.
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
                    "message": "must be an absolute https URL, for example https://hooks.example.com/events; plain http is never used",
                },
                {
                    "rule": "!isURL(self) || url(self).getHostname() != ''",
                    "message": "must name a host, for example https://hooks.example.com/events",
                },
                {
                    "rule": "!self.matches('^[^/]*//[^/?#]*@')",
                    "message": "must not contain a user name or password: client credentials belong in the Secret that tokenService.credentialsSecretRef names",
                },
                {
                    "rule": "!self.contains('#')",
                    "message": "must not contain a fragment (#...): it is never sent",
                },
            ],
        })
    }
}

/// The schema of `event.data`: any JSON value, kept as it is.
pub(super) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
