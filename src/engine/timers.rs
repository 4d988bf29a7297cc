//! What time alone brings: Notifications expire, and those that wait are told why. Outcomes are written first; these
//! writes take what is left.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tidings_queue::{Gate, SubscriberKey};
use tracing::debug;

use super::{
    Notifications,
    attempt::Expiry,
    expiry::{Life, Lifetime},
    index::Uid,
    observe::GATES,
    settle::Done,
};
use crate::notifications::record::Waiting;

/// At most so many expiries are written at once.
const EXPIRIES: usize = 8;

impl Notifications {
    /// Writes what is due.
    pub(super) fn write_due(&mut self) {
        let now = Instant::now();
        while self.expiring.len() < EXPIRIES
            && let Some(uid) = self.expiries.next(now)
        {
            self.disarm(&uid);
            self.expire_or_rearm(uid);
        }
        while let Some((uid, gate)) = self.scheduler.courtesy(now) {
            self.tell(uid, gate);
        }
    }

    /// Sets when the Notification expires, by all that is known now.
    pub(super) fn arm(&mut self, uid: &Uid) {
        self.arm_after(uid, Instant::now());
    }

    /// The same, but not to be looked at before `earliest`.
    pub(super) fn arm_after(&mut self, uid: &Uid, earliest: Instant) {
        let at = self.ends(uid).map(|at| {
            let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            (Instant::now() + wait).max(earliest)
        });
        let old = self.index.expires(uid, at);
        self.expiries.set(uid, old, at);
    }

    /// When the next expiry can be written: not before one of those under way is.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.wake_at().filter(|_| self.expiring.len() < EXPIRIES)
    }

    /// It does not expire for now.
    pub(super) fn disarm(&mut self, uid: &Uid) {
        let old = self.index.expires(uid, None);
        self.expiries.set(uid, old, None);
    }

    /// When it expires, by all that is known now.
    pub(super) fn ends(&self, uid: &Uid) -> Option<Timestamp> {
        let entry = self.index.get(uid)?;
        let life = Life { began: entry.began, own: entry.own_expiry, tried: entry.attempts > 0 };
        life.ends(self.scheduler.gate(&entry.lane, Instant::now()), self.lifetime(&entry.lane))
    }

    fn lifetime(&self, lane: &SubscriberKey) -> Lifetime {
        if let Some(known) = self.lanes.get(lane) {
            return known.lifetime().map_or(Lifetime::Unknown, Lifetime::Known);
        }
        let missing = self.missing.get(lane).copied().or_else(|| self.subscribers_since(lane));
        missing.map_or(Lifetime::Unknown, Lifetime::Missing)
    }

    /// Its time has come by what was known when it was set; by what is known now it may be later, or never. One in
    /// flight is looked at when its attempt ends.
    fn expire_or_rearm(&mut self, uid: Uid) {
        let has_ended = self.ends(&uid).is_some_and(|at| at <= Timestamp::now());
        if self.scheduler.is_in_flight(&uid) {
            return;
        }
        if !has_ended {
            // It may stand in no queue, if its turn came when it seemed to have expired.
            if !self.scheduler.holds(&uid) {
                self.again(&uid, Instant::now());
            }
            return self.arm(&uid);
        }
        let object = self.index.take_object(&uid);
        let Some(entry) = self.index.get(&uid) else { return };
        let job = Expiry { lane: entry.lane.clone(), name: entry.name.clone(), began: entry.began, object };
        self.scheduler.remove(&uid);
        self.expiring.insert(uid.clone());
        let attempts = self.attempts.clone();
        self.running.spawn(async move {
            let ended = attempts.expire(job, &uid).await;
            (uid, Done::Expiry(ended))
        });
    }

    fn tell(&mut self, uid: Uid, gate: Gate) {
        let (Some(entry), Some((_, reason))) = (self.index.get(&uid), GATES.iter().find(|(g, _)| *g == gate)) else {
            return;
        };
        let waiting = Waiting {
            namespace: entry.lane.namespace.clone(),
            name: entry.name.clone(),
            uid: uid.clone(),
            attempts: entry.attempts,
        };
        let (attempts, reason) = (self.attempts.clone(), *reason);
        self.running.spawn(async move {
            if let Err(error) = attempts.writer.tell(&waiting, reason).await {
                debug!(%error, "a courtesy was not written");
            }
            (uid, Done::Told)
        });
    }
}
