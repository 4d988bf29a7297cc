//! Tidings delivers events to webhooks: a Kubernetes operator.
//!
//! The rooms, and which may know which, are described in `docs/architecture.md`; a test holds the code to it.

pub mod admin;
pub mod api_server;
pub mod cli;
pub mod controller;
pub mod metrics;
pub mod operator;
pub mod telemetry;
