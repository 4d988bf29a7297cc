//! Which Subscribers exist, what they refer to, and whether their Notifications may go.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::SubscriberStatus;
use tidings_delivery::oauth::TokenSource;
use tidings_queue::{Gate, SpecVersion, SubscriberKey};
use tokio::sync::mpsc;

use super::{
    health_board::StoredStatus,
    member::{Begun, HeldBack, Member, ObservedSubscriber},
    reconcile_requests::{ReconcileCause, ReconcileRequests},
    referrers::{Reference, Referrers},
    status_cell::StatusCell,
    step::Step,
    validation::FailedValidation,
};
use crate::contract::{LaneUpdate, Route, open};

/// What the watch, the reconciler and the engine's reports say of each Subscriber, together, so that a Subscriber that was
/// deleted or is gone is never opened by a reconcile that began before.
///
/// All of it is under one lock. Under the lock, memory is changed and updates are sent, on a channel that never waits. Nothing
/// is awaited there, and no other lock is taken; what [`Roster::cell`] is given only computes. Who writes a status holds the
/// turn of its page ([`StatusCell::turn`]) and takes the lock for moments meanwhile: first the turn, then the lock. The marks have a
/// lock of their own, taken when this one is free.
pub(super) struct Roster {
    known: Mutex<Known>,
    /// An update is sent under the lock: the engine gets them in the order in which what is known changed.
    updates: mpsc::UnboundedSender<LaneUpdate>,
    reconcile_requests: ReconcileRequests,
}

#[derive(Default)]
struct Known {
    subscribers: HashMap<SubscriberKey, Member>,
    referrers: Referrers,
    /// Those whose status others wrote over.
    overwritten: HashSet<SubscriberKey>,
    /// Those that are not there any more, until that is noted.
    removed: Vec<SubscriberKey>,
}

impl Known {
    /// The Subscriber refers to these from now on.
    fn refer(&mut self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        let Some(member) = self.subscribers.get_mut(key).filter(|member| **member.uid() == *uid) else { return };
        let before = member.set_references(references.clone());
        self.referrers.unlink(key, before.difference(&references));
        self.referrers.link(key, references);
    }

    /// The Subscriber of this name, and all that is known of it, is no more.
    fn forget(&mut self, key: &SubscriberKey) {
        if let Some(member) = self.subscribers.remove(key) {
            self.referrers.unlink(key, member.references());
            self.removed.push(key.clone());
        }
        self.overwritten.remove(key);
    }
}

impl Roster {
    /// A roster that sends its updates there.
    pub(super) fn new(updates: mpsc::UnboundedSender<LaneUpdate>) -> Self {
        Self { known: Mutex::default(), updates, reconcile_requests: ReconcileRequests::default() }
    }

    /// The watch shows this Subscriber. A new one, and a new spec, are not ready before their reconcile has ended; the
    /// queue learns at once after what time Notifications expire.
    pub(super) fn upsert(&self, key: SubscriberKey, seen: ObservedSubscriber) {
        let lifetime = Some(seen.expire_after);
        let mut known = self.lock();
        let Some(member) = known.subscribers.get_mut(&key).filter(|member| *member.uid() == seen.spec.uid) else {
            known.forget(&key);
            self.send(LaneUpdate::Reset { of: key.clone() });
            self.send(closed(&key, None, Gate::SubscriberNotReady, lifetime));
            known.subscribers.insert(key, Member::new(seen));
            return;
        };
        if member.renew(seen.spec.generation, seen.expire_after) {
            self.send(closed(&key, Some(&seen.spec), Gate::SubscriberNotReady, lifetime));
        }
        drop(known);
        self.merge_stored(&key, &seen.spec.uid, seen.status, seen.version);
    }

    /// The API server has this status of a Subscriber that is known.
    pub(super) fn merge_stored(&self, key: &SubscriberKey, uid: &str, status: SubscriberStatus, version: u64) {
        let observe = self.with(key, uid, |member| {
            let has_pause = member.cell_mut().observe(status, version);
            if let Some(until) = member.pause_end(Instant::now(), Timestamp::now()).filter(|_| has_pause) {
                self.send(LaneUpdate::Paused { of: key.clone(), until });
            }
            (has_pause, member.cell().is_behind())
        });
        if let Some((_, true)) = observe {
            self.lock().overwritten.insert(key.clone());
        }
        if let Some((true, _)) = observe {
            // The reconcile lets the engine know of the pause that another operator obeyed.
            self.mark(key, ReconcileCause::Change);
        }
    }

    /// The watch shows that this Subscriber is not there any more.
    pub(super) fn remove(&self, key: &SubscriberKey) {
        let mut known = self.lock();
        known.forget(key);
        self.send(LaneUpdate::Reset { of: key.clone() });
        self.send(closed(key, None, Gate::SubscriberNotFound, None));
    }

    /// A listing of `namespace` (None: of all) is complete: what is not known now is not there.
    pub(super) fn note_listed(&self, namespace: Option<&str>) {
        let _known = self.lock();
        self.send(LaneUpdate::Listed(namespace.map(Into::into)));
    }

    /// The reconciler's answer for a spec: the way, or the gate that closes it. Dropped when the Subscriber was deleted
    /// meanwhile, closed when its webhook is gone. No pause is believed beyond `expire_after`.
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

    /// The webhook of this spec answered 410. A pass that did not know of it may have opened the lane in the meantime: the lane closes.
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

    /// What forbids a request to the webhook of this spec now, whatever a reconcile found before.
    pub(super) fn held(&self, key: &SubscriberKey, spec: &SpecVersion) -> Option<HeldBack> {
        let held = self.with(key, &spec.uid, |member| member.held(spec, Instant::now()));
        held.unwrap_or(Some(HeldBack::Changed))
    }

    /// A pass over this spec begins ([`Member::begin`]); None: the Subscriber is not there any more.
    pub(super) fn begin(&self, key: &SubscriberKey, spec: &SpecVersion, request: Option<String>) -> Option<Begun> {
        self.with(key, &spec.uid, |member| member.begin(spec, request))
    }

    /// The webhook of this spec requests a pause until `until`, that is for `wait`.
    pub(super) fn pause(&self, key: &SubscriberKey, spec: &SpecVersion, until: Timestamp, wait: Duration) {
        self.with(key, &spec.uid, |member| {
            if let Some(until) = member.pause(spec, until, wait, Instant::now()) {
                self.send(LaneUpdate::Paused { of: key.clone(), until });
            }
        });
    }

    /// Nothing of this Subscriber is sent until the pass that begins is over.
    pub(super) fn close(&self, key: &SubscriberKey, spec: &SpecVersion, expire_after: Duration) {
        self.with(key, &spec.uid, |member| {
            member.close();
            self.send(closed(key, Some(spec), Gate::SubscriberNotReady, Some(expire_after)));
        });
    }

    /// Holds the Subscriber's source of tokens.
    pub(super) fn set_tokens(&self, key: &SubscriberKey, uid: &str, tokens: Arc<TokenSource>) {
        self.with(key, uid, |member| member.set_tokens(tokens));
    }

    /// The last request for the webhook's consent, if there was no answer.
    pub(super) fn failed_validation(&self, key: &SubscriberKey, uid: &str) -> Option<FailedValidation> {
        self.with(key, uid, |member| member.failed_validation()).flatten()
    }

    /// A request for the webhook's consent had no answer, or (None) it had one.
    pub(super) fn set_failed_validation(
        &self,
        key: &SubscriberKey,
        uid: &str,
        failed_validation: Option<FailedValidation>,
    ) {
        self.with(key, uid, |member| member.set_failed_validation(failed_validation));
    }

    /// What to do with the status of the Subscriber with this uid; None: it is not there any more.
    pub(super) fn cell<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut StatusCell) -> T) -> Option<T> {
        self.with(key, uid, |member| then(member.cell_mut()))
    }

    /// What the Subscriber refers to now.
    pub(super) fn set_references(&self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        self.lock().refer(key, uid, references);
    }

    /// The Subscribers that refer to an object in `namespace`.
    pub(super) fn referrers(&self, namespace: &str, reference: &Reference) -> Vec<SubscriberKey> {
        self.lock().referrers.of(namespace, reference)
    }

    /// The Subscribers in `namespace` (None: in all) that refer to an object of a kind which a listing did not show.
    pub(super) fn dangling(
        &self,
        namespace: Option<&str>,
        of_kind: impl Fn(&Reference) -> bool,
        observe: &HashSet<(String, Reference)>,
    ) -> HashSet<SubscriberKey> {
        self.lock().referrers.dangling(namespace, of_kind, observe)
    }

    /// The pass over this Subscriber is at this step; None: it is over.
    pub(super) fn set_step(&self, key: &SubscriberKey, uid: &str, step: Option<Step>) {
        self.with(key, uid, |member| member.set_step(step));
    }

    /// Which step the pass over this Subscriber is at.
    pub(super) fn step(&self, key: &SubscriberKey, uid: &str) -> Option<Step> {
        self.with(key, uid, |member| member.step()).flatten()
    }

    /// The Subscriber is to be reconciled again.
    pub(super) fn mark(&self, key: &SubscriberKey, cause: ReconcileCause) {
        self.reconcile_requests.add(key, cause);
    }

    /// Waits until Subscribers are to be reconciled again, and returns which. Loses none when it is dropped.
    pub(super) async fn marked(&self) -> Vec<(SubscriberKey, ReconcileCause)> {
        self.reconcile_requests.taken().await
    }

    /// Since the last call: the Subscribers, with their uids, whose status others wrote over, and those that are not there any
    /// more.
    pub(super) fn take_disturbed(&self) -> (Vec<(SubscriberKey, Arc<str>)>, Vec<SubscriberKey>) {
        let mut known = self.lock();
        let (overwritten, mut removed) = (mem::take(&mut known.overwritten), mem::take(&mut known.removed));
        removed.retain(|key| !known.subscribers.contains_key(key));
        let uid = |key: &SubscriberKey| known.subscribers.get(key).map(|member| member.uid().clone());
        let overwritten = overwritten.into_iter().filter_map(|key| uid(&key).map(|uid| (key, uid)));
        (overwritten.collect(), removed)
    }

    /// The statuses of these, as they are written.
    pub(super) fn stored_statuses(&self, of: &[(SubscriberKey, Arc<str>)]) -> Vec<StoredStatus> {
        let known = self.lock();
        let stored = of.iter().filter_map(|(key, uid)| {
            let cell = known.subscribers.get(key).filter(|member| member.uid() == uid)?.cell();
            let (key, uid, status) = (key.clone(), uid.clone(), cell.stored().clone());
            Some(StoredStatus { key, uid, status, is_behind: cell.is_behind() })
        });
        stored.collect()
    }

    /// Whatever there is to do, under the lock, with the Subscriber of this uid, if it is still there.
    fn with<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Member) -> T) -> Option<T> {
        self.lock().subscribers.get_mut(key).filter(|member| **member.uid() == *uid).map(then)
    }

    /// Only under the lock.
    fn send(&self, update: LaneUpdate) {
        // The engine ends first at shutdown; the update is needed no more.
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

    fn seen(uid: &str, generation: i64) -> ObservedSubscriber {
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
        roster.upsert(key, seen(&uid, 1));
    }

    /// The gates told so far, by the Subscriber's name.
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
    fn the_queue_learns_when_notifications_expire_with_the_listing_and_with_a_new_spec() {
        let (roster, mut updates) = roster();
        let mut learned = || {
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                LaneUpdate::Closed { version, lifetime, .. } => Some((version, lifetime)),
                _ => None,
            })
        };
        roster.upsert(key("s"), seen("uid", 1));
        assert_eq!(learned(), Some((None, Some(7 * DAY))));
        roster.upsert(key("s"), ObservedSubscriber { expire_after: DAY, ..seen("uid", 2) });
        assert_eq!(learned(), Some((Some(SpecVersion::new("uid", 2)), Some(DAY))));
        roster.upsert(key("s"), ObservedSubscriber { expire_after: DAY, ..seen("uid", 2) });
        assert_eq!(learned(), None, "the same spec again");
        roster.remove(&key("s"));
        assert_eq!(learned(), Some((None, None)), "no Subscriber, so nothing to expire by");
    }

    #[test]
    fn a_pause_of_a_wrong_clock_is_believed_up_to_the_expiry_from_when_it_is_first_read() {
        let (roster, mut updates) = roster();
        let far = Timestamp::now() + 365 * DAY;
        let status = SubscriberStatus { paused_until_time: Some(Time(far)), ..SubscriberStatus::default() };
        roster.upsert(key("s"), ObservedSubscriber { status, expire_after: DAY, ..seen("uid", 1) });
        let mut paused = || {
            roster.publish(&key("s"), &SpecVersion::new("uid", 1), suspended(), DAY);
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                LaneUpdate::Paused { until, .. } => Some(until),
                _ => None,
            })
        };
        let first = paused().unwrap();
        assert!(first <= Instant::now() + DAY);
        assert_eq!(paused(), Some(first), "a later look does not make it longer");
        assert_eq!(roster.held(&key("s"), &SpecVersion::new("uid", 1)), Some(HeldBack::Paused));
    }

    #[test]
    fn a_request_is_held_by_a_new_spec_a_410_a_pause_and_a_closed_way() {
        let (roster, _updates) = roster();
        let held = |generation| roster.held(&key("s"), &SpecVersion::new("uid", generation));
        let open = |generation| {
            let version = SpecVersion::new("uid", generation);
            roster.publish(&key("s"), &version, Ok(route(version.clone())), DAY);
        };
        assert_eq!(held(1), Some(HeldBack::Changed), "there is none");
        roster.upsert(key("s"), seen("uid", 1));
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
        roster.upsert(key("s"), seen("uid", 2));
        assert_eq!(held(1), Some(HeldBack::Changed));
        roster.upsert(key("s"), seen("another", 1));
        assert_eq!(held(1), Some(HeldBack::Changed));
    }

    /// What the updates of a Subscriber say, in their order.
    fn said(updates: &mut mpsc::UnboundedReceiver<LaneUpdate>) -> Vec<String> {
        let finding = |update| match update {
            LaneUpdate::Open { .. } => "open".to_owned(),
            LaneUpdate::Closed { gate, .. } => format!("{gate:?}"),
            LaneUpdate::Paused { .. } => "paused".to_owned(),
            LaneUpdate::Reset { .. } => "reset".to_owned(),
            LaneUpdate::Listed(_) => "listed".to_owned(),
            LaneUpdate::Owned(_) => "owned".to_owned(),
        };
        std::iter::from_fn(|| updates.try_recv().ok()).map(finding).collect()
    }

    #[test]
    fn a_reconcile_that_began_before_a_410_opens_nothing_and_a_request_resets_before_it_opens() {
        let (roster, mut updates) = roster();
        let (key, version) = (key("s"), spec("uid"));
        exists(&roster, key.clone(), "uid".into());
        assert!(!roster.begin(&key, &version, None).unwrap().changed);
        roster.note_gone(&key, &version);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(said(&mut updates), ["reset", "SubscriberNotReady", "EndpointGone"]);
        assert_eq!(roster.held(&key, &version), Some(HeldBack::Gone));
        assert!(roster.begin(&key, &version, Some("1".into())).unwrap().requested);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        let minute = Duration::from_secs(60);
        roster.pause(&key, &version, Timestamp::now() + minute, minute);
        roster.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(said(&mut updates), ["reset", "open", "paused", "open", "paused"]);
    }

    #[test]
    fn a_report_of_a_version_that_is_not_in_force_changes_nothing() {
        let (roster, mut updates) = roster();
        let version = |generation| SpecVersion::new("uid", generation);
        roster.upsert(key("s"), seen("uid", 2));
        roster.begin(&key("s"), &version(2), None);
        said(&mut updates);
        let minute = Duration::from_secs(60);
        for stale in [version(1), version(3), spec("another")] {
            roster.pause(&key("s"), &stale, Timestamp::now() + minute, minute);
            roster.note_gone(&key("s"), &stale);
        }
        assert_eq!(said(&mut updates), [""; 0]);
        assert_eq!(roster.held(&key("s"), &version(2)), Some(HeldBack::Closed));
        roster.pause(&key("s"), &version(2), Timestamp::now() + minute, minute);
        assert_eq!(said(&mut updates), ["paused"]);
    }

    #[test]
    fn a_changed_secret_finds_those_that_name_it() {
        let (roster, _updates) = roster();
        exists(&roster, key("s"), "1".into());
        roster.set_references(&key("s"), "1", HashSet::from([Reference::Secret("oauth".into())]));
        assert_eq!(roster.referrers("a", &Reference::Secret("oauth".into())), [key("s")]);
        assert!(roster.referrers("b", &Reference::Secret("oauth".into())).is_empty());
        assert!(roster.referrers("a", &Reference::ConfigMap("oauth".into())).is_empty());
    }

    #[test]
    fn the_index_of_references_follows_each_change_and_keeps_nothing_of_what_is_gone() {
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
        let observe = HashSet::from([("a".to_owned(), secret("both"))]);
        assert_eq!(roster.dangling(Some("a"), any, &observe), HashSet::from([key("s")]));
        assert_eq!(roster.dangling(None, any, &observe), HashSet::from([key("s")]));
        assert!(roster.dangling(Some("b"), any, &observe).is_empty());
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
        assert!(roster.is_gone(&key("s"), &spec("1")), "a late answer to an older spec");
        exists(&roster, key("s"), "2".into());
        assert!(!roster.is_gone(&key("s"), &spec("1")), "another Subscriber of that name");
    }
}
