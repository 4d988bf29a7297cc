//! The tests above the level of units: generated files, the architecture, what the API server accepts and refuses, and the
//! whole operator on a real control plane, under the rights that the chart gives it.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod architecture;
mod certificates;
mod chart;
mod cluster;
mod conformance;
mod egress;
mod examples;
mod faults;
mod foreign_token_server;
mod gates;
mod golden;
mod hostile;
mod lifecycle;
mod outcomes;
mod panics;
mod reference;
mod refusals;
mod replay;
mod retention;
mod sending;
mod subscribers;
mod tokens;
mod world;
