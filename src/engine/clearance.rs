//! What is asked immediately before every POST of an attempt.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::jiff::Timestamp;
use tidings_delivery::webhook::Clearance;
use tidings_queue::SubscriberKey;

use super::{
    attempt::{Attempts, Job},
    index::Uid,
};

/// What the queue has to say to an attempt under way: until when it may POST, and that it may no more.
#[derive(Debug)]
pub struct Permit {
    expires: Option<Timestamp>,
    revoked: AtomicBool,
}

impl Permit {
    /// For as long as the Notification lives.
    pub fn until(expires: Option<Timestamp>) -> Self {
        Self { expires, revoked: AtomicBool::new(false) }
    }

    /// The Notification is finished or deleted, or its lane was closed or paused, or has another version.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    fn holds(&self, now: Timestamp) -> bool {
        !self.revoked.load(Ordering::Acquire) && self.expires.is_none_or(|at| now < at)
    }
}

/// The permits of the attempts under way, by lane.
#[derive(Debug, Default)]
pub(super) struct Permits(HashMap<SubscriberKey, HashMap<Uid, Arc<Permit>>>);

impl Permits {
    /// An attempt at `uid` is under way from now on.
    pub(super) fn insert(&mut self, lane: &SubscriberKey, uid: Uid, permit: Arc<Permit>) {
        self.0.entry(lane.clone()).or_default().insert(uid, permit);
    }

    /// The attempt at `uid` is over.
    pub(super) fn remove(&mut self, lane: &SubscriberKey, uid: &str) {
        if let Some(of_lane) = self.0.get_mut(lane) {
            of_lane.remove(uid);
            if of_lane.is_empty() {
                self.0.remove(lane);
            }
        }
    }

    /// What the attempt at `uid` has not sent yet, it does not send.
    pub(super) fn revoke(&self, lane: &SubscriberKey, uid: &str) {
        if let Some(permit) = self.0.get(lane).and_then(|of_lane| of_lane.get(uid)) {
            permit.revoke();
        }
    }

    /// What the attempts of the lane have not sent yet, they do not send.
    pub(super) fn revoke_all(&self, lane: &SubscriberKey) {
        self.0.get(lane).into_iter().flatten().for_each(|(_, permit)| permit.revoke());
    }
}

/// What allows one attempt to go on.
pub(super) struct Cleared<'a> {
    pub(super) attempts: &'a Attempts,
    pub(super) job: &'a Job,
}

impl Clearance for Cleared<'_> {
    /// This operator leads and does not stop, and the queue has not revoked the permit.
    fn may_send(&self) -> bool {
        let Self { attempts, job } = self;
        attempts.leadership.holds(&job.lane) && !*attempts.stopping.borrow() && job.permit.holds(Timestamp::now())
    }

    async fn stopping(&self) {
        let mut stopping = self.attempts.stopping.clone();
        drop(stopping.wait_for(|stopping| *stopping).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_ends_when_it_is_revoked_and_when_the_notification_expires() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let permit = Permit::until(Some(at(10)));
        assert!(permit.holds(at(9)) && !permit.holds(at(10)));
        let permit = Permit::until(None);
        assert!(permit.holds(at(10)));
        permit.revoke();
        assert!(!permit.holds(at(10)));
    }
}
