//! The messages between the engine and the modules for Subscribers: a [`LaneUpdate`] goes to the engine, a [`Report`]
//! comes from the engine. Each direction has one channel, and neither side depends on the other.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tidings_api::AttemptReason;
use tidings_delivery::webhook::Target;
use tidings_queue::{Backoff, LaneSnapshot, Limits, NotSent, SpecVersion, SubscriberKey};
use tokio::sync::oneshot;

/// An update about a Subscriber for the engine. Updates of one Subscriber arrive in order: first a reset, then whether
/// it is open, then its pause.
pub type LaneUpdate = tidings_queue::Update<Arc<Route>>;

/// Interval at which the engine reports its lanes.
pub const LANES_EVERY: Duration = Duration::from_secs(1);

/// The route of a Subscriber's Notifications: target, limits and retry policy.
pub struct Route {
    /// The webhook and how to send to it.
    pub target: Target,
    /// The version of the spec that defines the route.
    pub version: SpecVersion,
    /// The limits of concurrent attempts and of attempts per minute.
    pub limits: Limits,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// Maximum number of attempts (None: no limit).
    pub max_attempts: Option<u32>,
    /// Age at which Notifications that can expire do so.
    pub expire_after: Duration,
}

impl Route {
    /// Limits the route to this rate (in attempts per minute), if there is one.
    pub fn bounded_by(mut self, rate: Option<u32>) -> Self {
        let own = self.limits.rate_per_minute;
        self.limits.rate_per_minute = own.into_iter().chain(rate).min();
        self
    }
}

/// Creates the update that opens a Subscriber's lane: its events may be sent by this route.
pub fn open(of: SubscriberKey, route: Arc<Route>) -> LaneUpdate {
    LaneUpdate::Open {
        of,
        version: route.version.clone(),
        limits: route.limits,
        lifetime: route.expire_after,
        longest_wait: route.backoff.longest(),
        route,
    }
}

/// A report of the engine about a Subscriber.
///
/// A report about a spec version that is no longer in force changes nothing ([`SpecVersion::concerns`]). Exception: an
/// attempt always counts for the Subscriber, whatever the version.
#[derive(Debug)]
pub enum Report {
    /// An attempt ended.
    Attempted {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec when the attempt began.
        version: SpecVersion,
        /// Why the attempt did not deliver, and the status code of the response, if any (None: it delivered).
        failure: Option<(AttemptReason, Option<u16>)>,
    },
    /// The webhook requested a pause.
    Paused {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec when the attempt began.
        version: SpecVersion,
        /// The end of the pause, as the API writes it.
        until: Timestamp,
        /// The duration of the pause from now on.
        wait: Duration,
        /// Signalled when the pause is in the Subscriber's status, because the outcome of the attempt must be written
        /// after it. Dropped when there is nothing to wait for.
        stored: oneshot::Sender<()>,
    },
    /// The webhook answered 410.
    Gone {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec when the attempt began.
        version: SpecVersion,
        /// As in [`Report::Paused`].
        stored: oneshot::Sender<()>,
    },
    /// The engine closed the lane because no request can be sent. The Subscriber must be reconciled.
    Reconcile {
        /// The Subscriber.
        of: SubscriberKey,
        /// Why no request can be sent.
        why: NotSent,
    },
    /// The lanes that changed since the last report of this kind.
    Lanes(Vec<(SubscriberKey, LaneSnapshot)>),
}

/// Returns the end of a pause and its duration. The end is at a full second, as the API writes times, and never earlier
/// than requested.
pub fn pause(requested: Duration, now: Timestamp) -> (Timestamp, Duration) {
    let end = now + requested;
    let until = Timestamp::from_second(end.as_second().saturating_add(i64::from(end.subsec_nanosecond() > 0)));
    let until = until.unwrap_or(end);
    (until, Duration::try_from(until.duration_since(now)).unwrap_or(requested))
}

#[cfg(test)]
pub mod testing {
    //! A route without an endpoint, for tests of decisions about routes.

    use tidings_delivery::{
        egress::{Egress, Policy, Trust},
        event::Encoding,
        oauth::{AuthMethod, Credentials, CredentialsFingerprint, TokenCache, TokenKey, TokenRequest},
        webhook::{ResponseRules, TokenDoubt},
    };

    use super::*;

    /// Creates a route of this version.
    pub fn route(version: SpecVersion) -> Arc<Route> {
        let trust = Trust::default();
        let http = Egress::new(Policy::allowing(Vec::new())).client("a", &trust).unwrap();
        let url: url::Url = "https://hooks.example.com/".parse().unwrap();
        let timeout = Duration::from_secs(1);
        let client_id = "id".to_owned();
        let authentication = AuthMethod::Basic(String::new().into());
        let credentials = Credentials { client_id: client_id.clone(), authentication };
        let key = TokenKey {
            namespace: "a".into(),
            secret_uid: "uid".into(),
            credentials: credentials.fingerprint(),
            authentication: credentials.method(),
            secret_keys: Vec::new(),
            url: url.to_string(),
            client_id,
            scopes: Vec::new(),
            audience: None,
            resources: Vec::new(),
            parameters: Default::default(),
            headers: CredentialsFingerprint::of_headers(&http::HeaderMap::new()),
            timeout,
            trust: trust.fingerprint(),
        };
        let tokens = TokenCache::default().source(key, || TokenRequest {
            url: url.clone(),
            credentials,
            scopes: Vec::new(),
            audience: None,
            resources: Vec::new(),
            parameters: Default::default(),
            headers: http::HeaderMap::new(),
            timeout,
            http: http.clone(),
        });
        let origin = http::HeaderValue::from_static("notify.example.com");
        let headers = http::HeaderMap::new();
        let encoding = Encoding::Binary;
        Arc::new(Route {
            target: Target {
                url,
                encoding,
                headers,
                timeout,
                http,
                tokens,
                rules: ResponseRules::default(),
                token_doubt: TokenDoubt::default(),
                signer: None,
                origin,
            },
            version,
            limits: Limits { max_in_flight: 1, rate_per_minute: None },
            backoff: Backoff { initial: timeout, max: timeout },
            max_attempts: None,
            expire_after: Duration::from_secs(24 * 3600),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_at_a_full_second_never_too_early() {
        let now = Timestamp::new(100, 1).unwrap();
        let (until, wait) = pause(Duration::from_secs(2), now);
        assert_eq!(until, Timestamp::from_second(103).unwrap());
        assert_eq!(wait, Duration::new(2, 999_999_999));
        assert_eq!(pause(Duration::from_secs(2), Timestamp::from_second(100).unwrap()).1, Duration::from_secs(2));
    }
}
