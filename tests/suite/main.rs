//! The tests above the unit level: generated files, the architecture, what the API server accepts and refuses, and the
//! whole operator on a real control plane, with the permissions that the chart grants.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod architecture;
mod cluster;
mod delivery;
mod docs;
mod gitops;
mod metrics;
mod reliability;
mod security;
mod sending;
mod subscribers;
mod telemetry;
mod token_sources;
mod world;
