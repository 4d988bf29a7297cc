//! The types and schemas of the custom resources. `kubectl explain` shows the doc comments of fields.

mod abuse_protection;
mod admission;
mod condition;
mod crds;
mod delivery;
mod event;
mod handled;
mod header;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod notification;
mod parameters;
mod private_key_jwt;
mod resources;
mod schema;
mod secret_access;
mod service_account_token;
mod signature;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod subscriber;
mod subscriber_status;
mod tls;
mod token_service;
mod webhook;

pub use abuse_protection::{AbuseProtection, AbuseProtectionPolicy};
pub use admission::admission_policy;
pub use condition::{Condition, ConditionStatus, Conditions, if_readable};
pub use crds::{manifests, notification_crd, subscriber_crd};
pub use delivery::{BackoffPolicy, DeliveryPolicy, OnRejection};
pub use event::Event;
pub use handled::{was_handled, with_handled};
pub use header::{Header, HeaderValueFrom, SecretKeyRef};
pub use notification::{LastAttempt, Notification, NotificationSpec, NotificationStatus, Phase, SubscriberRef};
pub use parameters::{RESERVED_TOKEN_PARAMETERS, Reserved, token_parameter_fault};
pub use private_key_jwt::{PrivateKeyJwt, PrivateKeySecretRef, SigningAlgorithm};
pub use resources::resource_fault;
pub use schema::HttpsUrl;
pub use secret_access::{SECRET_ACCESS_POLICY, secret_access_policy};
pub use service_account_token::ServiceAccountToken;
pub use signature::Signature;
pub use subscriber::{Subscriber, SubscriberSpec};
pub use subscriber_status::{LastFailure, SubscriberStatus, WebhookStatus};
pub use tls::{CaKind, CaRef, ClientCertificateSecretRef, PublicRoots, Tls};
pub use token_service::{ClientAuthentication, CredentialsSecretRef, TokenService};
pub use webhook::{ContentMode, ContentType, ResponseAction, ResponseRule, Webhook};
