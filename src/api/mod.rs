//! The custom resources of group `tidings.dev`: their types, their schemas and the reasons they publish.
//!
//! This room knows neither a client nor a clock. Doc comments on fields are what `kubectl explain` shows.

mod admission;
mod condition;
mod crds;
mod event;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod notification;
mod parameters;
mod reasons;
mod schema;
#[allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]
mod subscriber;

pub use admission::admission_policy;
pub(crate) use condition::if_readable;
pub use condition::{Condition, ConditionStatus, Conditions};
pub use crds::{manifests, notification_crd, subscriber_crd};
pub use event::Event;
pub use notification::{LastAttempt, Notification, NotificationSpec, NotificationStatus, Phase, SubscriberRef};
pub use parameters::{RESERVED_TOKEN_PARAMETERS, Reserved, token_parameter_fault};
pub use reasons::{AttemptReason, ConditionType, NotificationReason, SubscriberReason};
pub use schema::HttpsUrl;
pub use subscriber::{
    BackoffPolicy, CaKind, CaRef, ClientAuthentication, ContentMode, ContentType, CredentialsSecretRef, DeliveryPolicy,
    Subscriber, SubscriberSpec, SubscriberStatus, Tls, TokenService, Webhook,
};

/// The API group of both kinds.
pub const GROUP: &str = "tidings.dev";
/// The version this operator serves.
pub const VERSION: &str = "v1alpha1";
/// A Notification with a new value of this label is sent again.
pub const REPLAY_LABEL: &str = "tidings.dev/replay";
/// A Subscriber with a new value of this annotation is looked at anew: pause, open circuit and the like end.
pub const REQUEST_ANNOTATION: &str = "tidings.dev/reconcile-requested-at";
