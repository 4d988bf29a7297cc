//! The API of Tidings, group `tidings.dev`: its kinds, their schemas and the words that they publish.
//!
//! The crate knows neither a client nor a clock. Features:
//!
//! - `words`: reasons, condition types and the rules for header names. Needs serde alone.
//! - `kinds` (default): the custom resources `Subscriber` and `Notification`, their CustomResourceDefinitions and the admission
//!   policies. A binary that uses them chooses the Kubernetes version by a feature of `k8s-openapi`; a library must not.

#![cfg_attr(not(test), warn(unreachable_pub))]

// KubeSchema derives public items that stay inside.
#[allow(unreachable_pub)]
#[cfg(feature = "kinds")]
mod kinds;
mod reasons;
mod reserved;

#[cfg(feature = "kinds")]
pub use kinds::*;
pub use reasons::{AttemptReason, ConditionType, NotificationReason, SubscriberReason};
pub use reserved::{RESERVED_HEADER_PREFIXES, RESERVED_HEADERS, is_reserved_header};

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
