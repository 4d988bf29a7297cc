//! Reads the API server's audit log, which records who wrote what.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Logs all requests without bodies, at the end of each request (and for watches also at the start).
pub(crate) const POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}"#;

/// One request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The plural name of the kind, for example `notifications`; empty for requests that are not for a resource.
    pub resource: String,
    /// The subresource, for example `status`; empty for the object itself.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped objects and for lists of all namespaces.
    pub namespace: String,
    /// The name of the object; empty for lists, and for objects that are created with `generateName`.
    pub name: String,
    /// The user, for example `system:serviceaccount:tidings:tidings`.
    pub user: String,
    /// The HTTP status of the response; 0 if there was no response.
    pub code: u16,
    /// The time at which the request reached `stage`.
    pub at: Timestamp,
    /// `ResponseComplete`, or `ResponseStarted` for the start of a watch.
    pub stage: String,
}

impl AuditEvent {
    /// Whether the request changed (or tried to change) something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether the request was a write to this resource and subresource in this namespace, for example
    /// `("notifications", "status", "my-test")`. Includes refused writes.
    #[must_use]
    pub fn is_write_to(&self, resource: &str, subresource: &str, namespace: &str) -> bool {
        self.is_write()
            && self.resource == resource
            && self.subresource == subresource
            && self.namespace == namespace
            && self.stage == "ResponseComplete"
    }
}

/// Reads the log. Skips a line that the API server is still writing.
pub(crate) fn read(log: &Path) -> Result<Vec<AuditEvent>> {
    let text =
        fs::read_to_string(log).map_err(|error| Error::new(format!("cannot read {}: {error}", log.display())))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).map(|line: Line| line.into_event());
    complete
        .lines()
        .map(parse)
        .collect::<Result<_, serde_json::Error>>()
        .map_err(|error| Error::new(format!("cannot parse the audit log: {error}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    stage: String,
    stage_timestamp: Timestamp,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl Line {
    fn into_event(self) -> AuditEvent {
        AuditEvent {
            verb: self.verb,
            resource: self.object_ref.resource,
            subresource: self.object_ref.subresource,
            namespace: self.object_ref.namespace,
            name: self.object_ref.name,
            user: self.user.username,
            code: self.response_status.code,
            at: self.stage_timestamp,
            stage: self.stage,
        }
    }
}
