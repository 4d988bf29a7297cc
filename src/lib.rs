//! Tidings delivers events to webhooks: a Kubernetes operator.
//!
//! The rooms, and which may know which, are described in `docs/architecture.md`; a test holds the code to it.

mod admin;
pub mod cli;
mod cluster;
mod contract;
mod engine;
mod metrics;
mod notifications;
pub mod operator;
mod ownership;
mod subscribers;
pub mod telemetry;
