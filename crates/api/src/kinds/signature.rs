//! `spec.webhook.signature`: the keys that sign each request.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::SecretKeyRef;

/// How events are signed (Standard Webhooks 1.0.0).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.previousSecretRef) || self.previousSecretRef.name != self.secretRef.name || self.previousSecretRef.key != self.secretRef.key")
    .message("previousSecretRef names the same key as secretRef: name the key that is being replaced, or remove previousSecretRef"))]
pub struct Signature {
    /// The signing key. The value is whsec_ and 24 to 64 random bytes in base64 (HMAC-SHA256, signature v1), or whsk_ and
    /// an Ed25519 private key in base64 (signature v1a).
    pub secret_ref: SecretKeyRef,
    /// The key that is being replaced. While it is set, every request carries a signature of each key, so that the
    /// receiver can change its key at any time. Omitted: one signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_ref: Option<SecretKeyRef>,
}
