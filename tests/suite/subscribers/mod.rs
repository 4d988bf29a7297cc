//! When the operator reconciles a Subscriber, and what a Subscriber's status says.

mod conditions;
mod handshake;
mod health;
mod looks;
pub mod self_test;
