//! What is asked immediately before every POST of an attempt.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::jiff::Timestamp;
use tidings_delivery::webhook::Clearance;

use super::attempt::{Attempts, Job};

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

    /// The Notification is finished, or deleted.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    fn holds(&self, now: Timestamp) -> bool {
        !self.revoked.load(Ordering::Acquire) && self.expires.is_none_or(|at| now < at)
    }
}

/// What allows one attempt to go on.
pub(super) struct Cleared<'a> {
    pub(super) attempts: &'a Attempts,
    pub(super) job: &'a Job,
}

impl Clearance for Cleared<'_> {
    /// This operator leads and does not stop, the Notification is neither finished nor deleted nor expired, and its
    /// Subscriber still has the spec that the attempt began with, is open and is not paused.
    fn may_send(&self) -> bool {
        let Self { attempts, job } = self;
        let route = &job.route;
        attempts.leadership.holds()
            && !attempts.subscribers.is_stopping()
            && job.permit.holds(Timestamp::now())
            && attempts.subscribers.registry.held(&job.lane, &route.spec).is_none()
    }

    async fn stopping(&self) {
        self.attempts.subscribers.stopped().await;
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
