//! `spec.tokenService.privateKeyJWT`: assertions that the client signs instead of a client secret.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{data_key, key_id, object_name};

/// Assertions that the client signs (private_key_jwt; RFC 7523, section 2.2). The operator signs a new assertion for
/// each token request.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.keyID) || !has(self.keySecretRef.keyIDKey)")
    .message("set at most one of keyID and keySecretRef.keyIDKey"))]
pub struct PrivateKeyJwt {
    /// The Secret, in this namespace, that holds the private key.
    pub key_secret_ref: PrivateKeySecretRef,
    /// Algorithm of the signature, as registered at the token service. RS256 and PS256 need an RSA key of 2048 to 8192
    /// bits, ES256 needs an ECDSA key on the curve P-256, and EdDSA needs an Ed25519 key.
    pub algorithm: SigningAlgorithm,
    /// ID of the key at the token service (kid in the header of the assertion). Omitted: the value of
    /// keySecretRef.keyIDKey, or no ID is sent.
    #[serde(rename = "keyID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_id")]
    pub key_id: Option<String>,
    /// Audience of the assertion (aud): what the token service calls itself, often its token URL or its issuer.
    /// Omitted: tokenService.url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// How long an assertion is valid, in seconds (exp). Default: 60.
    #[serde(default = "default_lifetime")]
    #[schemars(range(min = 10, max = 600))]
    pub lifetime_seconds: u32,
}

/// Names a Secret with a private key, in the Subscriber's namespace. A Secret of type kubernetes.io/tls fits.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKeySecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// Key that holds the private key as PEM (PKCS #8, PKCS #1 or SEC 1, without a passphrase). Default: tls.key.
    #[serde(default = "default_private_key_key")]
    #[schemars(schema_with = "data_key")]
    pub private_key_key: String,
    /// Key that holds the ID of the private key, so that both change together. Omitted: the ID is privateKeyJWT.keyID,
    /// or no ID is sent.
    #[serde(rename = "keyIDKey", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "data_key")]
    pub key_id_key: Option<String>,
    /// Key that holds the certificate for the private key as PEM, for example tls.crt. Its thumbprint (x5t#S256) is sent
    /// in the header of the assertion, as Microsoft Entra ID requires. Omitted: no thumbprint is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "data_key")]
    pub certificate_key: Option<String>,
}

/// Algorithm of a signature (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on the curve P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// EdDSA with Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

fn default_lifetime() -> u32 {
    60
}

fn default_private_key_key() -> String {
    "tls.key".into()
}
