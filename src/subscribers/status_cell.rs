//! One Subscriber's status as this process wants it and as it is written.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::SubscriberStatus;
use tokio::sync::Mutex as AsyncMutex;

/// Many parts of the operator have something to say in one status: each changes the page at once and then sees to it that
/// it is written. Whoever comes second finds it written already.
#[derive(Debug)]
pub struct StatusCell {
    /// As it should be.
    desired: SubscriberStatus,
    /// As the API server has it.
    stored: SubscriberStatus,
    /// The resourceVersion as of which that is known.
    version: u64,
    /// The latest end of a pause that was known so far, also of one that was ended early.
    latest_pause: Option<Time>,
    /// Held by whoever writes it.
    turn: Arc<AsyncMutex<()>>,
}

impl StatusCell {
    /// A page that holds what was read, as of this resourceVersion.
    pub fn new(read: SubscriberStatus, version: u64) -> Self {
        let latest_pause = read.paused_until_time.clone();
        Self { desired: read.clone(), stored: read, version, latest_pause, turn: Arc::default() }
    }

    /// The status as it should be.
    pub fn desired(&self) -> &SubscriberStatus {
        &self.desired
    }

    /// The status as the API server has it.
    pub fn stored(&self) -> &SubscriberStatus {
        &self.stored
    }

    /// Changes what it should be.
    pub fn amend(&mut self, change: impl FnOnce(&mut SubscriberStatus)) {
        change(&mut self.desired);
    }

    /// The webhook asked to be left alone until then; the latest end wins.
    pub fn pause(&mut self, until: Timestamp) {
        let latest = self.desired.paused_until_time.as_ref().map_or(until, |known| known.0.max(until));
        self.desired.paused_until_time = Some(Time(latest));
        self.latest_pause = self.latest_pause.take().max(Some(Time(until)));
    }

    /// How much of a pause is left at `now`. A time written by a wrong clock is not trusted past `longest`.
    pub fn silence(&self, longest: Duration, now: Timestamp) -> Duration {
        let left = self.desired.paused_until_time.as_ref().map(|until| until.0.duration_since(now));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default().min(longest)
    }

    /// Whose turn it is to write.
    pub fn turn(&self) -> Arc<AsyncMutex<()>> {
        self.turn.clone()
    }

    /// Whether something is not written yet.
    pub fn is_behind(&self) -> bool {
        self.desired != self.stored
    }

    /// What is written, as of which resourceVersion, and what should be (None: the same).
    pub fn unwritten(&self) -> Option<(SubscriberStatus, u64, SubscriberStatus)> {
        self.is_behind().then(|| (self.stored.clone(), self.version, self.desired.clone()))
    }

    /// This is written now, as of this resourceVersion.
    pub fn note_written(&mut self, status: SubscriberStatus, version: u64) {
        self.stored = status;
        self.version = version;
    }

    /// The API server shows this, as of this resourceVersion. What somebody else wrote over ours is to be written again,
    /// but for a later pause, which a former leader was asked for: that is obeyed. True if there is one. What is older than
    /// what is known is old news.
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
    fn a_change_that_comes_while_another_is_written_stays_unwritten() {
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
    fn what_somebody_else_wrote_over_ours_is_to_be_written_again_and_old_news_is_not() {
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
    fn a_later_pause_that_a_former_leader_wrote_is_obeyed_and_one_that_was_ended_does_not_come_back() {
        let mut cell = StatusCell::new(SubscriberStatus::default(), 1);
        let paused = |second| {
            let until = Timestamp::from_second(second).unwrap();
            SubscriberStatus { paused_until_time: Some(Time(until)), ..SubscriberStatus::default() }
        };
        assert!(cell.observe(paused(100), 2));
        assert_eq!((cell.desired(), cell.unwritten()), (&paused(100), None));
        cell.amend(|status| status.paused_until_time = None);
        assert!(!cell.observe(paused(100), 3), "it is known, and somebody ended it");
        assert_eq!(cell.desired(), &SubscriberStatus::default());
        assert!(cell.observe(paused(200), 4));
        assert!(!cell.observe(paused(300), 4), "old news");
        assert_eq!(cell.desired(), &paused(200));
    }
}
