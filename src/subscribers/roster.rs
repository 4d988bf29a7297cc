//! Keeps which Subscribers exist, what they refer to, and whether their Notifications may be sent.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::{ConditionStatus, ConditionType, SubscriberStatus};
use tidings_delivery::oauth::TokenSource;
use tidings_queue::{Gate, SpecVersion, SubscriberKey};
use tokio::sync::mpsc;

use super::{
    health_board::StoredStatus,
    member::{Begun, HeldBack, Member, ObservedSubscriber},
    progress::Progress,
    reconcile_requests::{ReconcileCause, ReconcileRequests},
    referrers::{Reference, Referrers},
    status_cell::StatusCell,
    step::Step,
    validation::FailedValidation,
};
use crate::{
    contract::{LaneUpdate, Route, open},
    metrics::StatusTally,
};

/// The state of all Subscribers, from the watch, the reconciler and the engine's reports. It is kept in one place so
/// that a reconcile that started earlier never opens the lane of a Subscriber that was deleted or whose webhook is
/// gone.
///
/// One lock protects all of it. While the lock is held, memory is changed and updates are sent on an unbounded channel;
/// nothing is awaited and no other lock is acquired. The closure passed to [`Roster::cell`] only computes. A task that
/// writes a status holds [`StatusCell::turn`] and acquires this lock briefly: first the turn, then the lock.
/// [`ReconcileRequests`] has its own lock, which is acquired when this lock is free.
pub(super) struct Roster {
    known: Mutex<Known>,
    /// Updates are sent while the lock is held, so that the engine receives them in the order of the changes.
    updates: mpsc::UnboundedSender<LaneUpdate>,
    reconcile_requests: ReconcileRequests,
}

#[derive(Default)]
struct Known {
    subscribers: HashMap<SubscriberKey, Member>,
    referrers: Referrers,
    /// The Subscribers whose status another writer changed.
    overwritten: HashSet<SubscriberKey>,
    /// The Subscribers that no longer exist, until [`Roster::take_disturbed`] returns them.
    removed: Vec<SubscriberKey>,
}

impl Known {
    /// Replaces the references of the Subscriber.
    fn refer(&mut self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        let Some(member) = self.subscribers.get_mut(key).filter(|member| **member.uid() == *uid) else { return };
        let before = member.set_references(references.clone());
        self.referrers.unlink(key, before.difference(&references));
        self.referrers.link(key, references);
    }

    /// Removes a Subscriber and everything known about it.
    fn forget(&mut self, key: &SubscriberKey) {
        if let Some(member) = self.subscribers.remove(key) {
            self.referrers.unlink(key, member.references());
            self.removed.push(key.clone());
        }
        self.overwritten.remove(key);
    }
}

impl Roster {
    /// An empty roster that sends its updates to the engine through `updates`.
    pub(super) fn new(updates: mpsc::UnboundedSender<LaneUpdate>) -> Self {
        Self { known: Mutex::default(), updates, reconcile_requests: ReconcileRequests::default() }
    }

    /// Records a Subscriber as the watch shows it. A new Subscriber, or a new spec, is not ready before its reconcile
    /// has ended. The queue learns immediately after what time Notifications expire.
    pub(super) fn upsert(&self, key: SubscriberKey, observed: ObservedSubscriber) {
        let lifetime = Some(observed.expire_after);
        let mut known = self.lock();
        let Some(member) = known.subscribers.get_mut(&key).filter(|member| *member.uid() == observed.spec.uid) else {
            known.forget(&key);
            self.send(LaneUpdate::Reset { of: key.clone() });
            self.send(closed(&key, None, Gate::SubscriberNotReady, lifetime));
            let member = Member::new(observed);
            if member.cell().rejects_all() {
                self.send(LaneUpdate::RejectsAll { of: key.clone() });
            }
            known.subscribers.insert(key, member);
            return;
        };
        if member.renew(observed.spec.generation, observed.expire_after) {
            self.send(closed(&key, Some(&observed.spec), Gate::SubscriberNotReady, lifetime));
        }
        drop(known);
        self.merge_stored(&key, &observed.spec.uid, observed.status, observed.version);
    }

    /// Records the status that the API server stores for a known Subscriber.
    pub(super) fn merge_stored(&self, key: &SubscriberKey, uid: &str, status: SubscriberStatus, version: u64) {
        let merged = self.with(key, uid, |member| {
            let has_pause = member.cell_mut().observe(status, version);
            if let Some(until) = member.pause_end(Instant::now(), Timestamp::now()).filter(|_| has_pause) {
                self.send(LaneUpdate::Paused { of: key.clone(), until });
            }
            (has_pause, member.cell().is_behind())
        });
        if let Some((_, true)) = merged {
            self.lock().overwritten.insert(key.clone());
        }
        if let Some((true, _)) = merged {
            // The reconcile sends the engine the pause that another operator recorded.
            self.mark(key, ReconcileCause::Change);
        }
    }

    /// Removes a Subscriber that the watch shows as deleted.
    pub(super) fn remove(&self, key: &SubscriberKey) {
        let mut known = self.lock();
        known.forget(key);
        self.send(LaneUpdate::Reset { of: key.clone() });
        self.send(closed(key, None, Gate::SubscriberNotFound, None));
    }

    /// Records that the list of `namespace` (None: of all namespaces) is complete: a Subscriber that is unknown now
    /// does not exist.
    pub(super) fn note_listed(&self, namespace: Option<&str>) {
        let _known = self.lock();
        self.send(LaneUpdate::Listed(namespace.map(Into::into)));
    }

    /// Sends the engine the result of a reconcile: the route, or the gate that closes the lane. Sends nothing if the
    /// Subscriber was deleted in the meantime, and closes the lane if its webhook is gone. A pause lasts at most
    /// `expire_after`.
    pub(super) fn publish(
        &self,
        key: &SubscriberKey,
        spec: &SpecVersion,
        route_or_gate: Result<Arc<Route>, Gate>,
        expire_after: Duration,
    ) {
        self.with(key, &spec.uid, |member| {
            let route_or_gate = member.decide(spec, route_or_gate, expire_after);
            if member.take_reset() {
                self.send(LaneUpdate::Reset { of: key.clone() });
            }
            self.send(match route_or_gate {
                Ok(route) => open(key.clone(), route),
                Err(gate) => closed(key, Some(spec), gate, Some(expire_after)),
            });
            if let Some(until) = member.pause_end(Instant::now(), Timestamp::now()) {
                self.send(LaneUpdate::Paused { of: key.clone(), until });
            }
        });
    }

    /// Records that the webhook of this spec answered 410, and closes the lane: a pass that did not know of the 410 may
    /// have opened it.
    pub(super) fn note_gone(&self, key: &SubscriberKey, spec: &SpecVersion) {
        self.with(key, &spec.uid, |member| {
            if let Some(expire_after) = member.note_gone(spec) {
                self.send(closed(key, Some(spec), Gate::EndpointGone, Some(expire_after)));
            }
        });
    }

    /// Whether the webhook of this spec answered 410.
    pub(super) fn is_gone(&self, key: &SubscriberKey, spec: &SpecVersion) -> bool {
        self.with(key, &spec.uid, |member| member.is_gone(spec)).unwrap_or(false)
    }

    /// What forbids a request to the webhook of this spec now, regardless of the last reconcile's result.
    pub(super) fn held(&self, key: &SubscriberKey, spec: &SpecVersion) -> Option<HeldBack> {
        let held = self.with(key, &spec.uid, |member| member.held(spec, Instant::now()));
        held.unwrap_or(Some(HeldBack::Changed))
    }

    /// Starts a pass over this spec ([`Member::begin`]). Returns None if the Subscriber no longer exists.
    pub(super) fn begin(&self, key: &SubscriberKey, spec: &SpecVersion, request: Option<String>) -> Option<Begun> {
        self.with(key, &spec.uid, |member| member.begin(spec, request))
    }

    /// Records that the webhook of this spec requests a pause until `until`, that is for `wait`, and sends it to the
    /// engine.
    pub(super) fn pause(&self, key: &SubscriberKey, spec: &SpecVersion, until: Timestamp, wait: Duration) {
        self.with(key, &spec.uid, |member| {
            if let Some(until) = member.pause(spec, until, wait, Instant::now()) {
                self.send(LaneUpdate::Paused { of: key.clone(), until });
            }
        });
    }

    /// Closes the Subscriber's lane until the pass that is starting has ended.
    pub(super) fn close(&self, key: &SubscriberKey, spec: &SpecVersion, expire_after: Duration) {
        self.with(key, &spec.uid, |member| {
            member.close();
            self.send(closed(key, Some(spec), Gate::SubscriberNotReady, Some(expire_after)));
        });
    }

    /// Replaces the Subscriber's token source and returns the previous one.
    pub(super) fn set_tokens(
        &self,
        key: &SubscriberKey,
        uid: &str,
        tokens: Arc<TokenSource>,
    ) -> Option<Arc<TokenSource>> {
        self.with(key, uid, |member| member.set_tokens(tokens)).flatten()
    }

    /// The last validation request, if it failed.
    pub(super) fn failed_validation(&self, key: &SubscriberKey, uid: &str) -> Option<FailedValidation> {
        self.with(key, uid, |member| member.failed_validation()).flatten()
    }

    /// Records a failed validation request, or (None) that one succeeded.
    pub(super) fn set_failed_validation(
        &self,
        key: &SubscriberKey,
        uid: &str,
        failed_validation: Option<FailedValidation>,
    ) {
        self.with(key, uid, |member| member.set_failed_validation(failed_validation));
    }

    /// Calls `then` with the status of the Subscriber with this uid. Returns None if the Subscriber no longer exists.
    pub(super) fn cell<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut StatusCell) -> T) -> Option<T> {
        self.with(key, uid, |member| then(member.cell_mut()))
    }

    pub(super) fn set_references(&self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        self.lock().refer(key, uid, references);
    }

    /// The Subscribers that refer to an object in `namespace`.
    pub(super) fn referrers(&self, namespace: &str, reference: &Reference) -> Vec<SubscriberKey> {
        self.lock().referrers.of(namespace, reference)
    }

    /// The Subscribers in `namespace` (None: in all namespaces) that refer to an object of a kind that a complete list
    /// did not show.
    pub(super) fn dangling(
        &self,
        namespace: Option<&str>,
        of_kind: impl Fn(&Reference) -> bool,
        shown: &HashSet<(String, Reference)>,
    ) -> HashSet<SubscriberKey> {
        self.lock().referrers.dangling(namespace, of_kind, shown)
    }

    /// Sets the current step of the pass over this Subscriber (None: the pass has ended).
    pub(super) fn set_step(&self, key: &SubscriberKey, uid: &str, step: Option<Step>) {
        self.with(key, uid, |member| member.set_step(step, Instant::now()));
    }

    /// Whether a pass over this Subscriber is at a step.
    pub(super) fn is_at_a_step(&self, key: &SubscriberKey, uid: &str) -> bool {
        self.with(key, uid, |member| member.is_at_a_step()).unwrap_or(false)
    }

    /// Ends the last step of a pass and changes the status, both at once: no progress is noted after the result.
    pub(super) fn conclude(&self, key: &SubscriberKey, uid: &str, change: impl FnOnce(&mut SubscriberStatus)) {
        self.with(key, uid, |member| {
            member.set_step(None, Instant::now());
            member.cell_mut().amend(change);
        });
    }

    /// Changes the status of exactly this spec if it must say what the Subscriber waits for. Returns whether that
    /// changed the status.
    pub(super) fn note_progress(
        &self,
        key: &SubscriberKey,
        spec: &SpecVersion,
        now: Instant,
        change: impl FnOnce(&mut SubscriberStatus, Progress),
    ) -> bool {
        let noted = self.with(key, &spec.uid, |member| {
            let Some(progress) = member.progress(now).filter(|_| member.is_of(spec)) else { return false };
            let before = member.cell().desired().clone();
            member.cell_mut().amend(|status| change(status, progress));
            *member.cell().desired() != before
        });
        noted.unwrap_or(false)
    }

    /// Marks the Subscriber to be reconciled again.
    pub(super) fn mark(&self, key: &SubscriberKey, cause: ReconcileCause) {
        self.reconcile_requests.add(key, cause);
    }

    /// Waits until Subscribers are marked, and returns them. Cancel safe: no mark is lost when the future is dropped.
    pub(super) async fn marked(&self) -> Vec<(SubscriberKey, ReconcileCause)> {
        self.reconcile_requests.taken().await
    }

    /// Returns, since the last call: the Subscribers, with their uids, whose status another writer changed, and the
    /// Subscribers that no longer exist.
    pub(super) fn take_disturbed(&self) -> (Vec<(SubscriberKey, Arc<str>)>, Vec<SubscriberKey>) {
        let mut known = self.lock();
        let (overwritten, mut removed) = (mem::take(&mut known.overwritten), mem::take(&mut known.removed));
        removed.retain(|key| !known.subscribers.contains_key(key));
        let uid = |key: &SubscriberKey| known.subscribers.get(key).map(|member| member.uid().clone());
        let overwritten = overwritten.into_iter().filter_map(|key| uid(&key).map(|uid| (key, uid)));
        (overwritten.collect(), removed)
    }

    /// The stored statuses of these Subscribers.
    pub(super) fn stored_statuses(&self, of: &[(SubscriberKey, Arc<str>)]) -> Vec<StoredStatus> {
        let known = self.lock();
        let stored = of.iter().filter_map(|(key, uid)| {
            let cell = known.subscribers.get(key).filter(|member| member.uid() == uid)?.cell();
            let (key, uid, status) = (key.clone(), uid.clone(), cell.stored().clone());
            Some(StoredStatus { key, uid, status, is_behind: cell.is_behind() })
        });
        stored.collect()
    }

    /// Counts all Subscribers by what their status says.
    pub(super) fn count_statuses(&self) -> StatusTally {
        let (known, mut tally) = (self.lock(), StatusTally::default());
        for (key, member) in &known.subscribers {
            let conditions = &member.cell().desired().conditions;
            let of = |type_: ConditionType| conditions.iter().find(|condition| condition.type_ == type_.as_str());
            let stalled = of(ConditionType::Stalled).filter(|stalled| stalled.status == ConditionStatus::True);
            let ready = of(ConditionType::Ready).map(|ready| (ready.status, ready.reason.as_str()));
            tally.add(key, ready, stalled.map(|stalled| stalled.reason.as_str()));
        }
        tally
    }

    /// Calls `then` with the Subscriber of this uid while the lock is held, if the Subscriber still exists.
    fn with<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Member) -> T) -> Option<T> {
        self.lock().subscribers.get_mut(key).filter(|member| **member.uid() == *uid).map(then)
    }

    /// Sends an update. Call this only while the lock is held.
    fn send(&self, update: LaneUpdate) {
        // The engine stops first at shutdown. The update is then no longer needed.
        let _ = self.updates.send(update);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(key: &SubscriberKey, spec: Option<&SpecVersion>, gate: Gate, lifetime: Option<Duration>) -> LaneUpdate {
    LaneUpdate::Closed { of: key.clone(), version: spec.cloned(), gate, lifetime }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::contract::testing::route;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn key(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn observed(uid: &str, generation: i64) -> ObservedSubscriber {
        let spec = SpecVersion::new(uid, generation);
        ObservedSubscriber { spec, expire_after: 7 * DAY, status: SubscriberStatus::default(), version: 1 }
    }

    fn spec(uid: &str) -> SpecVersion {
        SpecVersion::new(uid, 1)
    }

    fn suspended() -> Result<Arc<Route>, Gate> {
        Err(Gate::Suspended)
    }

    fn roster() -> (Roster, mpsc::UnboundedReceiver<LaneUpdate>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Roster::new(sender), receiver)
    }

    fn exists(roster: &Roster, key: SubscriberKey, uid: String) {
        roster.upsert(key, observed(&uid, 1));
    }

    /// The gates sent so far, with the Subscriber's name.
    fn published(updates: &mut mpsc::UnboundedReceiver<LaneUpdate>) -> Vec<(String, Gate)> {
        let gate = |update| match update {
            LaneUpdate::Closed { of, gate, .. } => Some((of.name.to_string(), gate)),
            _ => None,
        };
        std::iter::from_fn(|| updates.try_recv().ok()).filter_map(gate).collect()
    }

    #[test]
    fn a_reconcile_that_outlives_its_subscriber_changes_nothing() {
        let (roster, mut updates) = roster();
        exists(&roster, key("s"), "uid-1".into());
        roster.remove(&key("s"));
        assert_eq!(
            published(&mut updates),
            [("s".into(), Gate::SubscriberNotReady), ("s".into(), Gate::SubscriberNotFound)]
        );
        roster.publish(&key("s"), &spec("uid-1"), suspended(), DAY);
        exists(&roster, key("s"), "uid-2".into());
        roster.publish(&key("s"), &spec("uid-1"), suspended(), DAY);
        assert_eq!(published(&mut updates), [("s".into(), Gate::SubscriberNotReady)]);
        roster.publish(&key("s"), &spec("uid-2"), suspended(), DAY);
        assert_eq!(published(&mut updates), [("s".into(), Gate::Suspended)]);
    }

    #[test]
    fn a_410_that_comes_after_a_pass_has_opened_the_lane_closes_it() {
        let (roster, mut updates) = roster();
        exists(&roster, key("s"), "uid".into());
        roster.begin(&key("s"), &spec("uid"), Some("a user's request".into()));
        roster.publish(&key("s"), &spec("uid"), Ok(route(spec("uid"))), DAY);
        published(&mut updates);
        roster.note_gone(&key("s"), &spec("uid"));
        roster.note_gone(&key("s"), &spec("uid"));
        assert_eq!(published(&mut updates), [("s".into(), Gate::EndpointGone)]);
        assert!(roster.held(&key("s"), &spec("uid")).is_some());
    }

    #[test]
    fn the_queue_learns_when_notifications_expire_with_the_list_and_with_a_new_spec() {
        let (roster, mut updates) = roster();
        let mut received = || {
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                LaneUpdate::Closed { version, lifetime, .. } => Some((version, lifetime)),
                _ => None,
            })
        };
        roster.upsert(key("s"), observed("uid", 1));
        assert_eq!(received(), Some((None, Some(7 * DAY))));
        roster.upsert(key("s"), ObservedSubscriber { expire_after: DAY, ..observed("uid", 2) });
        assert_eq!(received(), Some((Some(SpecVersion::new("uid", 2)), Some(DAY))));
        roster.upsert(key("s"), ObservedSubscriber { expire_after: DAY, ..observed("uid", 2) });
        assert_eq!(received(), None, "the same spec again");
        roster.remove(&key("s"));
        assert_eq!(received(), Some((None, None)), "without a Subscriber, there is no expiry");
    }

    #[test]
    fn a_pause_by_a_wrong_clock_ends_at_the_latest_one_expiry_after_it_was_first_read() {
        let (roster, mut updates) = roster();
        let far = Timestamp::now() + 365 * DAY;
        let status = SubscriberStatus { paused_until_time: Some(Time(far)), ..SubscriberStatus::default() };
        roster.upsert(key("s"), ObservedSubscriber { status, expire_after: DAY, ..observed("uid", 1) });
        let mut paused = || {
            roster.publish(&key("s"), &SpecVersion::new("uid", 1), suspended(), DAY);
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                LaneUpdate::Paused { until, .. } => Some(until),
                _ => None,
            })
        };
        let first = paused().unwrap();
        assert!(first <= Instant::now() + DAY);
        assert_eq!(paused(), Some(first), "a later pass does not extend the pause");
        assert_eq!(roster.held(&key("s"), &SpecVersion::new("uid", 1)), Some(HeldBack::Paused));
    }

    #[test]
    fn a_request_is_held_by_a_new_spec_a_410_a_pause_and_a_closed_lane() {
        let (roster, _updates) = roster();
        let held = |generation| roster.held(&key("s"), &SpecVersion::new("uid", generation));
        let open = |generation| {
            let version = SpecVersion::new("uid", generation);
            roster.publish(&key("s"), &version, Ok(route(version.clone())), DAY);
        };
        assert_eq!(held(1), Some(HeldBack::Changed), "there is no such Subscriber");
        roster.upsert(key("s"), observed("uid", 1));
        assert_eq!(held(1), Some(HeldBack::Closed));
        open(1);
        assert_eq!(held(1), None);
        roster.pause(
            &key("s"),
            &SpecVersion::new("uid", 1),
            Timestamp::now() + Duration::from_secs(60),
            Duration::from_secs(60),
        );
        assert_eq!(held(1), Some(HeldBack::Paused));
        roster.note_gone(&key("s"), &SpecVersion::new("uid", 1));
        assert_eq!(held(1), Some(HeldBack::Gone));
        roster.upsert(key("s"), observed("uid", 2));
        assert_eq!(held(1), Some(HeldBack::Changed));
        roster.upsert(key("s"), observed("another", 1));
        assert_eq!(held(1), Some(HeldBack::Changed));
    }

    /// The names of the updates of a Subscriber, in order.
    fn sent(updates: &mut mpsc::UnboundedReceiver<LaneUpdate>) -> Vec<String> {
        let name = |update| match update {
            LaneUpdate::Open { .. } => "open".to_owned(),
            LaneUpdate::Closed { gate, .. } => format!("{gate:?}"),
            LaneUpdate::Paused { .. } => "paused".to_owned(),
            LaneUpdate::Reset { .. } => "reset".to_owned(),
            LaneUpdate::Listed(_) => "listed".to_owned(),
            LaneUpdate::RejectsAll { .. } => "rejects all".to_owned(),
            LaneUpdate::Owned(_) => "owned".to_owned(),
        };
        std::iter::from_fn(|| updates.try_recv().ok()).map(name).collect()
    }

    #[test]
    fn a_reconcile_that_began_before_a_410_opens_nothing_and_a_request_resets_before_it_opens() {
        let (roster, mut updates) = roster();
        let (key, version) = (key("s"), spec("uid"));
        exists(&roster, key.clone(), "uid".into());
        assert!(!roster.begin(&key, &version, None).unwrap().changed);
        roster.note_gone(&key, &version);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(sent(&mut updates), ["reset", "SubscriberNotReady", "EndpointGone"]);
        assert_eq!(roster.held(&key, &version), Some(HeldBack::Gone));
        assert!(roster.begin(&key, &version, Some("1".into())).unwrap().requested);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        let minute = Duration::from_secs(60);
        roster.pause(&key, &version, Timestamp::now() + minute, minute);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(sent(&mut updates), ["reset", "open", "paused", "open", "paused"]);
    }

    #[test]
    fn a_report_of_a_version_that_is_not_in_force_changes_nothing() {
        let (roster, mut updates) = roster();
        let version = |generation| SpecVersion::new("uid", generation);
        roster.upsert(key("s"), observed("uid", 2));
        roster.begin(&key("s"), &version(2), None);
        sent(&mut updates);
        let minute = Duration::from_secs(60);
        for stale in [version(1), version(3), spec("another")] {
            roster.pause(&key("s"), &stale, Timestamp::now() + minute, minute);
            roster.note_gone(&key("s"), &stale);
        }
        assert_eq!(sent(&mut updates), [""; 0]);
        assert_eq!(roster.held(&key("s"), &version(2)), Some(HeldBack::Closed));
        roster.pause(&key("s"), &version(2), Timestamp::now() + minute, minute);
        assert_eq!(sent(&mut updates), ["paused"]);
    }

    #[test]
    fn a_changed_secret_finds_the_subscribers_that_name_it() {
        let (roster, _updates) = roster();
        exists(&roster, key("s"), "1".into());
        roster.set_references(&key("s"), "1", HashSet::from([Reference::Secret("oauth".into())]));
        assert_eq!(roster.referrers("a", &Reference::Secret("oauth".into())), [key("s")]);
        assert!(roster.referrers("b", &Reference::Secret("oauth".into())).is_empty());
        assert!(roster.referrers("a", &Reference::ConfigMap("oauth".into())).is_empty());
    }

    #[test]
    fn the_index_of_references_follows_each_change_and_keeps_nothing_of_deleted_subscribers() {
        let (roster, _updates) = roster();
        let secret = |name: &str| Reference::Secret(name.into());
        let any = |_: &Reference| true;
        exists(&roster, key("s"), "1".into());
        exists(&roster, key("t"), "2".into());
        roster.set_references(&key("s"), "1", HashSet::from([secret("old"), secret("both")]));
        roster.set_references(&key("t"), "2", HashSet::from([secret("both")]));
        roster.set_references(&key("s"), "1", HashSet::from([secret("new"), secret("both")]));
        roster.set_references(&key("s"), "0", HashSet::from([secret("old")]));
        assert!(roster.referrers("a", &secret("old")).is_empty());
        assert_eq!(roster.referrers("a", &secret("new")), [key("s")]);
        assert_eq!(roster.referrers("a", &secret("both")).len(), 2);
        let shown = HashSet::from([("a".to_owned(), secret("both"))]);
        assert_eq!(roster.dangling(Some("a"), any, &shown), HashSet::from([key("s")]));
        assert_eq!(roster.dangling(None, any, &shown), HashSet::from([key("s")]));
        assert!(roster.dangling(Some("b"), any, &shown).is_empty());
        exists(&roster, key("s"), "another".into());
        assert!(roster.referrers("a", &secret("new")).is_empty());
        roster.remove(&key("t"));
        assert!(roster.lock().referrers.is_empty());
    }

    #[test]
    fn a_subscriber_that_was_removed_is_noted_once_unless_another_one_has_its_name() {
        let (roster, _updates) = roster();
        for name in ["s", "t"] {
            exists(&roster, key(name), "1".into());
            roster.remove(&key(name));
        }
        exists(&roster, key("t"), "2".into());
        assert_eq!(roster.take_disturbed(), (Vec::new(), vec![key("s")]));
        assert_eq!(roster.take_disturbed(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_gone_webhook_is_gone_for_its_spec_alone() {
        let (roster, _updates) = roster();
        exists(&roster, key("s"), "1".into());
        roster.note_gone(&key("s"), &spec("1"));
        assert!(roster.is_gone(&key("s"), &spec("1")));
        assert!(!roster.is_gone(&key("s"), &SpecVersion::new("1", 2)));
        roster.note_gone(&key("s"), &SpecVersion::new("1", 0));
        assert!(roster.is_gone(&key("s"), &spec("1")), "a late response to an older spec");
        exists(&roster, key("s"), "2".into());
        assert!(!roster.is_gone(&key("s"), &spec("1")), "another Subscriber of that name");
    }
}
