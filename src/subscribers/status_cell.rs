//! One Subscriber's status: as this process wants it, and as the API server stores it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{ConditionType, SubscriberReason, SubscriberStatus};
use tokio::sync::Mutex as AsyncMutex;

/// The desired and the stored status of one Subscriber. Several parts of the operator change it: each changes the
/// desired status immediately and then has it written. One write may cover the changes of several parts.
#[derive(Debug)]
pub struct StatusCell {
    /// The status as it should be.
    desired: SubscriberStatus,
    /// The status as the API server stores it.
    stored: SubscriberStatus,
    /// The resourceVersion of `stored`.
    version: u64,
    /// The latest known end of a pause, including pauses that were ended early.
    latest_pause: Option<Time>,
    /// Locked by the task that writes the status.
    turn: Arc<AsyncMutex<()>>,
}

impl StatusCell {
    /// A cell for the status that was read at this resourceVersion.
    pub fn new(read: SubscriberStatus, version: u64) -> Self {
        let latest_pause = read.paused_until_time.clone();
        Self { desired: read.clone(), stored: read, version, latest_pause, turn: Arc::default() }
    }

    /// The status as it should be.
    pub fn desired(&self) -> &SubscriberStatus {
        &self.desired
    }

    /// The status as the API server stores it.
    pub fn stored(&self) -> &SubscriberStatus {
        &self.stored
    }

    /// Whether the stored status says that the webhook rejects all events.
    pub fn rejects_all(&self) -> bool {
        let healthy = self.stored.condition(ConditionType::Healthy);
        healthy.is_some_and(|condition| condition.reason == SubscriberReason::RejectsAll.as_str())
    }

    /// Changes the desired status.
    pub fn amend(&mut self, change: impl FnOnce(&mut SubscriberStatus)) {
        change(&mut self.desired);
    }

    /// Records that the webhook requests a pause until this time. The latest end wins.
    pub fn pause(&mut self, until: Timestamp) {
        let latest = self.desired.paused_until_time.as_ref().map_or(until, |known| known.0.max(until));
        self.desired.paused_until_time = Some(Time(latest));
        self.latest_pause = self.latest_pause.take().max(Some(Time(until)));
    }

    /// The rest of the pause at `now`, limited to `longest` because a wrong clock may have written its end.
    pub fn silence(&self, longest: Duration, now: Timestamp) -> Duration {
        let left = self.desired.paused_until_time.as_ref().map(|until| until.0.duration_since(now));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default().min(longest)
    }

    /// The lock that a task holds while it writes the status.
    pub fn turn(&self) -> Arc<AsyncMutex<()>> {
        self.turn.clone()
    }

    /// Whether there are unwritten changes.
    pub fn is_behind(&self) -> bool {
        self.desired != self.stored
    }

    /// The stored status, its resourceVersion, and the desired status (None: both are equal).
    pub fn unwritten(&self) -> Option<(SubscriberStatus, u64, SubscriberStatus)> {
        self.is_behind().then(|| (self.stored.clone(), self.version, self.desired.clone()))
    }

    /// Records that this status is stored at this resourceVersion.
    pub fn note_written(&mut self, status: SubscriberStatus, version: u64) {
        self.stored = status;
        self.version = version;
    }

    /// Records the status that the API server shows at this resourceVersion, unless a newer one is known. What another
    /// writer changed is written again, except a later pause: a former leader recorded it, and this operator obeys it.
    /// Returns true if there is such a pause.
    pub fn observe(&mut self, status: SubscriberStatus, version: u64) -> bool {
        if version <= self.version {
            return false;
        }
        self.version = version;
        let pause = status.paused_until_time.clone().filter(|until| Some(until) > self.latest_pause.as_ref());
        if let Some(Time(until)) = &pause {
            self.pause(*until);
        }
        self.stored = status;
        pause.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_during_the_write_of_another_stays_unwritten() {
        let mut cell = StatusCell::new(SubscriberStatus::default(), 1);
        assert_eq!(cell.unwritten(), None);
        cell.amend(|status| status.pending = Some(1));
        let (_, _, first) = cell.unwritten().unwrap();
        cell.amend(|status| status.pending = Some(2));
        cell.note_written(first.clone(), 2);
        let (stored, _, desired) = cell.unwritten().unwrap();
        assert_eq!((stored, desired.pending), (first, Some(2)));
    }

    #[test]
    fn an_overwritten_status_is_written_again_and_an_older_version_is_ignored() {
        let mut cell = StatusCell::new(SubscriberStatus::default(), 1);
        cell.amend(|status| status.pending = Some(1));
        let (_, version, ours) = cell.unwritten().unwrap();
        assert_eq!(version, 1);
        cell.note_written(ours.clone(), 7);
        cell.observe(SubscriberStatus::default(), 6);
        assert_eq!(cell.unwritten(), None);
        cell.observe(SubscriberStatus::default(), 8);
        assert_eq!(cell.unwritten(), Some((SubscriberStatus::default(), 8, ours)));
    }

    #[test]
    fn a_later_pause_that_a_former_leader_wrote_is_obeyed_and_a_pause_that_was_ended_does_not_return() {
        let mut cell = StatusCell::new(SubscriberStatus::default(), 1);
        let paused = |second| {
            let until = Timestamp::from_second(second).unwrap();
            SubscriberStatus { paused_until_time: Some(Time(until)), ..SubscriberStatus::default() }
        };
        assert!(cell.observe(paused(100), 2));
        assert_eq!((cell.desired(), cell.unwritten()), (&paused(100), None));
        cell.amend(|status| status.paused_until_time = None);
        assert!(!cell.observe(paused(100), 3), "the pause is known and was ended");
        assert_eq!(cell.desired(), &SubscriberStatus::default());
        assert!(cell.observe(paused(200), 4));
        assert!(!cell.observe(paused(300), 4), "an older version");
        assert_eq!(cell.desired(), &paused(200));
    }
}
