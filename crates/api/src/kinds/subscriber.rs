//! The `Subscriber` resource: a webhook and the token service that guards it.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AbuseProtection, DeliveryPolicy, HttpsUrl, SubscriberStatus, Tls, Webhook,
    parameters::token_parameters,
    schema::{data_key, object_name, scopes},
};

/// Desired state of a Subscriber.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "Subscriber",
    namespaced,
    status = "SubscriberStatus",
    shortname = "subr",
    category = "tidings",
    doc = "A Subscriber defines a webhook that receives events and the OAuth 2.0 token service that guards the webhook. Every object that it references is in its own namespace.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "True when Notifications can be sent, or are held by spec.suspend"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Reason of the condition Ready"
    ),
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".status.webhook.host",
        description = "Host of the webhook"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        description = "Notifications that are neither Delivered nor Failed; updated at most once a minute"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessTime",
        description = "Time of the last successful delivery; updated at most once a minute"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].reason"#,
        description = "Reason of the condition Healthy",
        priority = 1
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".spec.webhook.url",
        description = "URL of the webhook",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "Message of the condition Ready: what happened and what to do",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberSpec {
    /// Set to true to hold this Subscriber's Notifications: they stay Pending and none is lost. A requested test event
    /// is still sent. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// The webhook and how events are sent to it.
    pub webhook: Webhook,
    /// The OAuth 2.0 token endpoint that issues the bearer token for every event (client credentials grant, RFC 6749,
    /// section 4.4).
    pub token_service: TokenService,
    /// The validation handshake: whether the webhook must allow events before they are sent (CloudEvents web hooks,
    /// section 4). Omitted: policy Optional.
    #[serde(default)]
    pub abuse_protection: AbuseProtection,
    /// Retries, expiry, rate limit and concurrency of deliveries. Omitted: the defaults of its fields.
    #[serde(default)]
    pub delivery: DeliveryPolicy,
}

/// The OAuth 2.0 token endpoint (RFC 6749, section 3.2) and how to authenticate there.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenService {
    /// The https URL of the token endpoint, for example https://login.example.com/oauth2/token.
    pub url: HttpsUrl,
    /// The Secret, in this namespace, that holds the client ID and the client secret.
    pub credentials_secret_ref: CredentialsSecretRef,
    /// How the client authenticates (RFC 6749, section 2.3.1). Basic (default): in the Authorization header, with the
    /// client ID and secret form-encoded (client_secret_basic). BasicUnencoded: in the Authorization header without
    /// encoding, for token services that do not decode them. Post: in the form body (client_secret_post).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// Scopes to request (RFC 6749, section 3.3), for example [events.write]. Omitted: no scope parameter is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes")]
    pub scopes: Vec<String>,
    /// Audience parameter, which some authorization servers require. Omitted: no audience parameter is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// Additional form parameters of the token request, for example resource: "urn:acme" (RFC 8707). Do not put secrets
    /// here. Names that OAuth reserves, such as scope and client_secret, are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "token_parameters")]
    pub parameters: BTreeMap<String, String>,
    /// Time limit for one token request, in seconds. Default: 10.
    #[serde(default = "default_token_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// TLS settings: a private certificate authority and a client certificate. Omitted: only public certificate
    /// authorities are trusted, and no client certificate is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Client authentication at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ClientAuthentication {
    /// `client_secret_basic`: the Authorization header.
    #[default]
    Basic,
    /// The Authorization header, without form-encoding.
    BasicUnencoded,
    /// `client_secret_post`: the form body.
    Post,
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
    /// Key that holds the client secret. Default: client_secret.
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
