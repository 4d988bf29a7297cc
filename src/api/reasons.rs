//! The catalogue: every condition type and every reason that Tidings publishes. Users script against these words.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! catalogue {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
        pub enum $name { $($(#[$doc])+ $variant,)+ }

        impl $name {
            /// The word as it is published.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

catalogue! {
    /// The condition types of both kinds.
    ConditionType {
        /// Subscriber: Notifications can be delivered. Notification: it was delivered.
        Ready,
        /// Subscriber: the token service issues tokens.
        TokenAvailable,
        /// Notification: the webhook acknowledged the event.
        Delivered,
        /// Not there yet, and may get there by itself (kstatus).
        Reconciling,
        /// Not there, and will not get there unless somebody acts (kstatus).
        Stalled,
    }

    /// Why a Subscriber's condition has its status.
    SubscriberReason {
        /// All is well: Notifications are delivered.
        Operational,
        /// `spec.suspend` is true: its Notifications are held.
        Suspended,
        /// The token service issued a token.
        TokenIssued,
        /// The Secret that holds the client credentials, or a CA bundle, does not exist (yet).
        SecretNotFound,
        /// The ConfigMap that holds a CA bundle does not exist (yet).
        ConfigMapNotFound,
        /// The token service is in trouble, or cannot be reached; it is asked again.
        TokenUnavailable,
        /// The token service refuses the client: wrong id, secret, scope or grant.
        TokenRejected,
        /// The Secret lacks a key, or its value cannot be used.
        InvalidSecret,
        /// The CA bundle is not PEM, or holds no certificate.
        InvalidTrustBundle,
        /// The spec passed the API server but cannot be used.
        InvalidSpec,
        /// The operator's egress policy denies the webhook's or the token service's address.
        EgressDenied,
    }

    /// Why a Notification is in its phase.
    #[derive(Default)]
    NotificationReason {
        /// Not tried yet.
        #[default]
        Queued,
        /// The last attempt failed; another one follows.
        Retrying,
        /// The webhook answered 2xx.
        Acknowledged,
        /// The webhook answered 202: it has the event and may still be working on it.
        Accepted,
        /// The webhook does not take this event: 400, 405, 413, 414, 415, 422 or 431.
        Rejected,
        /// The webhook answered with a redirect, which is never followed.
        RedirectRefused,
        /// The event breaks a CloudEvents rule that the API server cannot check.
        InvalidEvent,
    }

    /// How one attempt ended.
    AttemptReason {
        /// 2xx.
        Acknowledged,
        /// 202.
        Accepted,
        /// 400, 405, 413, 414, 415, 422 or 431: the webhook does not take this event.
        Rejected,
        /// 3xx: never followed.
        RedirectRefused,
        /// The event cannot be encoded; nothing was sent.
        InvalidEvent,
        /// 401, also with a renewed token.
        Unauthorized,
        /// 403.
        Forbidden,
        /// 410.
        Gone,
        /// 429.
        Throttled,
        /// 5xx.
        ServerError,
        /// Any other status.
        UnexpectedStatus,
        /// No complete answer in time, or 408.
        Timeout,
        /// The host name does not resolve.
        NameNotResolved,
        /// No connection, or it broke.
        ConnectionFailed,
        /// The TLS handshake failed.
        TLSFailed,
        /// The operator's egress policy denies the address; nothing was dialled.
        EgressDenied,
        /// The operator itself failed; its log says how.
        InternalError,
    }
}

impl SubscriberReason {
    /// Whether somebody must act before this can heal (Stalled), as opposed to waiting (Reconciling).
    pub const fn needs_action(self) -> bool {
        matches!(
            self,
            Self::TokenRejected
                | Self::InvalidSecret
                | Self::InvalidTrustBundle
                | Self::InvalidSpec
                | Self::EgressDenied
        )
    }
}
