//! What a candidate sees of the Lease, and what it does about it. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// A candidate may take a Lease that was not renewed for this long.
pub(super) const LIFE: Duration = Duration::from_secs(15);
/// How often a standby reads the Lease.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(1);

/// What a candidate does about the Lease that it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseDecision {
    /// Create the Lease: it does not exist.
    Create,
    /// Take the Lease: it is free.
    Take,
    /// Take the Lease over: its holder did not renew it for the whole lease duration.
    TakeOver,
    /// Renew the Lease: this candidate holds it.
    Renew,
    /// Wait: another operator holds the Lease. Read it again after this time at the latest.
    Wait(Duration),
}

/// What a candidate remembers of the Lease between reads.
#[derive(Debug, Default)]
pub(super) struct LeaseObservation {
    version: Option<String>,
    since: Option<Instant>,
    /// Whether the Lease existed.
    was_there: bool,
    /// Since when the Lease is missing.
    missing_since: Option<Instant>,
}

impl LeaseObservation {
    /// Decides what to do about the Lease that was read at `now`.
    pub(super) fn judge(&mut self, identity: &str, lease: Option<&Lease>, now: Instant) -> LeaseDecision {
        let Some(lease) = lease else { return self.judge_missing(now) };
        (self.was_there, self.missing_since) = (true, None);
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder == identity {
            return LeaseDecision::Renew;
        }
        if holder.is_empty() {
            return LeaseDecision::Take;
        }
        if self.version != lease.metadata.resource_version {
            self.version.clone_from(&lease.metadata.resource_version);
            self.since = Some(now);
        }
        let life = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let life = life.map_or(LIFE, Duration::from_secs);
        let left = self.since.map_or(life, |since| (since + life).saturating_duration_since(now));
        if left.is_zero() { LeaseDecision::TakeOver } else { LeaseDecision::Wait(left.min(READ_INTERVAL)) }
    }

    /// Decides about a missing Lease. A deleted Lease may still have a leader, which continues until it notices the
    /// deletion.
    fn judge_missing(&mut self, now: Instant) -> LeaseDecision {
        if !self.was_there {
            return LeaseDecision::Create;
        }
        let left = (*self.missing_since.get_or_insert(now) + LIFE).saturating_duration_since(now);
        if left.is_zero() { LeaseDecision::Create } else { LeaseDecision::Wait(left.min(READ_INTERVAL)) }
    }
}
