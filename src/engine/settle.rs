//! What becomes of a Notification when an attempt, an expiry or a courtesy is over.

use std::time::{Duration, Instant};

use tidings_queue::{Gate, SubscriberKey};
use tokio::task::JoinError;

use super::{Notifications, attempt::Ended, index::Uid};
use crate::{
    contract::{NotSent, Report},
    notifications::wire::Unfinished,
};

/// One whose webhook may not be dialled is looked at again after this.
const AFTER_DENIED: Duration = Duration::from_secs(30);
/// One whose status somebody else wrote meanwhile is looked at again after this.
const AFTER_SUPERSEDED: Duration = Duration::from_secs(5);
/// One whose POST was forbidden at the last moment is looked at again after this.
const AFTER_HELD: Duration = Duration::from_secs(1);
/// One that could not be read is tried again after this.
const AFTER_UNREAD: Duration = Duration::from_secs(5);

/// What a task of the queue did for one Notification.
pub(super) enum Done {
    /// It attempted it.
    Attempt(SubscriberKey, Ended),
    /// It wrote that it expired, or tried to.
    Expiry(Ended),
    /// It said why it waits, or tried to.
    Told,
}

impl Notifications {
    pub(super) fn settle(&mut self, done: Result<(Uid, Done), JoinError>) {
        let (uid, done) = match done {
            Ok(done) => done,
            // An attempt catches its own panics; one outside of them must not be survived with a lost slot.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match done {
            Done::Attempt(lane, ended) => {
                self.permits.remove(&lane, &uid);
                self.ended(&uid, ended);
            }
            Done::Expiry(ended) => {
                self.expiring.remove(&uid);
                self.ended(&uid, ended);
            }
            Done::Told => {}
        }
    }

    fn ended(&mut self, uid: &Uid, ended: Ended) {
        let left = self.index.get(uid).is_none_or(|entry| entry.left.is_some());
        match ended {
            Ended::Finished { version, .. } if self.index.is_newer(uid, version) => {
                // The watch showed a replay before this attempt reported that it finished.
                self.again(uid, Instant::now());
                self.arm(uid);
            }
            Ended::Finished { version, out_of_sight } => {
                self.disarm(uid);
                self.scheduler.end(uid);
                self.index.finished(uid, version, out_of_sight);
            }
            Ended::Superseded(current)
                if current.is_finished() && !left && !self.index.is_newer(uid, current.version()) =>
            {
                self.disarm(uid);
                self.scheduler.end(uid);
                self.index.finished(uid, current.version(), false);
            }
            Ended::Gone => self.forget(uid),
            _ if left => self.forget(uid),
            Ended::Retry(recorded) => {
                let is_newest = self.index.wrote(uid, &recorded);
                self.scheduler.retry(uid, Instant::now() + if is_newest { recorded.wait } else { Duration::ZERO });
                self.arm(uid);
            }
            Ended::Unread => {
                let later = Instant::now() + AFTER_UNREAD;
                self.again(uid, later);
                self.arm_after(uid, later);
            }
            Ended::Superseded(current) if current.is_being_deleted() => self.forget(uid),
            Ended::Superseded(current) => {
                self.index.read(uid, &current);
                // Never at once: whoever writes the status against us must not make a storm.
                let later = Instant::now() + AFTER_SUPERSEDED;
                self.again(uid, self.due(&current).unwrap_or(later));
                self.arm_after(uid, later);
            }
            Ended::NotStarted(object, why) => {
                self.not_started(uid, object, why);
                self.arm(uid);
            }
        }
    }

    fn forget(&mut self, uid: &Uid) {
        self.disarm(uid);
        self.scheduler.end(uid);
        self.scheduler.remove(uid);
        self.index.forget(uid);
    }

    /// Due at `due`, whether it was in flight or (its expiry being written) in no place at all.
    pub(super) fn again(&mut self, uid: &Uid, due: Instant) {
        if self.scheduler.is_in_flight(uid) {
            self.scheduler.retry(uid, due);
        } else if let Some(entry) = self.index.get(uid) {
            let (lane, bytes) = (entry.lane.clone(), entry.bytes as usize);
            self.scheduler.add(uid.clone(), lane, Some(due), None, bytes, Instant::now());
        }
    }

    /// The lane closes until its Subscriber was looked at again; the Notification is first in line, or, where the way
    /// is denied, a while later, so that a name that resolves now so, now otherwise makes no storm.
    fn not_started(&mut self, uid: &Uid, object: Option<Box<Unfinished>>, why: NotSent) {
        let Some(lane) = self.index.get(uid).map(|entry| entry.lane.clone()) else {
            return self.scheduler.end(uid);
        };
        if let Some(object) = object {
            self.index.return_object(uid, object);
        }
        match why {
            // Never at once: whatever forbids it may not have reached the queue yet.
            NotSent::Held => return self.scheduler.put_off(uid, Instant::now() + AFTER_HELD),
            NotSent::NoToken => self.scheduler.put_back(uid, Instant::now()),
            NotSent::EgressDenied => self.scheduler.retry(uid, Instant::now() + AFTER_DENIED),
        }
        self.hold(&lane, Gate::SubscriberNotReady);
        let _ = self.reports.send(Report::Reconcile { of: lane, why });
    }
}
