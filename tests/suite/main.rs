//! The tests above the level of units: generated files, the architecture, what the API server accepts and refuses, and the
//! whole operator on a real control plane, under the rights that the chart gives it.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_faults;
mod api_server;
mod architecture;
mod canary;
mod certificates;
mod chart;
mod client_certificates;
mod cluster;
mod conformance;
mod connections;
mod edges;
mod egress;
mod examples;
mod failover;
mod faults;
mod foreign_token_server;
mod gates;
mod golden;
mod handshake;
mod headers;
mod health;
mod hostile;
mod lifecycle;
mod looks;
mod names;
mod outcomes;
mod panics;
mod probes;
mod quotes;
mod reference;
mod refusals;
mod replay;
mod retention;
mod secret_access;
mod secret_values;
mod self_test;
mod sending;
mod subscribers;
mod tenants;
mod token_budgets;
mod tokens;
mod troubleshooting;
mod world;
