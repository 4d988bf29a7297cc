//! The Tidings operator: delivers events to webhooks.
//!
//! `docs/architecture.md` describes the modules and their allowed imports; `tests/suite/architecture/` checks the
//! imports.

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
pub mod traces;
