//! When the operator reconciles a Subscriber, and what a Subscriber's status says.

mod conditions;
pub mod every_reason;
mod handshake;
mod health;
mod progress;
mod reconciles;
pub mod test_event;
