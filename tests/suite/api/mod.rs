//! What the API server accepts and refuses, what an administrator installs, and the operator's own addresses.

pub mod chart;
mod examples;
mod probes;
mod program;
pub mod refusals;
