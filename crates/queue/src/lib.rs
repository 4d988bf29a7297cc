//! Which event is sent next. Pure: time and chance are passed in, nothing here waits, reads a clock or does I/O.
//!
//! [`Queue`] takes in what sources, Subscribers and finished actions say, and hands out what to do now. Its `schedule` holds one small
//! record for each unfinished entry and a `lane` for each Subscriber. A lane has its `line`, its `rate`, its circuit `breaker` and its `gate`; lanes and
//! their namespaces take `turns`; `expiry` says when an entry's time is over; `explain` which entry is to name the gate that holds
//! it; [`Backoff`] says how long a failed attempt waits.

mod backoff;
mod batch;
mod breaker;
mod clock;
mod entries;
mod expiry;
mod explain;
mod flights;
mod gate;
mod lane;
mod lanes;
mod line;
mod memory;
mod names;
mod numbers;
mod queue;
mod rate;
mod schedule;
mod scopes;
mod snapshots;
mod tombstones;
mod turns;
mod update;
mod work;

pub use backoff::Backoff;
pub use breaker::Health;
pub use clock::Now;
pub use gate::Gate;
pub use names::{SpecVersion, SubscriberKey};
pub use queue::{Bounds, Queue};
pub use update::{LaneSnapshot, LaneState, Limits, Term, Update};
pub use work::{
    Action, Answered, Content, Current, Done, Entry, Flight, Loaded, NotSent, Permit, ScopeId, Seen, Signal, SourceId,
    Ticket, Want, Work, Written,
};
