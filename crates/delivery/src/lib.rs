//! Delivers one event to one webhook.
//!
//! [`event`] checks a CloudEvent and encodes it; [`oauth`] gets the access token; [`webhook`] sends the event, judges
//! the response and validates the webhook; [`egress`] makes every outbound request of the other modules. [`spans`] names
//! the spans of all of them. The crate does not use Kubernetes.

#![cfg_attr(not(test), warn(unreachable_pub))]

pub mod egress;
pub mod event;
pub mod oauth;
pub mod spans;
pub mod webhook;
