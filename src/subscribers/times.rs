//! Converts times to full seconds, as the API writes them.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// A duration of the API. Never zero.
pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}

/// Removes the fraction of a second.
pub(super) fn full_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
