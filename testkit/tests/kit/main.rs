//! Tests the kit itself, because the other tests rely on it.

// Test helpers panic when an expectation is not met, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_proxy;
mod client;
mod control_plane;
mod hydra;
mod operator;
mod process;
mod raw;
mod receiver;
mod stage;
mod tcp_proxy;
mod token_service;
