//! What the API server accepts and refuses, what an administrator installs, and the operator's own addresses.

mod api_server;
pub mod chart;
mod examples;
mod probes;
pub mod refusals;
