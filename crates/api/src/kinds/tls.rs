//! `tls`, of the webhook and of the token service: whom to trust, and what to show.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{data_key, object_name};

/// TLS settings of one endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificates (PEM) to trust in addition to the public ones: the bundle of a private certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// The client certificate to show to an endpoint that asks for one (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

/// Names a Secret of type kubernetes.io/tls, in the Subscriber's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret. Its key tls.crt holds the certificate, followed by those that lead to its authority; tls.key
    /// holds the private key.
    #[schemars(schema_with = "object_name")]
    pub name: String,
}

/// Names one key of a ConfigMap or Secret in the Subscriber's namespace that holds PEM certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
pub struct CaRef {
    /// ConfigMap or Secret.
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// The key that holds the certificates.
    #[serde(default = "default_ca_key")]
    #[schemars(schema_with = "data_key")]
    pub key: String,
}

/// What kind of object holds a CA bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

fn default_ca_key() -> String {
    "ca.crt".into()
}
