//! Who is sent next. Pure: time and chance are passed in, nothing here waits, reads a clock or does I/O.
//!
//! [`Scheduler`] holds one [`lane`] for each Subscriber and hands out what may start now; [`backoff`] says how long a
//! failed attempt waits.

mod backoff;
mod lane;
mod scheduler;

pub use backoff::Backoff;
pub use scheduler::{LaneKey, Scheduler};
