//! The API of Tidings, group `tidings.dev`: kinds, schemas, condition types and reasons.
//!
//! The crate uses no client and no clock. Features:
//!
//! - `words`: reasons, condition types, and the rules for header names and media types. Depends only on serde.
//! - `kinds` (default): the custom resources `Subscriber` and `Notification`, their CustomResourceDefinitions and the
//!   admission policies. A binary selects the Kubernetes version with a feature of `k8s-openapi`; a library must not.
//! - `cloudevents`: conversions between a Notification and the `Event` of the CloudEvents SDK (`cloudevents-sdk` 0.9), for
//!   programs that create or read Notifications.
//!
//! ```
//! # #[cfg(feature = "cloudevents")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cloudevents::{AttributesReader, EventBuilder, EventBuilderV10};
//! use serde_json::json;
//! use tidings_api::Notification;
//!
//! let paid = EventBuilderV10::new()
//!     .id("order-1042-paid")
//!     .source("/shop/orders")
//!     .ty("com.example.order.paid")
//!     .data("application/json", json!({"orderID": 1042}))
//!     .build()?;
//! // Create the object with a client of the `kube` crate. A fixed name makes the creation idempotent.
//! let notification = Notification::from_cloudevent("order-1042-paid", "acme", paid)?;
//! assert_eq!(notification.spec.event.type_, "com.example.order.paid");
//!
//! let event = cloudevents::Event::try_from(&notification)?;
//! assert_eq!(event.id(), "order-1042-paid");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "cloudevents"))]
//! # fn main() {}
//! ```

#![cfg_attr(not(test), warn(unreachable_pub))]

// KubeSchema derives public items that stay inside.
#[allow(unreachable_pub)]
#[cfg(feature = "kinds")]
mod kinds;
mod media_type;
mod reasons;
mod reserved;
#[cfg(feature = "cloudevents")]
mod sdk;

#[cfg(feature = "kinds")]
pub use kinds::*;
pub use media_type::is_json;
pub use reasons::{AttemptReason, ConditionType, NotificationReason, SubscriberReason};
pub use reserved::{
    RESERVED_HEADER_PREFIXES, RESERVED_HEADERS, RESERVED_TOKEN_HEADERS, is_reserved_header, is_reserved_token_header,
};
#[cfg(feature = "cloudevents")]
pub use sdk::EventConversionError;

/// The API group of both kinds.
pub const GROUP: &str = "tidings.dev";
/// The API version of both kinds.
pub const VERSION: &str = "v1alpha1";
/// Label of a Notification. A new value sends the event again.
pub const REPLAY_LABEL: &str = "tidings.dev/replay";
/// Annotation of a Subscriber. A new value reconciles it and ends a pause, an open circuit and similar holds.
pub const REQUEST_ANNOTATION: &str = "tidings.dev/reconcile-requested-at";
/// Annotation of a Subscriber. A new value requests a test: every step is checked and one test event is sent.
pub const TEST_ANNOTATION: &str = "tidings.dev/test-requested-at";
/// Annotation of a Secret or ServiceAccount: the endpoints that may receive its values and the tokens obtained with
/// them. A comma-separated list of `host[:port][/path-prefix]`.
pub const CONSENT_ANNOTATION: &str = "tidings.dev/allowed-hosts";
/// Annotation of a Secret: the token services that may receive its values, in the same form. Absent: the endpoints in
/// [`CONSENT_ANNOTATION`].
pub const TOKEN_CONSENT_ANNOTATION: &str = "tidings.dev/allowed-token-hosts";
/// Annotation of a ServiceAccount: the token services that may receive its tokens, and for which audience. A
/// comma-separated list of `AUDIENCE host[:port][/path-prefix]`.
pub const TOKEN_REQUEST_ANNOTATION: &str = "tidings.dev/allowed-token-requests";
/// Annotation of a Secret: when the credentials in it expire, as a time by RFC 3339. A metric shows the time.
pub const EXPIRES_ANNOTATION: &str = "tidings.dev/expires";
/// Types of Secrets that are never sent, whatever their annotations say: each is a credential of the cluster itself or
/// contains credentials of others.
pub const DENIED_SECRET_TYPES: &[&str] =
    &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];
