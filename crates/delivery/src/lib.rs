//! One event to one webhook.
//!
//! [`event`] checks a CloudEvent and encodes it; [`oauth`] gets the access token; [`webhook`] sends the event, judges the answer
//! and asks the webhook for its consent; [`egress`] is the only way out: every request of the other three goes through it.
//! The crate knows no Kubernetes.

#![cfg_attr(not(test), warn(unreachable_pub))]

pub mod egress;
pub mod event;
pub mod oauth;
pub mod webhook;
