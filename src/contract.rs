//! What the engine and the Subscribers' side say to each other: an [`LaneUpdate`] goes to the engine, a [`Report`] comes from it.
//! One channel each way; neither side knows the other.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tidings_api::AttemptReason;
use tidings_delivery::webhook::Target;
use tidings_queue::{Backoff, LaneSnapshot, Limits, NotSent, SpecVersion, SubscriberKey};
use tokio::sync::oneshot;

/// News of Subscribers for the engine. Those of one Subscriber come in order: first a reset, then whether it is open, then its
/// pause.
pub type LaneUpdate = tidings_queue::Update<Arc<Route>>;

/// The engine reports its lanes this often.
pub const LANES_EVERY: Duration = Duration::from_secs(1);

/// The way of a Subscriber's Notifications: where they go, how fast, and for how long they are tried.
pub struct Route {
    /// Where they go.
    pub target: Target,
    /// The version of the spec that the route is made from.
    pub version: SpecVersion,
    /// How many at once, and how many a minute.
    pub limits: Limits,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// How many attempts there may be.
    pub max_attempts: Option<u32>,
    /// After what time those that may expire do so.
    pub expire_after: Duration,
}

impl Route {
    /// The same, at no more than this rate (in attempts a minute), if there is one.
    pub fn bounded_by(mut self, rate: Option<u32>) -> Self {
        let own = self.limits.rate_per_minute;
        self.limits.rate_per_minute = own.into_iter().chain(rate).min();
        self
    }
}

/// The Subscriber's events may be sent by this route.
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

/// What the engine found out about a Subscriber.
///
/// A report of a version of the spec that is no longer in force changes nothing ([`SpecVersion::concerns`]), with one exception:
/// an attempt counts for the Subscriber, whatever the version.
#[derive(Debug)]
pub enum Report {
    /// An attempt ended.
    Attempted {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec when the attempt began.
        version: SpecVersion,
        /// Why the attempt did not deliver, with the status code of the answer, if there was one (None: it delivered).
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
        /// How long the pause is, from now on.
        wait: Duration,
        /// Answered when the pause is in the Subscriber's status: the outcome of the attempt is written after it. Dropped when
        /// nothing is to be waited for.
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
    /// The engine closed the lane, since nothing can be sent: the Subscriber is to be reconciled.
    Reconcile {
        /// The Subscriber.
        of: SubscriberKey,
        /// Why nothing can be sent.
        why: NotSent,
    },
    /// How the lanes stand that changed since the last report of this kind.
    Lanes(Vec<(SubscriberKey, LaneSnapshot)>),
}

/// The end of a pause, at a full second, as the API writes times; never earlier than was requested.
pub fn pause(asked: Duration, now: Timestamp) -> (Timestamp, Duration) {
    let end = now + asked;
    let until = Timestamp::from_second(end.as_second().saturating_add(i64::from(end.subsec_nanosecond() > 0)));
    let until = until.unwrap_or(end);
    (until, Duration::try_from(until.duration_since(now)).unwrap_or(asked))
}

#[cfg(test)]
pub mod testing {
    //! A route that leads nowhere, for tests of what is decided about routes.

    use tidings_delivery::{
        egress::{Egress, Policy, Trust},
        event::Encoding,
        oauth::{AuthMethod, Credentials, TokenCache, TokenKey, TokenRequest},
    };

    use super::*;

    /// A route of this version.
    pub fn route(version: SpecVersion) -> Arc<Route> {
        let trust = Trust::default();
        let http = Egress::new(Policy::allowing(Vec::new())).client("a", &trust).unwrap();
        let url: url::Url = "https://hooks.example.com/".parse().unwrap();
        let timeout = Duration::from_secs(1);
        let (authentication, client_id) = (AuthMethod::Basic, "id".to_owned());
        let key = TokenKey {
            namespace: "a".into(),
            secret_uid: "uid".into(),
            secret_version: "1".into(),
            secret_keys: Default::default(),
            url: url.to_string(),
            client_id: client_id.clone(),
            authentication,
            scopes: Vec::new(),
            audience: None,
            parameters: Default::default(),
            timeout,
            trust: trust.fingerprint(),
        };
        let tokens = TokenCache::default().source(key, || TokenRequest {
            url: url.clone(),
            credentials: Credentials { client_id, client_secret: String::new().into() },
            authentication,
            scopes: Vec::new(),
            audience: None,
            parameters: Default::default(),
            timeout,
            http: http.clone(),
        });
        let origin = http::HeaderValue::from_static("notify.example.com");
        let headers = http::HeaderMap::new();
        let encoding = Encoding::Binary;
        Arc::new(Route {
            target: Target { url, encoding, headers, timeout, http, tokens, origin },
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
