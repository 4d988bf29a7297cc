//! What the lanes hold at one time, for metrics.

use std::time::SystemTime;

use crate::{Gate, SubscriberKey};

/// What the lane of one Subscriber holds at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReading {
    /// The Subscriber.
    pub of: SubscriberKey,
    /// Whether a version of the Subscriber's spec was reconciled. Otherwise the Subscriber does not exist, or is not
    /// known yet.
    pub is_known: bool,
    /// The number of unfinished events: waiting, due and in flight.
    pub pending: usize,
    /// The number of these that are in flight.
    pub in_flight: usize,
    /// When the life of the oldest of these began: its creation, or its last replay. In full seconds.
    pub oldest: Option<SystemTime>,
    /// The gate that holds the lane.
    pub gate: Option<Gate>,
    /// The state of its circuit (None: closed).
    pub circuit: Option<Circuit>,
    /// Whether a pause that the webhook requested has not ended yet.
    pub is_paused: bool,
}

/// The state of a circuit that is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Circuit {
    /// Open after consecutive failures: no event is sent before the next probe.
    Open,
    /// Open after consecutive failures, and a probe is in flight.
    HalfOpen,
    /// The webhook rejects all events, whether a probe is in flight or not.
    RejectsAll,
}

impl Circuit {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Open, Self::HalfOpen, Self::RejectsAll];

    /// The name of the state in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::RejectsAll => "rejects_all",
        }
    }
}
