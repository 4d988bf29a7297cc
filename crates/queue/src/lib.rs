//! Who is sent next. Pure: time and chance are passed in, nothing here waits, reads a clock or does I/O.
//!
//! [`Scheduler`] holds one `lane` for each Subscriber and hands out what may start now. A lane has its `queue`, its `rate`,
//! its circuit `breaker` and its `gate`; lanes and their namespaces take `turns`; what waits long is told why by a
//! `courtesy`; [`Backoff`] says how long a failed attempt waits.

mod backoff;
mod breaker;
mod clockwork;
mod courtesy;
mod gate;
mod lane;
mod names;
#[cfg(test)]
mod properties;
mod queue;
mod rate;
mod scheduler;
mod subscriber;
mod turns;
mod update;

pub use backoff::Backoff;
pub use breaker::Health;
pub use gate::Gate;
pub use lane::Limits;
pub use names::{SpecVersion, SubscriberKey};
pub use scheduler::Scheduler;
pub use update::{LaneSnapshot, LaneState, Term, Update};
