//! The catalogue: every condition type and every reason that Tidings publishes, what it means and what to do. Users
//! script against these words; `docs/reasons.md` is made from this file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines enums whose variants are published by their names. A doc comment is the meaning, the text behind it the remedy.
macro_rules! catalogue {
    ($($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $meaning:literal])+ $variant:ident: $remedy:literal,)+
    })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
        pub enum $name { $($(#[doc = $meaning])+ $variant,)+ }

        impl $name {
            /// What the words of this enum are for.
            pub const ABOUT: &str = concat!($($about),+);
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word as it is published.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+),)+ }
            }

            /// What a user can do.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
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
        /// Subscriber: Notifications can be sent, or are held on purpose. Notification: it was delivered.
        Ready: "Wait for it: `kubectl wait --for=condition=Ready`.",
        /// Subscriber: the token service issues tokens.
        TokenAvailable: "False tells token trouble from webhook trouble.",
        /// Notification: the webhook acknowledged the event.
        Delivered: "Wait for it: `kubectl wait --for=condition=Delivered`.",
        /// Not there yet, and may get there by itself (kstatus). Absent otherwise.
        Reconciling: "Wait.",
        /// Not there, and will not get there unless somebody acts (kstatus). Absent otherwise.
        Stalled: "Read the reason and the message.",
    }

    /// Why a Subscriber's condition has its status.
    SubscriberReason {
        /// All is well: Notifications are sent.
        Operational: "Nothing.",
        /// `spec.suspend` is true: its Notifications are held.
        Suspended: "Set `spec.suspend` to false.",
        /// The token service issued a token.
        TokenIssued: "Nothing.",
        /// The Secret that holds the client credentials, or a CA bundle, does not exist (yet).
        SecretNotFound: "Create the Secret that the message names; delivery starts at once.",
        /// The ConfigMap that holds a CA bundle does not exist (yet).
        ConfigMapNotFound: "Create the ConfigMap that the message names; delivery starts at once.",
        /// The token service is in trouble, or cannot be reached; it is asked again.
        TokenUnavailable: "Wait, or look after the token service; no attempt is spent meanwhile.",
        /// The token service refuses the client: wrong id, secret, scope or grant.
        TokenRejected: "Correct what the message names in the Secret, in `tokenService`, or at the token service.",
        /// The Secret lacks a key, or its value cannot be used.
        InvalidSecret: "Correct the key that the message names.",
        /// The CA bundle is not PEM, or holds no certificate.
        InvalidTrustBundle: "Put PEM certificates under the key that the message names.",
        /// The spec passed the API server but cannot be used.
        InvalidSpec: "Correct the field that the message names.",
        /// The operator's egress policy denies the webhook's or the token service's address.
        EgressDenied: "Use a public address, or have an administrator allow the range with `--egress-allow-cidr`.",
        /// The webhook answered 410: it is gone, and nothing more is sent to it.
        EndpointGone: "Change `webhook.url`, or annotate the Subscriber with `tidings.dev/reconcile-requested-at` to have it tried again.",
    }

    /// Why a Notification is in its phase.
    NotificationReason {
        /// Pending: not tried yet.
        Queued: "Nothing; if it stays so, look at the Subscriber.",
        /// Pending: the last attempt failed; another one follows at `nextAttemptTime`.
        Retrying: "Wait, or look after the webhook; the message says how the attempt failed.",
        /// Pending: there is no Subscriber of that name in this namespace.
        SubscriberNotFound: "Create the Subscriber; delivery starts at once. Otherwise it expires.",
        /// Pending: the Subscriber is not ready, or its token service issues no token.
        SubscriberNotReady: "Look at the Subscriber's conditions Ready and TokenAvailable.",
        /// Pending: the Subscriber is suspended.
        Suspended: "Set the Subscriber's `spec.suspend` to false.",
        /// Pending: the webhook asked (Retry-After) to be left alone.
        Paused: "Wait until the Subscriber's `pausedUntilTime`, or annotate it with `tidings.dev/reconcile-requested-at`.",
        /// Pending: the webhook failed five times in a row; it is probed now and then.
        CircuitOpen: "Look after the webhook; the first success sets all going. The annotation `tidings.dev/reconcile-requested-at` does so at once.",
        /// Pending: the webhook answered 410, it is gone.
        EndpointGone: "Change the Subscriber's `webhook.url`; otherwise it expires.",
        /// Delivered: the webhook answered 2xx.
        Acknowledged: "Nothing.",
        /// Delivered: the webhook answered 202, it has the event and may still be working on it.
        Accepted: "Nothing.",
        /// Failed: the webhook does not take this event: 400, 405, 413, 414, 415, 422 or 431.
        Rejected: "Correct the event or the Subscriber's content mode, and create a new Notification, or replay this one.",
        /// Failed: the webhook answered with a redirect, which is never followed.
        RedirectRefused: "Set `webhook.url` to where it redirects, then replay.",
        /// Failed: the event breaks a CloudEvents rule that the API server cannot check; nothing was sent.
        InvalidEvent: "Create a corrected Notification; the message names the attribute.",
        /// Failed: all of the Subscriber's `delivery.maxAttempts` were used.
        Exhausted: "Look after the webhook, then replay.",
        /// Failed: it was not delivered within `expireAfterSeconds`.
        Expired: "Replay it to have it sent after all.",
    }

    /// How one attempt ended (`lastAttempt.reason`).
    AttemptReason {
        /// 2xx.
        Acknowledged: "Nothing.",
        /// 202.
        Accepted: "Nothing.",
        /// 400, 405, 413, 414, 415, 422 or 431: the webhook does not take this event.
        Rejected: "Correct the event or the content mode.",
        /// 3xx: never followed.
        RedirectRefused: "Correct `webhook.url`.",
        /// The event cannot be encoded; nothing was sent.
        InvalidEvent: "Correct the attribute that the message names.",
        /// 401, also with a renewed token.
        Unauthorized: "Check audience and scopes, and what the webhook expects of a token.",
        /// 403.
        Forbidden: "Check what the client may do at the webhook.",
        /// 410.
        Gone: "Correct `webhook.url`.",
        /// 429, or 503 with Retry-After: the whole Subscriber pauses.
        Throttled: "Wait, or set `delivery.rateLimitPerMinute`.",
        /// 5xx.
        ServerError: "Look after the webhook.",
        /// Any other status.
        UnexpectedStatus: "Look after the webhook.",
        /// No complete answer in time, or 408.
        Timeout: "Look after the webhook, or raise `webhook.timeoutSeconds`.",
        /// The host name does not resolve.
        NameNotResolved: "Correct `webhook.url`, or the DNS.",
        /// No connection, or it broke.
        ConnectionFailed: "Look after the webhook and the network between.",
        /// The TLS handshake failed.
        TLSFailed: "Check the certificate; for a private certificate authority set `tls.caRef`.",
        /// The operator's egress policy denies the address; nothing was dialled.
        EgressDenied: "See the Subscriber's reason EgressDenied.",
        /// The operator itself failed.
        InternalError: "Report it with the operator's log.",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro knows no further attributes")]
impl Default for NotificationReason {
    fn default() -> Self {
        Self::Queued
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
                | Self::EndpointGone
        )
    }
}
