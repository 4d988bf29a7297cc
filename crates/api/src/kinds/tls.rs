//! `tls` of the webhook and of the token service: trusted certificate authorities and the client certificate.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{data_key, object_name};

/// TLS settings of one endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.publicRoots == 'Include' || has(self.caRef)")
    .message("publicRoots Exclude requires caRef, or no certificate could be trusted: set caRef or set publicRoots to Include"))]
pub struct Tls {
    /// PEM certificates of private certificate authorities to trust, in addition to the public certificate authorities
    /// unless publicRoots is Exclude. Omitted: only public certificate authorities are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Whether the public certificate authorities are trusted. Include (default): they are trusted, in addition to
    /// those of caRef. Exclude: only the certificate authorities of caRef are trusted; requires caRef.
    #[serde(default)]
    pub public_roots: PublicRoots,
    /// Client certificate for endpoints that require one (mutual TLS). Omitted: no client certificate is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

/// Whether the public certificate authorities are trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PublicRoots {
    /// They are trusted.
    #[default]
    Include,
    /// Only the certificate authorities of `caRef` are trusted.
    Exclude,
}

/// Names a Secret of type kubernetes.io/tls, in the Subscriber's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret. Key tls.crt holds the certificate, followed by its intermediate certificates; key tls.key
    /// holds the private key.
    #[schemars(schema_with = "object_name")]
    pub name: String,
}

/// Names one key of a ConfigMap or Secret in the Subscriber's namespace that holds PEM certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct CaRef {
    /// Kind of the object: ConfigMap or Secret.
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// Key that holds the certificates. Default: ca.crt.
    #[serde(default = "default_ca_key")]
    #[schemars(schema_with = "data_key")]
    pub key: String,
}

/// The kind of object that holds a CA bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl fmt::Display for CaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

fn default_ca_key() -> String {
    "ca.crt".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_kind_as_the_spec_does() {
        for kind in [CaKind::ConfigMap, CaKind::Secret] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
    }
}
