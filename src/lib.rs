//! Tidings delivers events to webhooks: a Kubernetes operator.
//!
//! The rooms, and which may know which, are described in `docs/architecture.md`; a test holds the code to it.

pub mod admin;
pub mod api;
pub mod api_server;
pub mod cli;
pub mod cloudevent;
pub mod controller;
pub mod dispatch;
pub mod egress;
pub mod metrics;
pub mod oauth;
pub mod operator;
pub mod telemetry;
pub mod webhook;
