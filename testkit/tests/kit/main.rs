//! The kit itself: a witness must be right before it is heard.

// Helpers of tests say what they expect by panicking, as tests do.
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
