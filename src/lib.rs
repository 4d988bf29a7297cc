//! Tidings delivers events to webhooks: a Kubernetes operator.
//!
//! `docs/architecture.md` describes the modules, and which may import which; `tests/suite/architecture/` checks the imports.

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
