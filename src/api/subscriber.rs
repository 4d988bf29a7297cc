//! `Subscriber`: where events go, and which token service guards that place.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Condition, HttpsUrl,
    condition::if_readable,
    parameters::token_parameters,
    schema::{object_name, scopes},
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
    /// Set to true to hold this Subscriber's Notifications: they stay Pending, nothing is sent, nothing is lost.
    #[serde(default)]
    pub suspend: bool,
    /// Where and how events are sent.
    pub webhook: Webhook,
    /// The OAuth 2.0 token endpoint that issues the bearer token sent with every event, by the client credentials
    /// grant (RFC 6749, section 4.4).
    pub token_service: TokenService,
    /// How often and how fast deliveries are tried, and when they are given up.
    #[serde(default)]
    pub delivery: DeliveryPolicy,
}

/// Where and how events are sent.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.contentType) || self.contentMode == 'Structured'")
    .message("contentType applies to contentMode Structured only: in Binary mode the event's datacontenttype is sent; remove contentType or use contentMode: Structured"))]
pub struct Webhook {
    /// The https URL that every event is POSTed to, for example https://hooks.example.com/events. No user name or
    /// password, no fragment.
    pub url: HttpsUrl,
    /// How the event is put into the request (CloudEvents HTTP protocol binding). Structured (default): one JSON
    /// object. Binary: attributes as ce- headers and the data as the body; an event without data is sent structured
    /// even then, since a web hook request always has a body.
    #[serde(default)]
    pub content_mode: ContentMode,
    /// The media type of a structured event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// Seconds that one exchange with the webhook may take, from connecting to the end of the answer.
    #[serde(default = "default_webhook_timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// What to trust, besides the usual public certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How an event is put into an HTTP request (CloudEvents HTTP protocol binding, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentMode {
    /// The whole event as one JSON object in the body.
    #[default]
    Structured,
    /// Attributes as `ce-` headers, the data as the body.
    Binary,
}

/// The media type of a structured event. Omitted: application/cloudevents+json. Use application/json for a receiver that
/// does not know the CloudEvents type; the body is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ContentType {
    /// The media type of the CloudEvents JSON event format.
    #[serde(rename = "application/cloudevents+json")]
    CloudEventsJson,
    /// Plain JSON, for receivers that ask for it.
    #[serde(rename = "application/json")]
    Json,
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
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub client_id_key: String,
    /// The key that holds the client secret.
    #[serde(rename = "clientSecretKey", default = "default_client_secret_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub client_secret_key: String,
}

/// TLS settings of one endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificates (PEM) to trust in addition to the public ones: the bundle of a private certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
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
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
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

/// How often and how fast deliveries are tried, and when they are given up.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryPolicy {
    /// After so many attempts a Notification fails (Exhausted). Attempts that the webhook answered with 429, or 503 and
    /// Retry-After, do not count. Omitted: only expiry ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds after its creation (or replay) at which a Notification that was tried fails (Expired). One that was never
    /// tried does not expire by this, unless the webhook is gone or there is no Subscriber. Default: 24 hours.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expire_after_seconds: u32,
    /// The waits between attempts.
    pub backoff: BackoffPolicy,
    /// At most so many attempts are started a minute, evenly spaced. Omitted: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub rate_limit_per_minute: Option<u32>,
    /// At most so many deliveries are under way at once.
    #[schemars(range(min = 1, max = 128))]
    pub max_in_flight: u32,
}

/// The waits between attempts: initialSeconds, doubling up to maxSeconds, each up to a fifth shorter or longer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.initialSeconds <= self.maxSeconds")
    .message("initialSeconds must not be more than maxSeconds: lower initialSeconds or raise maxSeconds"))]
pub struct BackoffPolicy {
    /// Seconds to wait after the first failure.
    #[serde(default = "default_initial_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub initial_seconds: u32,
    /// The longest wait, in seconds.
    #[serde(default = "default_max_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_seconds: u32,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: None,
            expire_after_seconds: 24 * 3600,
            backoff: BackoffPolicy::default(),
            rate_limit_per_minute: None,
            max_in_flight: 16,
        }
    }
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self { initial_seconds: default_initial_seconds(), max_seconds: default_max_seconds() }
    }
}

/// What the operator has seen of a Subscriber.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    /// The metadata.generation that this status describes; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: Notifications can be sent, or are held on purpose (Suspended). TokenAvailable: the token service issues
    /// tokens. Reconciling and Stalled follow the kstatus rules, for tools that wait.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The webhook asked (Retry-After) to be left alone until then: nothing is sent to it before. Absent when it did not.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub paused_until_time: Option<Time>,
    /// The value of the annotation tidings.dev/reconcile-requested-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_request: Option<String>,
}

fn default_initial_seconds() -> u32 {
    5
}

fn default_max_seconds() -> u32 {
    3600
}

fn default_webhook_timeout() -> u32 {
    15
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

fn default_ca_key() -> String {
    "ca.crt".into()
}
