//! The catalogue of every condition type and reason that Tidings publishes, with meaning and remedy. Scripts and alerts
//! rely on these names; `docs/reasons.md` is generated from this file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines enums whose variants are published by name. The doc comment of a variant is its meaning, the literal its
/// remedy.
macro_rules! catalogue {
    ($($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $meaning:literal])+ $variant:ident: $remedy:literal,)+
    })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
        pub enum $name { $($(#[doc = $meaning])+ $variant,)+ }

        impl $name {
            /// What the names of this enum describe.
            pub const ABOUT: &str = concat!($($about),+);
            /// All variants, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The published name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// The meaning, for documentation and messages.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+),)+ }
            }

            /// What a user can do; `Nothing.` if no action is needed.
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
    /// Condition types of Subscribers and Notifications.
    ConditionType {
        /// Subscriber: Notifications can be sent, or are held by `spec.suspend`. Notification: the event was delivered.
        Ready: "To wait for it, run `kubectl wait --for=condition=Ready`.",
        /// Subscriber: the token service issues tokens.
        TokenAvailable: "If False, the problem is the token service, not the webhook.",
        /// Subscriber: the webhook allows events (CloudEvents web hooks, section 4), or no validation request is sent.
        Validated: "If False, see `abuseProtection` for whether events are sent.",
        /// Subscriber: deliveries go well, or there are no deliveries.
        Healthy: "If False, the problem is the webhook or a rate limit; Notifications wait.",
        /// Subscriber: the last test requested with the annotation `tidings.dev/test-requested-at` passed.
        Tested: "If False, the message names the step that failed.",
        /// Notification: the webhook acknowledged the event.
        Delivered: "To wait for it, run `kubectl wait --for=condition=Delivered`.",
        /// Not Ready yet, but may become Ready without intervention (kstatus). Absent otherwise.
        Reconciling: "Wait.",
        /// Not Ready, and will not become Ready without intervention (kstatus). Absent otherwise.
        Stalled: "Read the reason and the message.",
    }

    /// Reasons of the conditions of a Subscriber.
    SubscriberReason {
        /// Ready: Notifications are sent.
        Operational: "Nothing.",
        /// Not Ready: the check of a new or changed Subscriber takes long; the message names the step.
        Progressing: "Wait until the endpoint of that step answers.",
        /// Ready: `spec.suspend` is true; Notifications are held.
        Suspended: "Set `spec.suspend` to false.",
        /// Not Ready: a Secret that the spec names does not exist.
        SecretNotFound: "Create the Secret that the message names; delivery starts immediately.",
        /// Not Ready: the ConfigMap that holds a CA bundle does not exist.
        ConfigMapNotFound: "Create the ConfigMap that the message names; delivery starts immediately.",
        /// Not Ready: the API server accepted the spec, but the operator cannot use it.
        InvalidSpec: "Correct the field that the message names.",
        /// Not Ready: a Secret lacks a key, or the value of the key is unusable or too long.
        InvalidSecret: "Correct the key that the message names.",
        /// Not Ready: the CA bundle is not PEM, contains no certificate, or is too long.
        InvalidTrustBundle: "Store PEM certificates under the key that the message names.",
        /// Not Ready: the operator requires the consent of Secrets (`--require-secret-consent`), and the Secret may not
        /// be sent to the endpoint.
        SecretNotPermitted: "As the owner of the Secret, add the endpoint to the annotation that the message names: `tidings.dev/allowed-hosts` or `tidings.dev/allowed-token-hosts`.",
        /// Not Ready: the operator never sends Secrets of this type (ServiceAccount token, bootstrap token or Helm
        /// release).
        SecretTypeDenied: "Store the value that the endpoint expects in a Secret of type Opaque, and name that Secret.",
        /// Not Ready: the ServiceAccount that `tokenService.serviceAccountToken` names does not exist.
        ServiceAccountNotFound: "Create the ServiceAccount that the message names; the operator looks for it again within five minutes.",
        /// Not Ready: the ServiceAccount does not allow its tokens for this audience to be sent to the token service, or
        /// the tokens for them to the webhook.
        ServiceAccountNotPermitted: "As the owner of the ServiceAccount, add the entry to the annotation that the message names: `tidings.dev/allowed-token-requests` or `tidings.dev/allowed-hosts`.",
        /// Not Ready: the operator may not read the ServiceAccount or create its tokens.
        TokenRequestDenied: "Have an administrator add the ServiceAccount to the chart value `serviceAccountTokens`, or grant the permission that the message names.",
        /// Not Ready: the operator's egress policy denies the address of the webhook or of the token service.
        EgressDenied: "Use a public address, or have an administrator allow the address with `--egress-allow-cidr` or `--egress-allow-host`.",
        /// TokenAvailable: the token service issued a token.
        TokenIssued: "Nothing.",
        /// TokenAvailable is False: the token service is unreachable, returns no token, or does not accept new client
        /// credentials yet, or the API server issues no token of the ServiceAccount; the request is retried. Also not
        /// Ready if the Subscriber was not Operational before.
        TokenUnavailable: "Wait, or fix the token service; no attempts are spent.",
        /// TokenAvailable is False: the token service rejects the client: wrong ID, secret, scope or grant. Also not
        /// Ready, unless an earlier token is still valid.
        TokenRejected: "Correct what the message names in the Secret or in `tokenService`: the next request follows immediately. After a correction at the token service, set the annotation `tidings.dev/reconcile-requested-at`.",
        /// Validated: the webhook allows the operator's origin.
        OriginAllowed: "Nothing.",
        /// Validated: `abuseProtection.policy` is Disabled; no validation request is sent.
        NotRequired: "Nothing.",
        /// Validated is False: the webhook has not returned a validation response; the request is retried. Also not
        /// Ready if the policy is Required.
        HandshakePending: "Wait, or fix the webhook.",
        /// Validated is False: the webhook does not support validation; events are sent because the policy is Optional.
        NotSupported: "None required. To send no validation request, set `abuseProtection.policy` to Disabled.",
        /// Validated is False, and not Ready: the webhook allows only other origins, or allows none and the policy is
        /// Required.
        HandshakeRefused: "Have the webhook answer OPTIONS with `WebHook-Allowed-Origin`, or change `abuseProtection.policy`.",
        /// Healthy: events are sent.
        Delivering: "Nothing.",
        /// Healthy: no Notifications to send (none pending, or all are held).
        Idle: "Nothing.",
        /// Healthy is False: the circuit is open after five consecutive failures; the operator probes the webhook at
        /// growing intervals.
        CircuitOpen: "Fix the webhook; delivery resumes after the first successful probe. To retry now, set the annotation `tidings.dev/reconcile-requested-at` to a new value.",
        /// Healthy is False: the webhook has rejected five events in a row (400, 413, 414, 415, 422 or 431), which
        /// suggests that the cause is not the events; the operator holds all events and probes with one at a time.
        RejectsAll: "Check what the webhook answers: the client certificate (`webhook.tls`), the gateway in front of the webhook, `webhook.contentMode`, `webhook.contentType` and the path in `webhook.url`. Delivery resumes after the first accepted event. Replay the Notifications that failed before. If the events are the cause, set `delivery.onRejection` to Fail, or list the status code in `webhook.responses`.",
        /// Healthy is False: the webhook requested a pause (Retry-After) until `pausedUntilTime`.
        Paused: "Wait. To end the pause now, set the annotation `tidings.dev/reconcile-requested-at` to a new value.",
        /// Healthy is False: Notifications wait for the rate limit.
        RateLimited: "Raise `delivery.rateLimitPerMinute`, or the rate that the webhook grants.",
        /// Not Ready, and Healthy is False: the webhook answered 410 (Gone); no more events are sent to it.
        EndpointGone: "Change `webhook.url`. To retry the same URL, set the annotation `tidings.dev/reconcile-requested-at` to a new value.",
        /// Tested: the test event was delivered.
        TestPassed: "Nothing.",
        /// Tested is False: an object that the Subscriber names is missing or unusable, or an address is denied.
        SecretTestFailed: "Correct what the message names, then test again with a new value of the annotation.",
        /// Tested is False: the token service issued no token.
        TokenTestFailed: "Correct what the message names, then test again with a new value of the annotation.",
        /// Tested is False: the webhook did not allow the operator's origin.
        HandshakeTestFailed: "Correct what the message names, then test again with a new value of the annotation.",
        /// Tested is False: the webhook did not accept the test event.
        DeliveryTestFailed: "Correct what the message names, then test again with a new value of the annotation.",
    }

    /// Reasons of the phase of a Notification.
    NotificationReason {
        /// Pending: not tried yet.
        Queued: "Wait. If the Notification stays Queued, check the Subscriber.",
        /// Pending: the last attempt failed; the next attempt follows at `nextAttemptTime`.
        Retrying: "Wait, or fix the webhook; the message describes the failure.",
        /// Pending: no Subscriber with this name exists in the namespace.
        SubscriberNotFound: "Create the Subscriber; delivery starts immediately. Otherwise the Notification expires.",
        /// Pending: the Subscriber is not Ready, or its token service issues no token.
        SubscriberNotReady: "Check the Subscriber's conditions Ready, TokenAvailable and Validated.",
        /// Pending: the Subscriber is suspended.
        Suspended: "Set the Subscriber's `spec.suspend` to false.",
        /// Pending: the webhook requested a pause (Retry-After).
        Paused: "Wait until the Subscriber's `pausedUntilTime`. To end the pause now, set the Subscriber's annotation `tidings.dev/reconcile-requested-at` to a new value.",
        /// Pending: the circuit is open after five consecutive failures; the operator probes the webhook at growing
        /// intervals.
        CircuitOpen: "Fix the webhook; delivery resumes after the first successful probe. To retry now, set the Subscriber's annotation `tidings.dev/reconcile-requested-at` to a new value.",
        /// Pending: the webhook has rejected five events in a row; the operator holds all events and probes with one at
        /// a time.
        RejectsAll: "Check the Subscriber's condition Healthy. Delivery resumes after the first accepted event. If the events are the cause, set the Subscriber's `delivery.onRejection` to Fail, or list the status code in `webhook.responses`.",
        /// Pending: the webhook answered 410 (Gone).
        EndpointGone: "Change the Subscriber's `webhook.url`. To retry the same URL, set the Subscriber's annotation `tidings.dev/reconcile-requested-at` to a new value. Otherwise the Notification expires.",
        /// Delivered: the webhook answered 2xx, or a status code that `webhook.responses` maps to Deliver.
        Acknowledged: "Nothing.",
        /// Delivered: the webhook answered 202; it has the event and may still be processing it.
        Accepted: "Nothing.",
        /// Failed: the webhook rejects this event (400, 413, 414, 415, 422 or 431, or a status code that
        /// `webhook.responses` maps to Fail).
        Rejected: "Create a new Notification with a corrected event, or correct the Subscriber's content mode and replay this Notification.",
        /// Failed: the event breaks a CloudEvents rule that the API server cannot check; no request was sent.
        InvalidEvent: "Create a corrected Notification; the message names the attribute.",
        /// Failed: the Notification is so large that the API server cannot store its status beside the event. No
        /// request was sent, unless `attempts` says otherwise.
        TooLarge: "Create a Notification with less `data`, for example with a URL of the content.",
        /// Failed: all attempts that the Subscriber's `delivery.maxAttempts` allows were used.
        Exhausted: "Fix the webhook, then replay.",
        /// Failed: the event was not delivered within `expireAfterSeconds`.
        Expired: "To send the event anyway, replay the Notification.",
    }

    /// Results of an attempt (`lastAttempt.reason`).
    AttemptReason {
        /// 2xx, or a status code that `webhook.responses` maps to Deliver.
        Acknowledged: "Nothing.",
        /// 202.
        Accepted: "Nothing.",
        /// 400, 413, 414, 415, 422 or 431, or a status code that `webhook.responses` maps to Fail: the webhook rejects
        /// this event.
        Rejected: "Correct the event or the content mode.",
        /// 3xx: redirects are never followed.
        RedirectRefused: "Set `webhook.url` to the target of the redirect, or check whether the webhook redirects to a login or maintenance page.",
        /// 405: the webhook accepts no POST at this URL.
        MethodNotAllowed: "Correct the path in `webhook.url`.",
        /// The event cannot be encoded; no request was sent.
        InvalidEvent: "Correct the attribute that the message names.",
        /// The Notification leaves no room for its status; no request was sent.
        TooLarge: "Send less `data`, for example a URL of the content.",
        /// 401, or a status code that `webhook.responses` maps to RenewToken, also with a renewed token.
        Unauthorized: "Check audience, resources and scopes, and what the webhook expects of a token.",
        /// 403.
        Forbidden: "Check the permissions of the client at the webhook.",
        /// 410.
        Gone: "Correct `webhook.url`.",
        /// 429, or 503 with Retry-After: the whole Subscriber pauses. The attempt does not count toward `maxAttempts`.
        Throttled: "Wait, or set `delivery.rateLimitPerMinute`.",
        /// 5xx.
        ServerError: "Fix the webhook.",
        /// Any other status.
        UnexpectedStatus: "Fix the webhook.",
        /// No complete response in time, or 408.
        Timeout: "Fix the webhook, or raise `webhook.timeoutSeconds`.",
        /// The host name does not resolve.
        NameNotResolved: "Correct `webhook.url` or the DNS.",
        /// The connection failed or broke.
        ConnectionFailed: "Check the webhook and the network between the operator and the webhook.",
        /// The TLS handshake failed.
        TLSFailed: "Do what the message says. For a private certificate authority, set `tls.caRef`; for a webhook that requires a client certificate, set `tls.clientCertificateSecretRef`.",
        /// The operator's egress proxy failed, or did not connect to the webhook.
        ProxyFailed: "The message says what the proxy answered. Check the webhook, or have an administrator check the proxy and the flags `--egress-proxy…`.",
        /// The operator's egress policy denies the address; no connection was opened.
        EgressDenied: "See the Subscriber's reason EgressDenied.",
        /// The operator itself failed.
        InternalError: "Report it with the operator's log.",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro accepts no further attributes")]
impl Default for NotificationReason {
    fn default() -> Self {
        Self::Queued
    }
}

impl AttemptReason {
    /// Whether an attempt was made. Otherwise the event itself forbids it: no attempt is counted, and nothing is known
    /// of the webhook.
    pub const fn is_attempt(self) -> bool {
        !matches!(self, Self::InvalidEvent | Self::TooLarge)
    }
}

impl SubscriberReason {
    /// Whether recovery needs the intervention of a user (Stalled). Otherwise waiting is enough (Reconciling).
    pub const fn needs_action(self) -> bool {
        matches!(
            self,
            Self::TokenRejected
                | Self::InvalidSecret
                | Self::InvalidTrustBundle
                | Self::InvalidSpec
                | Self::SecretNotPermitted
                | Self::SecretTypeDenied
                | Self::ServiceAccountNotPermitted
                | Self::TokenRequestDenied
                | Self::HandshakeRefused
                | Self::EgressDenied
                | Self::EndpointGone
        )
    }
}
