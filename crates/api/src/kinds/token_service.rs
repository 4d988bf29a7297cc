//! `spec.tokenService`: the OAuth 2.0 token endpoint and how the client authenticates there.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Header, HttpsUrl, PrivateKeyJwt, ServiceAccountToken, Tls,
    header::{free_in_token_requests, named_once, within_32_kib},
    parameters::token_parameters,
    resources::resources,
    schema::{client_id, data_key, object_name, scopes},
};

/// The OAuth 2.0 token endpoint (RFC 6749, section 3.2) and how to authenticate there.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clientAuthentication in ['TLS', 'PrivateKeyJWT', 'ServiceAccountToken'] || has(self.credentialsSecretRef)")
        .message("clientAuthentication Basic, BasicUnencoded and Post send a client secret: set credentialsSecretRef to the Secret that holds it, or change clientAuthentication"),
    validation = Rule::new("!(self.clientAuthentication in ['TLS', 'PrivateKeyJWT', 'ServiceAccountToken']) || has(self.clientID) != has(self.credentialsSecretRef)")
        .message("clientAuthentication TLS, PrivateKeyJWT and ServiceAccountToken send a client ID and no client secret: set exactly one of clientID and credentialsSecretRef"),
    validation = Rule::new("self.clientAuthentication != 'TLS' || has(self.tls) && has(self.tls.clientCertificateSecretRef)")
        .message("clientAuthentication TLS needs a client certificate: set tls.clientCertificateSecretRef"),
    validation = Rule::new("self.clientAuthentication != 'PrivateKeyJWT' || has(self.privateKeyJWT)")
        .message("clientAuthentication PrivateKeyJWT needs a private key: set privateKeyJWT"),
    validation = Rule::new("self.clientAuthentication == 'PrivateKeyJWT' || !has(self.privateKeyJWT)")
        .message("privateKeyJWT belongs to clientAuthentication PrivateKeyJWT: remove privateKeyJWT or change clientAuthentication"),
    validation = Rule::new("self.clientAuthentication != 'ServiceAccountToken' || has(self.serviceAccountToken)")
        .message("clientAuthentication ServiceAccountToken needs a ServiceAccount and an audience: set serviceAccountToken"),
    validation = Rule::new("self.clientAuthentication == 'ServiceAccountToken' || !has(self.serviceAccountToken)")
        .message("serviceAccountToken belongs to clientAuthentication ServiceAccountToken: remove serviceAccountToken or change clientAuthentication"),
    validation = Rule::new("!has(self.resources) || self.resources.size() == 0 || !has(self.parameters) || self.parameters.all(name, name.lowerAscii() != 'resource')")
        .message("set resources or the parameter resource, but not both: move the parameter into resources"),
    validation = Rule::new("self.clientAuthentication != 'BasicUnencoded' || !has(self.clientID) || !self.clientID.contains(':')")
        .message("clientID has a colon, which clientAuthentication BasicUnencoded cannot send: set clientAuthentication to Basic or Post")
)]
pub struct TokenService {
    /// The https URL of the token endpoint, for example https://login.example.com/oauth2/token.
    pub url: HttpsUrl,
    /// The client ID, which is not a secret. Omitted: the client ID is read from the Secret that credentialsSecretRef
    /// names.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "client_id")]
    pub client_id: Option<String>,
    /// The Secret, in this namespace, that holds the client secret and, unless clientID is set, the client ID. With
    /// clientAuthentication TLS, PrivateKeyJWT or ServiceAccountToken, only the client ID is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<CredentialsSecretRef>,
    /// How the client authenticates. Basic (default): client ID and secret in the Authorization header, form-encoded
    /// (client_secret_basic; RFC 6749, section 2.3.1). BasicUnencoded: the same without encoding, for token services
    /// that do not decode them. Post: client ID and secret in the form body (client_secret_post). TLS: client ID in the
    /// form body and the client certificate that tls.clientCertificateSecretRef names, without a secret
    /// (tls_client_auth and self_signed_tls_client_auth; RFC 8705, section 2). PrivateKeyJWT: client ID and an
    /// assertion, signed with the private key that privateKeyJWT names, in the form body, without a secret
    /// (private_key_jwt; RFC 7523, section 2.2). ServiceAccountToken: client ID and a token of the ServiceAccount that
    /// serviceAccountToken names as the assertion in the form body, without a stored secret (RFC 7523, section 2.2).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// The private key of clientAuthentication PrivateKeyJWT, and the assertions that it signs.
    #[serde(rename = "privateKeyJWT", default, skip_serializing_if = "Option::is_none")]
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// The ServiceAccount of clientAuthentication ServiceAccountToken, and the tokens that the operator requests for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountToken>,
    /// Scopes to request (RFC 6749, section 3.3), for example [events.write]. Omitted: no scope parameter is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes")]
    pub scopes: Vec<String>,
    /// Audience parameter, which some authorization servers require. Omitted: no audience parameter is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// Resources for which the token is requested (RFC 8707): absolute URIs without a fragment, for example
    /// https://hooks.example.com/. Each is sent as a resource parameter of its own. Omitted: no resource parameter is
    /// sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "resources")]
    pub resources: Vec<String>,
    /// Additional form parameters of the token request, for example organization: "acme". Do not put secrets here. Names
    /// that OAuth reserves, such as scope and client_secret, are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "token_parameters")]
    pub parameters: BTreeMap<String, String>,
    /// Additional headers for every token request, for example the API key of a gateway in front of the token endpoint.
    /// Names are case-insensitive. A value has at most 8 KiB; all names and values together have at most 32 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = named_once(),
        validation = within_32_kib(),
        validation = free_in_token_requests()
    )]
    pub headers: Vec<Header>,
    /// Time limit for one token request, in seconds. Default: 10.
    #[serde(default = "default_token_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// TLS settings: a private certificate authority and a client certificate. Omitted: only public certificate
    /// authorities are trusted, and no client certificate is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Client authentication at the token endpoint (RFC 6749, section 2.3.1; RFC 8705, section 2; RFC 7523, section
/// 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ClientAuthentication {
    /// `client_secret_basic`: the Authorization header.
    #[default]
    Basic,
    /// The Authorization header, without form-encoding.
    BasicUnencoded,
    /// `client_secret_post`: the form body.
    Post,
    /// `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705, section 2): the client certificate.
    #[serde(rename = "TLS")]
    Tls,
    /// `private_key_jwt` (RFC 7523, section 2.2): an assertion that the client's private key signs.
    #[serde(rename = "PrivateKeyJWT")]
    PrivateKeyJwt,
    /// An assertion (RFC 7523, section 2.2) that the API server issues: a token of a ServiceAccount.
    ServiceAccountToken,
}

/// Names a Secret with OAuth client credentials, in the Subscriber's namespace.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
pub struct CredentialsSecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// Key that holds the client ID. Default: client_id.
    #[serde(rename = "clientIDKey", default = "default_client_id_key")]
    #[schemars(schema_with = "data_key")]
    pub client_id_key: String,
    /// Key that holds the client secret, if clientAuthentication sends one. Default: client_secret.
    #[serde(rename = "clientSecretKey", default = "default_client_secret_key")]
    #[schemars(schema_with = "data_key")]
    pub client_secret_key: String,
}

fn default_token_timeout() -> u32 {
    10
}

fn default_client_id_key() -> String {
    "client_id".into()
}

fn default_client_secret_key() -> String {
    "client_secret".into()
}
