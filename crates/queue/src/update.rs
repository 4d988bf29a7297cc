//! What Subscribers and the Lease say to the queue, and what the queue says of itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Gate, SpecVersion, SubscriberKey};

/// News of one Subscriber, or of all. `R` is a route: where the events of a Subscriber go.
#[derive(Clone, Debug)]
pub enum Update<R> {
    /// The Subscriber is ready: its events may be sent. Neither a pause nor an open circuit ends by it, nor does a 410 of the same
    /// version: [`Update::Reset`] ends these.
    Open {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec that was reconciled.
        version: SpecVersion,
        /// Where its events go.
        route: R,
        /// How many at once, and how many a minute.
        limits: Limits,
        /// The age at which events expire by the Subscriber's spec.
        lifetime: Duration,
        /// No wait for a next attempt is longer.
        longest_wait: Duration,
    },
    /// Nothing of the Subscriber is sent until it is opened.
    Closed {
        /// The Subscriber.
        of: SubscriberKey,
        /// The version of its spec (None: none was reconciled yet).
        version: Option<SpecVersion>,
        /// Why: SubscriberNotFound, SubscriberNotReady, Suspended or EndpointGone.
        gate: Gate,
        /// The age at which events expire by the Subscriber's spec (None: there is no Subscriber).
        lifetime: Option<Duration>,
    },
    /// The webhook asked for a pause. The latest end wins.
    Paused {
        /// The Subscriber.
        of: SubscriberKey,
        /// When the pause ends.
        until: Instant,
    },
    /// The Subscriber's pause, its open circuit and its 410 end: its spec changed, or a user requested it.
    Reset {
        /// The Subscriber.
        of: SubscriberKey,
    },
    /// All Subscribers of a namespace (None: of all) are known: one that is not does not exist.
    Listed(Option<Arc<str>>),
    /// This process may, or (None) may not, act for the Subscribers.
    Owned(Option<Term>),
}

/// What one Subscriber allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many attempts may be under way at once; 0 is taken for 1, and the queue may allow less.
    pub max_in_flight: usize,
    /// How many attempts may start in any 60 seconds, evenly spaced (None: any number); 0 is taken for 1.
    pub rate_per_minute: Option<u32>,
}

/// A time in which this process acts for Subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Another one for each time.
    pub epoch: u64,
    /// The process that acted before may still be writing outcomes: what is known of an event may be old.
    pub contested: bool,
}

/// How the events of one Subscriber stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// The Subscriber's uid.
    pub uid: Arc<str>,
    /// How many entries are unfinished.
    pub pending: usize,
    /// What happens with them.
    pub state: LaneState,
}

/// What happens with the events of one Subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// There are none, or the Subscriber holds them.
    Idle,
    /// They are sent.
    Delivering,
    /// They wait for the rate.
    RateLimited,
    /// They wait for the end of a pause.
    Paused,
    /// They wait for a probe to succeed.
    CircuitOpen,
    /// The webhook answered 410.
    EndpointGone,
}
