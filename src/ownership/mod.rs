//! Decides whether this process may act for a Subscriber now. Today one Lease decides that for all Subscribers
//! ([`lease`]). Code that sends requests and writes statuses uses a [`Mandate`], which also ends when the operator
//! stops.

mod lease;
mod lease_observation;
mod mandate;

pub use lease::{Candidate, Leadership};
pub use mandate::Mandate;
