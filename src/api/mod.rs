//! The custom resources of group `tidings.dev`: their types, their schemas and the reasons they publish.
//!
//! This room knows neither a client nor a clock. Doc comments on fields are what `kubectl explain` shows.

mod abuse_protection;
mod admission;
mod condition;
mod crds;
mod delivery;
mod event;
mod header;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod notification;
mod parameters;
mod reasons;
mod schema;
mod secret_access;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod subscriber;
mod subscriber_status;
mod tls;
mod webhook;

pub use abuse_protection::{AbuseProtection, AbuseProtectionPolicy};
pub use admission::admission_policy;
pub(crate) use condition::if_readable;
pub use condition::{Condition, ConditionStatus, Conditions};
pub use crds::{manifests, notification_crd, subscriber_crd};
pub use delivery::{BackoffPolicy, DeliveryPolicy};
pub use event::Event;
pub use header::{
    Header, HeaderValueFrom, RESERVED_HEADER_PREFIXES, RESERVED_HEADERS, SecretKeyRef, is_reserved_header,
};
pub use notification::{LastAttempt, Notification, NotificationSpec, NotificationStatus, Phase, SubscriberRef};
pub use parameters::{RESERVED_TOKEN_PARAMETERS, Reserved, token_parameter_fault};
pub use reasons::{AttemptReason, ConditionType, NotificationReason, SubscriberReason};
pub use schema::HttpsUrl;
pub use secret_access::{SECRET_ACCESS_POLICY, secret_access_policy};
pub use subscriber::{ClientAuthentication, CredentialsSecretRef, Subscriber, SubscriberSpec, TokenService};
pub use subscriber_status::{LastFailure, SubscriberStatus, WebhookStatus};
pub use tls::{CaKind, CaRef, ClientCertificateSecretRef, Tls};
pub use webhook::{ContentMode, ContentType, Webhook};

/// The API group of both kinds.
pub const GROUP: &str = "tidings.dev";
/// The version this operator serves.
pub const VERSION: &str = "v1alpha1";
/// A Notification with a new value of this label is sent again.
pub const REPLAY_LABEL: &str = "tidings.dev/replay";
/// A Subscriber with a new value of this annotation is looked at anew: pause, open circuit and the like end.
pub const REQUEST_ANNOTATION: &str = "tidings.dev/reconcile-requested-at";
/// A Subscriber with a new value of this annotation is tested: one event is sent through all of it.
pub const TEST_ANNOTATION: &str = "tidings.dev/test-requested-at";
/// The endpoints that a Secret's values, and the tokens that they bring, may be sent to: `host[:port][/path-prefix]`,
/// separated by commas.
pub const CONSENT_ANNOTATION: &str = "tidings.dev/allowed-hosts";
/// The token services that a Secret's values may be sent to, in the same form. Where this annotation is absent, those of
/// [`CONSENT_ANNOTATION`].
pub const TOKEN_CONSENT_ANNOTATION: &str = "tidings.dev/allowed-token-hosts";
/// The types of Secrets that are never sent, whatever their annotations say: each is a credential of the cluster itself, or
/// holds those of others.
pub const DENIED_SECRET_TYPES: &[&str] =
    &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];
