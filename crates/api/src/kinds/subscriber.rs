//! `Subscriber`: where events go, and which token service guards that place.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AbuseProtection, DeliveryPolicy, HttpsUrl, SubscriberStatus, Tls, Webhook,
    parameters::token_parameters,
    schema::{data_key, object_name, scopes},
};

/// The desired state of a Subscriber.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "Subscriber",
    namespaced,
    status = "SubscriberStatus",
    shortname = "subr",
    category = "tidings",
    doc = "A Subscriber says where events go (an https webhook) and which OAuth 2.0 token service guards that place. Everything it names lives in its own namespace.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "True when Notifications can be sent, or are held on purpose"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is, or is not, ready"
    ),
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".status.webhook.host",
        description = "Where events are sent"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        description = "Notifications that are neither Delivered nor Failed; up to a minute old"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessTime",
        description = "When a Notification was last delivered; up to a minute old"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].reason"#,
        description = "How deliveries go",
        priority = 1
    ),
    printcolumn(
        name = "URL",
        type_ = "string",
        json_path = ".spec.webhook.url",
        description = "Where events are sent",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "What was found and what to do",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberSpec {
    /// Set to true to hold this Subscriber's Notifications: they stay Pending, none is sent, none is lost. A test that is
    /// asked for is sent all the same.
    #[serde(default)]
    pub suspend: bool,
    /// Where and how events are sent.
    pub webhook: Webhook,
    /// The OAuth 2.0 token endpoint that issues the bearer token sent with every event, by the client credentials
    /// grant (RFC 6749, section 4.4).
    pub token_service: TokenService,
    /// Whether the webhook is asked for its consent before anything is sent to it (CloudEvents web hooks, section 4).
    #[serde(default)]
    pub abuse_protection: AbuseProtection,
    /// How often and how fast deliveries are tried, and when they are given up.
    #[serde(default)]
    pub delivery: DeliveryPolicy,
}

/// The OAuth 2.0 token endpoint (RFC 6749, section 3.2) and how to authenticate there.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenService {
    /// The https URL of the token endpoint, for example https://login.example.com/oauth2/token.
    pub url: HttpsUrl,
    /// The Secret, in this namespace, that holds the client id and the client secret.
    pub credentials_secret_ref: CredentialsSecretRef,
    /// How the client authenticates. Basic (default): client_secret_basic, in the Authorization header. Post:
    /// client_secret_post, in the form body (RFC 6749, section 2.3.1).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// The scopes to ask for (RFC 6749, section 3.3), for example [events.write].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes")]
    pub scopes: Vec<String>,
    /// The audience parameter that some authorization servers ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// Further form parameters of the token request, for example resource: "urn:acme" (RFC 8707). They are no place for
    /// secrets, and names that OAuth gives a meaning of its own are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "token_parameters")]
    pub parameters: BTreeMap<String, String>,
    /// Seconds that one token request may take.
    #[serde(default = "default_token_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// What to trust, besides the usual public certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Client authentication at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ClientAuthentication {
    /// `client_secret_basic`: the Authorization header.
    #[default]
    Basic,
    /// `client_secret_post`: the form body.
    Post,
}

/// Names a Secret with OAuth client credentials, in the Subscriber's namespace.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
pub struct CredentialsSecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// The key that holds the client id.
    #[serde(rename = "clientIDKey", default = "default_client_id_key")]
    #[schemars(schema_with = "data_key")]
    pub client_id_key: String,
    /// The key that holds the client secret.
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
