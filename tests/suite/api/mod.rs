//! What the API server accepts and refuses, what an administrator installs, and the addresses that the operator serves.

pub mod chart;
mod examples;
mod monitoring;
mod probes;
mod program;
pub mod refusals;
mod release;
