//! Whether this process may act for a Subscriber now: today a Lease decides that for all Subscribers ([`lease`]). What sends requests
//! and writes statuses goes by a [`Mandate`], which ends also when the operator is to end.

mod lease;
mod mandate;

pub use lease::{Candidate, Leadership};
pub use mandate::Mandate;
