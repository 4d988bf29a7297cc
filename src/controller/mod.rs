//! Where Kubernetes meets the rest: watches go in, statuses go out.
//!
//! [`notifications`] owns the queue of unfinished Notifications and starts each [`attempt`]; [`subscribers`] resolves
//! each Subscriber to a target and tells the queue through the [`registry`].

mod attempt;
mod index;
mod notification_status;
mod notifications;
mod registry;
mod resolve;
mod secrets;
mod status;
mod subscriber_status;
mod subscribers;
mod unfinished;

pub use attempt::Attempts;
pub use notifications::Notifications;
pub use registry::{Gate, GateChange, Registry};
pub use resolve::Resolver;
pub use status::StatusWriter;
pub use subscribers::Subscribers;
pub use unfinished::{SELECTOR, Unfinished};

use std::time::Duration;

/// The name under which the operator's writes appear in `managedFields`.
const FIELD_MANAGER: &str = "tidings";
/// A call to the API server that takes longer has failed.
const API_TIMEOUT: Duration = Duration::from_secs(15);
/// The API server is asked to end each watch after this, so that a half-open connection does not go unnoticed.
const WATCH_SECONDS: u32 = 45;
