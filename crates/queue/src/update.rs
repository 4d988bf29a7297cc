//! The inputs of the queue from Subscribers and the Lease, and its output about lanes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Gate, SpecVersion, SubscriberKey};

/// A change of one Subscriber, or of all. `R` is a route: where the events of a Subscriber are sent.
#[derive(Clone, Debug)]
pub enum Update<R> {
    /// The Subscriber is Ready: its events may be sent. This does not end a pause, an open circuit, or a 410 of the
    /// same version; [`Update::Reset`] does.
    Open {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec that was reconciled.
        version: SpecVersion,
        /// Where its events are sent.
        route: R,
        /// The limits of concurrency and rate.
        limits: Limits,
        /// The age at which the Subscriber's spec lets events expire.
        lifetime: Duration,
        /// The longest wait for a next attempt.
        longest_wait: Duration,
    },
    /// No event of the Subscriber is sent until the Subscriber is opened.
    Closed {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec (None: none was reconciled yet).
        version: Option<SpecVersion>,
        /// The reason: SubscriberNotFound, SubscriberNotReady, Suspended or EndpointGone.
        gate: Gate,
        /// The age at which the Subscriber's spec lets events expire (None: there is no Subscriber).
        lifetime: Option<Duration>,
    },
    /// The webhook requested a pause. The latest end applies.
    Paused {
        /// The Subscriber.
        of: SubscriberKey,
        /// When the pause ends.
        until: Instant,
    },
    /// Ends the Subscriber's pause, open circuit and 410: its spec changed, or a user requested this. A webhook that
    /// rejects all events is probed immediately, and only a success ends that state.
    Reset {
        /// The Subscriber.
        of: SubscriberKey,
    },
    /// The status of the Subscriber says that its webhook rejects all events. Ignored if this process has received a
    /// response from the webhook.
    RejectsAll {
        /// The Subscriber.
        of: SubscriberKey,
    },
    /// All Subscribers of a namespace (None: of all namespaces) are known: a Subscriber that is not known does not
    /// exist.
    Listed(Option<Arc<str>>),
    /// This process may act for the Subscribers in this term (None: it may not act).
    Owned(Option<Term>),
}

/// The limits of one Subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of concurrent attempts. 0 counts as 1, and the queue may allow fewer.
    pub max_in_flight: usize,
    /// The maximum number of attempts that start in any 60 seconds, evenly spaced (None: no limit). 0 counts as 1.
    pub rate_per_minute: Option<u32>,
}

/// A period in which this process acts for Subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// A different number for each term.
    pub epoch: u64,
    /// Whether the process that acted before may still write outcomes, so that known entries may be outdated.
    pub contested: bool,
}

/// The state of one Subscriber's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// The Subscriber's uid.
    pub uid: Arc<str>,
    /// The number of unfinished entries.
    pub pending: usize,
    /// What happens to these entries.
    pub state: LaneState,
}

/// What happens to the events of one Subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// There are no events, or the Subscriber is closed or suspended.
    Idle,
    /// Events are being sent.
    Delivering,
    /// Events wait for the rate limit.
    RateLimited,
    /// Events wait for the end of a pause.
    Paused,
    /// Events wait for a successful probe.
    CircuitOpen,
    /// The webhook rejects all events; they wait for a successful probe.
    RejectsAll,
    /// The webhook answered 410.
    EndpointGone,
}
