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
        /// Subscriber: the webhook consents to what is sent (CloudEvents web hooks, section 4), or is not asked.
        Validated: "See `abuseProtection` for what happens without it.",
        /// Subscriber: deliveries go well, or there are none.
        Healthy: "False tells webhook trouble; the Notifications wait meanwhile.",
        /// Subscriber: the last test that was asked for (annotation `tidings.dev/test-requested-at`) passed.
        Tested: "False: the message says at which step it failed.",
        /// Notification: the webhook acknowledged the event.
        Delivered: "Wait for it: `kubectl wait --for=condition=Delivered`.",
        /// Not there yet, and may get there by itself (kstatus). Absent otherwise.
        Reconciling: "Wait.",
        /// Not there, and will not get there unless somebody acts (kstatus). Absent otherwise.
        Stalled: "Read the reason and the message.",
    }

    /// Why a Subscriber's condition has its status.
    SubscriberReason {
        /// Ready: all is well, Notifications are sent.
        Operational: "Nothing.",
        /// Not Ready: the first check of the Subscriber is still under way; the message names the step.
        Progressing: "Wait; the step that the message names takes as long as the endpoint takes to answer.",
        /// Ready: `spec.suspend` is true, its Notifications are held.
        Suspended: "Set `spec.suspend` to false.",
        /// Not Ready: a Secret that the spec names does not exist (yet).
        SecretNotFound: "Create the Secret that the message names; delivery starts at once.",
        /// Not Ready: the ConfigMap that holds a CA bundle does not exist (yet).
        ConfigMapNotFound: "Create the ConfigMap that the message names; delivery starts at once.",
        /// Not Ready: the spec passed the API server but cannot be used.
        InvalidSpec: "Correct the field that the message names.",
        /// Not Ready: a Secret lacks a key, or its value cannot be used or is too long.
        InvalidSecret: "Correct the key that the message names.",
        /// Not Ready: the CA bundle is not PEM, holds no certificate, or is too long.
        InvalidTrustBundle: "Put PEM certificates under the key that the message names.",
        /// Not Ready: the operator requires consent of Secrets (`--require-secret-consent`), and this one does not allow its
        /// values to be sent to that endpoint.
        SecretNotPermitted: "The owner of the Secret adds the endpoint to the annotation that the message names: `tidings.dev/allowed-hosts` or `tidings.dev/allowed-token-hosts`.",
        /// Not Ready: the Secret is of a type that the operator never sends: a ServiceAccount's token, a bootstrap token or a
        /// Helm release.
        SecretTypeDenied: "Put the value that the endpoint expects into a Secret of type Opaque, and name that Secret.",
        /// Not Ready: the operator's egress policy denies the webhook's or the token service's address.
        EgressDenied: "Use a public address, or have an administrator allow it with `--egress-allow-cidr` or `--egress-allow-host`.",
        /// TokenAvailable: the token service issued a token.
        TokenIssued: "Nothing.",
        /// TokenAvailable is False: the token service is in trouble, or cannot be reached; it is asked again. Not Ready
        /// where it was not Operational before.
        TokenUnavailable: "Wait, or look after the token service; no attempt is spent meanwhile.",
        /// TokenAvailable is False, and not Ready: the token service refuses the client: wrong id, secret, scope or grant.
        TokenRejected: "Correct what the message names in the Secret, in `tokenService`, or at the token service.",
        /// Validated: the webhook allows our origin.
        OriginAllowed: "Nothing.",
        /// Validated: `abuseProtection.policy` is Disabled, the webhook is not asked.
        NotRequired: "Nothing.",
        /// Validated is False: the webhook's answer is awaited; it is asked again. Not Ready where the policy is Required.
        HandshakePending: "Wait, or look after the webhook.",
        /// Validated is False: the webhook does not know the question (policy Optional): events are sent.
        NotSupported: "Nothing; or `abuseProtection.policy: Disabled`, so that it is not asked.",
        /// Validated is False, and not Ready: the webhook names other origins, or none where the policy is Required.
        HandshakeRefused: "Let the webhook answer OPTIONS with `WebHook-Allowed-Origin`, or change `abuseProtection.policy`.",
        /// Healthy: events are sent.
        Delivering: "Nothing.",
        /// Healthy: there is nothing to send, or the Subscriber holds it back.
        Idle: "Nothing.",
        /// Healthy is False: the webhook failed five times in a row; it is probed now and then.
        CircuitOpen: "Look after the webhook; the first success sets all going. The annotation `tidings.dev/reconcile-requested-at` does so at once.",
        /// Healthy is False: the webhook asked (Retry-After) to be left alone until `pausedUntilTime`.
        Paused: "Wait; the annotation `tidings.dev/reconcile-requested-at` ends it.",
        /// Healthy is False: Notifications wait for the rate limit.
        RateLimited: "Raise `delivery.rateLimitPerMinute`, or the rate that the webhook grants.",
        /// Not Ready, and Healthy is False: the webhook answered 410, it is gone, and nothing more is sent to it.
        EndpointGone: "Change `webhook.url`, or annotate the Subscriber with `tidings.dev/reconcile-requested-at` to have it tried again.",
        /// Tested: the test event was delivered.
        TestPassed: "Nothing.",
        /// Tested is False: something that the Subscriber names is missing or cannot be used, or its addresses are denied.
        SecretTestFailed: "Read the message; then test again with a new value of the annotation.",
        /// Tested is False: the token service issued no token.
        TokenTestFailed: "Read the message; then test again with a new value of the annotation.",
        /// Tested is False: the webhook does not consent.
        HandshakeTestFailed: "Read the message; then test again with a new value of the annotation.",
        /// Tested is False: the webhook did not take the test event.
        DeliveryTestFailed: "Read the message; then test again with a new value of the annotation.",
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
        SubscriberNotReady: "Look at the Subscriber's conditions Ready, TokenAvailable and Validated.",
        /// Pending: the Subscriber is suspended.
        Suspended: "Set the Subscriber's `spec.suspend` to false.",
        /// Pending: the webhook asked (Retry-After) to be left alone.
        Paused: "Wait until the Subscriber's `pausedUntilTime`, or annotate it with `tidings.dev/reconcile-requested-at`.",
        /// Pending: the webhook failed five times in a row; it is probed now and then.
        CircuitOpen: "Look after the webhook; the first success sets all going. The annotation `tidings.dev/reconcile-requested-at` does so at once.",
        /// Pending: the webhook answered 410, it is gone.
        EndpointGone: "Change the Subscriber's `webhook.url`, or annotate it with `tidings.dev/reconcile-requested-at` to have it tried again; otherwise it expires.",
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
        TLSFailed: "Check the certificate; for a private certificate authority set `tls.caRef`, for a webhook that asks for one `tls.clientCertificateSecretRef`.",
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
                | Self::SecretNotPermitted
                | Self::SecretTypeDenied
                | Self::HandshakeRefused
                | Self::EgressDenied
                | Self::EndpointGone
        )
    }
}
