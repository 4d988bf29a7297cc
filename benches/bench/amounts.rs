//! How much a run measures.

use std::time::Duration;

/// How much of everything.
pub struct Scale {
    /// Rounds of bare and measured runs, of which the median counts.
    pub rounds: usize,
    /// Notifications for each bare and measured run.
    pub run: usize,
    /// Samples of latency.
    pub samples: usize,
    /// Samples of latency alone and beside a backlog, in each of several runs; and beside large events.
    pub neighbors: usize,
    /// The backlog of a dead endpoint.
    pub backlog: usize,
    /// How long the operator idles before its memory is read.
    pub rest: Duration,
    /// Subscribers of one operator.
    pub subscribers: usize,
    /// Pending Notifications of small events.
    pub pending: usize,
    /// 1 MiB events in flight in each of two namespaces.
    pub large: usize,
    /// Subscribers whose token service hangs.
    pub hanging: usize,
    /// Deliveries to a server that stalls TLS handshakes.
    pub stalled: usize,
    /// Notifications that have expired while no operator ran.
    pub expired: usize,
    /// How long Notifications finish and are deleted at once.
    pub retention: Duration,
}

/// A run whose figures count.
pub const FULL: Scale = Scale {
    rounds: 15,
    run: 3_000,
    samples: 2_000,
    neighbors: 500,
    backlog: 100_000,
    rest: Duration::from_secs(30),
    subscribers: 10_000,
    pending: 300_000,
    large: 128,
    hanging: 300,
    stalled: 2_000,
    expired: 300,
    retention: Duration::from_secs(60),
};
/// A run that shows only that all works.
pub const QUICK: Scale = Scale {
    rounds: 1,
    run: 500,
    samples: 200,
    neighbors: 100,
    backlog: 5_000,
    rest: Duration::from_secs(5),
    subscribers: 300,
    pending: 2_000,
    large: 16,
    hanging: 60,
    stalled: 200,
    expired: 60,
    retention: Duration::from_secs(6),
};
