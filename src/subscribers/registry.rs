//! Which Subscribers exist, what they refer to, and whether their Notifications may go.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::SubscriberStatus;
use tidings_delivery::oauth::TokenSource;
use tidings_queue::{Gate, SpecVersion, SubscriberKey};
use tokio::sync::mpsc;

use super::{
    Step, Unanswered, Written,
    marks::{Cause, Marks},
    page::Page,
    referrers::{Reference, Referrers},
    standing::{Begun, Held, Seen, Standing},
};
use crate::contract::{Route, Update, open};

/// What the watch, the reconciler and delivery know together, under one lock, so that a Subscriber that was deleted or
/// is gone is never opened by a reconcile that began before.
pub struct Registry {
    known: Mutex<Known>,
    /// An update is sent under the lock: the engine gets them in the order in which what is known changed.
    updates: mpsc::UnboundedSender<Update>,
    marks: Marks,
}

#[derive(Default)]
struct Known {
    subscribers: HashMap<SubscriberKey, Standing>,
    referrers: Referrers,
    /// Those whose status others wrote over.
    overwritten: HashSet<SubscriberKey>,
}

impl Known {
    /// The Subscriber refers to these from now on.
    fn refer(&mut self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        let Some(standing) = self.subscribers.get_mut(key).filter(|standing| **standing.uid() == *uid) else { return };
        let before = standing.set_references(references.clone());
        self.referrers.unlink(key, before.difference(&references));
        self.referrers.link(key, references);
    }

    /// The Subscriber of this name, and all that is known of it, is no more.
    fn forget(&mut self, key: &SubscriberKey) {
        if let Some(standing) = self.subscribers.remove(key) {
            self.referrers.unlink(key, standing.references());
        }
        self.overwritten.remove(key);
    }
}

impl Registry {
    /// A registry that sends its updates there.
    pub fn new(updates: mpsc::UnboundedSender<Update>) -> Self {
        Self { known: Mutex::default(), updates, marks: Marks::default() }
    }

    /// The watch shows this Subscriber. A new one, and a new spec, are not ready before their reconcile has ended; the
    /// queue learns at once after what time Notifications expire.
    pub fn exists(&self, key: SubscriberKey, seen: Seen) {
        let closed = |version| Update::Closed {
            of: key.clone(),
            version,
            gate: Gate::SubscriberNotReady,
            lifetime: Some(seen.expire_after),
        };
        let mut known = self.lock();
        let Some(standing) = known.subscribers.get_mut(&key).filter(|standing| *standing.uid() == seen.spec.uid) else {
            known.forget(&key);
            self.send(Update::Reset { of: key.clone() });
            self.send(closed(None));
            known.subscribers.insert(key, Standing::new(seen));
            return;
        };
        if standing.is_renewed(seen.spec.generation, seen.expire_after) {
            self.send(closed(Some(seen.spec.clone())));
        }
        drop(known);
        self.shown(&key, &seen.spec.uid, seen.status, seen.version);
    }

    /// The API server has this status of a Subscriber that is known.
    pub fn shown(&self, key: &SubscriberKey, uid: &str, status: SubscriberStatus, version: u64) {
        let shown = self.with(key, uid, |standing| {
            let has_pause = standing.page_mut().shown(status, version);
            if let Some(until) = standing.pause_end(Instant::now(), Timestamp::now()).filter(|_| has_pause) {
                self.send(Update::Paused { of: key.clone(), until });
            }
            (has_pause, standing.page().is_behind())
        });
        if let Some((_, true)) = shown {
            self.lock().overwritten.insert(key.clone());
        }
        if let Some((true, _)) = shown {
            // The look tells the queue of the pause that another operator was asked for.
            self.mark(key, Cause::Change);
        }
    }

    /// The watch shows that this Subscriber is not there any more.
    pub fn deleted(&self, key: &SubscriberKey) {
        let mut known = self.lock();
        known.forget(key);
        self.send(Update::Reset { of: key.clone() });
        let gate = Gate::SubscriberNotFound;
        self.send(Update::Closed { of: key.clone(), version: None, gate, lifetime: None });
    }

    /// A listing of `namespace` (None: of all) is complete: what is not known now is not there.
    pub fn listed(&self, namespace: Option<&str>) {
        let _known = self.lock();
        self.send(Update::Listed(namespace.map(Into::into)));
    }

    /// The reconciler's answer for a spec: the way, or the gate that closes it. Dropped when the Subscriber was deleted
    /// meanwhile, closed when its webhook is gone. No pause is believed beyond `expire_after`.
    pub fn publish(
        &self,
        key: &SubscriberKey,
        spec: &SpecVersion,
        way: Result<Arc<Route>, Gate>,
        expire_after: Duration,
    ) {
        self.with(key, &spec.uid, |standing| {
            let way = standing.decide(spec, way, expire_after);
            if standing.take_reset() {
                self.send(Update::Reset { of: key.clone() });
            }
            self.send(match way {
                Ok(route) => open(key.clone(), route),
                Err(gate) => closed(key, spec, gate, expire_after),
            });
            if let Some(until) = standing.pause_end(Instant::now(), Timestamp::now()) {
                self.send(Update::Paused { of: key.clone(), until });
            }
        });
    }

    /// The webhook of this spec answered 410.
    pub fn mark_gone(&self, key: &SubscriberKey, spec: &SpecVersion) {
        self.with(key, &spec.uid, |standing| standing.note_gone(spec));
    }

    /// Whether the webhook of this spec answered 410.
    pub fn is_gone(&self, key: &SubscriberKey, spec: &SpecVersion) -> bool {
        self.with(key, &spec.uid, |standing| standing.is_gone(spec)).unwrap_or(false)
    }

    /// What forbids a request to the webhook of this spec now, whatever a reconcile found before.
    pub fn held(&self, key: &SubscriberKey, spec: &SpecVersion) -> Option<Held> {
        let held = self.with(key, &spec.uid, |standing| standing.held(spec, Instant::now()));
        held.unwrap_or(Some(Held::Changed))
    }

    /// A look at this spec begins ([`Standing::begin`]); None: the Subscriber is not there any more.
    pub fn begin(&self, key: &SubscriberKey, spec: &SpecVersion, request: Option<String>) -> Option<Begun> {
        self.with(key, &spec.uid, |standing| standing.begin(spec, request))
    }

    /// The webhook of this spec asked to be left alone until `until`, that is for `wait`.
    pub fn pause(&self, key: &SubscriberKey, spec: &SpecVersion, until: Timestamp, wait: Duration) {
        self.with(key, &spec.uid, |standing| {
            if let Some(until) = standing.pause(spec, until, wait, Instant::now()) {
                self.send(Update::Paused { of: key.clone(), until });
            }
        });
    }

    /// Nothing of this Subscriber goes until the look that begins is over.
    pub fn close(&self, key: &SubscriberKey, spec: &SpecVersion, expire_after: Duration) {
        self.with(key, &spec.uid, |standing| {
            standing.close();
            self.send(closed(key, spec, Gate::SubscriberNotReady, expire_after));
        });
    }

    /// Holds the Subscriber's source of tokens.
    pub fn holds(&self, key: &SubscriberKey, uid: &str, tokens: Arc<TokenSource>) {
        self.with(key, uid, |standing| standing.set_tokens(tokens));
    }

    /// Whether, and when, the webhook's consent was asked for without an answer.
    pub fn unanswered(&self, key: &SubscriberKey, uid: &str) -> Option<Unanswered> {
        self.with(key, uid, |standing| standing.unanswered()).flatten()
    }

    /// The webhook's consent was asked for, without an answer or (None) with one.
    pub fn asked(&self, key: &SubscriberKey, uid: &str, unanswered: Option<Unanswered>) {
        self.with(key, uid, |standing| standing.set_unanswered(unanswered));
    }

    /// What to do with the status of the Subscriber with this uid; None: it is not there any more.
    pub fn page<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Page) -> T) -> Option<T> {
        self.with(key, uid, |standing| then(standing.page_mut()))
    }

    /// What the Subscriber refers to now.
    pub fn refers_to(&self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        self.lock().refer(key, uid, references);
    }

    /// The Subscribers that refer to an object in `namespace`.
    pub fn referrers(&self, namespace: &str, reference: &Reference) -> Vec<SubscriberKey> {
        self.lock().referrers.of(namespace, reference)
    }

    /// The Subscribers in `namespace` (None: in all) that refer to an object of a kind which a listing did not show.
    pub fn dangling(
        &self,
        namespace: Option<&str>,
        of_kind: impl Fn(&Reference) -> bool,
        shown: &HashSet<(String, Reference)>,
    ) -> HashSet<SubscriberKey> {
        self.lock().referrers.dangling(namespace, of_kind, shown)
    }

    /// The look at this Subscriber is at this step; None: it is over.
    pub fn at_step(&self, key: &SubscriberKey, uid: &str, step: Option<Step>) {
        self.with(key, uid, |standing| standing.set_step(step));
    }

    /// Which step the look at this Subscriber is at.
    pub fn step(&self, key: &SubscriberKey, uid: &str) -> Option<Step> {
        self.with(key, uid, |standing| standing.step()).flatten()
    }

    /// Delivery found this Subscriber in trouble: its reconciler should look at it again.
    pub fn look_again(&self, key: &SubscriberKey) {
        self.mark(key, Cause::Trouble);
    }

    /// The Subscriber is to be looked at again.
    pub fn mark(&self, key: &SubscriberKey, cause: Cause) {
        self.marks.add(key, cause);
    }

    /// Waits until Subscribers are to be looked at again, and returns which. Loses none when it is dropped.
    pub async fn marked(&self) -> Vec<(SubscriberKey, Cause)> {
        self.marks.taken().await
    }

    /// The Subscribers, with their uids, whose status others wrote over since the last call.
    pub fn overwritten(&self) -> Vec<(SubscriberKey, Arc<str>)> {
        let mut known = self.lock();
        let keys = std::mem::take(&mut known.overwritten);
        let uid = |key: &SubscriberKey| known.subscribers.get(key).map(|standing| standing.uid().clone());
        keys.into_iter().filter_map(|key| uid(&key).map(|uid| (key, uid))).collect()
    }

    /// The statuses of these, as they are written.
    pub fn pages(&self, of: &[(SubscriberKey, Arc<str>)]) -> Vec<Written> {
        let known = self.lock();
        let written = of.iter().filter_map(|(key, uid)| {
            let page = known.subscribers.get(key).filter(|standing| standing.uid() == uid)?.page();
            let (key, uid, status) = (key.clone(), uid.clone(), page.written().clone());
            Some(Written { key, uid, status, is_behind: page.is_behind() })
        });
        written.collect()
    }

    /// Whatever there is to do, under the lock, with the Subscriber of this uid, if it is still there.
    fn with<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Standing) -> T) -> Option<T> {
        self.lock().subscribers.get_mut(key).filter(|standing| **standing.uid() == *uid).map(then)
    }

    /// Only under the lock.
    fn send(&self, update: Update) {
        // The engine ends first at shutdown; nobody needs the news then.
        let _ = self.updates.send(update);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(key: &SubscriberKey, spec: &SpecVersion, gate: Gate, lifetime: Duration) -> Update {
    Update::Closed { of: key.clone(), version: Some(spec.clone()), gate, lifetime: Some(lifetime) }
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

    fn seen(uid: &str, generation: i64) -> Seen {
        let spec = SpecVersion::new(uid, generation);
        Seen { spec, expire_after: 7 * DAY, status: SubscriberStatus::default(), version: 1 }
    }

    fn spec(uid: &str) -> SpecVersion {
        SpecVersion::new(uid, 1)
    }

    fn suspended() -> Result<Arc<Route>, Gate> {
        Err(Gate::Suspended)
    }

    fn registry() -> (Registry, mpsc::UnboundedReceiver<Update>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Registry::new(sender), receiver)
    }

    fn exists(registry: &Registry, key: SubscriberKey, uid: String) {
        registry.exists(key, seen(&uid, 1));
    }

    /// The gates told so far, by the Subscriber's name.
    fn told(updates: &mut mpsc::UnboundedReceiver<Update>) -> Vec<(String, Gate)> {
        let gate = |update| match update {
            Update::Closed { of, gate, .. } => Some((of.name.to_string(), gate)),
            _ => None,
        };
        std::iter::from_fn(|| updates.try_recv().ok()).filter_map(gate).collect()
    }

    #[test]
    fn a_reconcile_that_outlives_its_subscriber_changes_nothing() {
        let (registry, mut updates) = registry();
        exists(&registry, key("s"), "uid-1".into());
        registry.deleted(&key("s"));
        assert_eq!(
            told(&mut updates),
            [("s".into(), Gate::SubscriberNotReady), ("s".into(), Gate::SubscriberNotFound)]
        );
        registry.publish(&key("s"), &spec("uid-1"), suspended(), DAY);
        exists(&registry, key("s"), "uid-2".into());
        registry.publish(&key("s"), &spec("uid-1"), suspended(), DAY);
        assert_eq!(told(&mut updates), [("s".into(), Gate::SubscriberNotReady)]);
        registry.publish(&key("s"), &spec("uid-2"), suspended(), DAY);
        assert_eq!(told(&mut updates), [("s".into(), Gate::Suspended)]);
    }

    #[test]
    fn the_queue_learns_when_notifications_expire_with_the_listing_and_with_a_new_spec() {
        let (registry, mut updates) = registry();
        let mut learned = || {
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                Update::Closed { version, lifetime, .. } => Some((version, lifetime)),
                _ => None,
            })
        };
        registry.exists(key("s"), seen("uid", 1));
        assert_eq!(learned(), Some((None, Some(7 * DAY))));
        registry.exists(key("s"), Seen { expire_after: DAY, ..seen("uid", 2) });
        assert_eq!(learned(), Some((Some(SpecVersion::new("uid", 2)), Some(DAY))));
        registry.exists(key("s"), Seen { expire_after: DAY, ..seen("uid", 2) });
        assert_eq!(learned(), None, "the same spec again");
        registry.deleted(&key("s"));
        assert_eq!(learned(), Some((None, None)), "no Subscriber, so nothing to expire by");
    }

    #[test]
    fn a_pause_of_a_wrong_clock_is_believed_up_to_the_expiry_from_when_it_is_first_read() {
        let (registry, mut updates) = registry();
        let far = Timestamp::now() + 365 * DAY;
        let status = SubscriberStatus { paused_until_time: Some(Time(far)), ..SubscriberStatus::default() };
        registry.exists(key("s"), Seen { status, expire_after: DAY, ..seen("uid", 1) });
        let mut paused = || {
            registry.publish(&key("s"), &SpecVersion::new("uid", 1), suspended(), DAY);
            std::iter::from_fn(|| updates.try_recv().ok()).find_map(|update| match update {
                Update::Paused { until, .. } => Some(until),
                _ => None,
            })
        };
        let first = paused().unwrap();
        assert!(first <= Instant::now() + DAY);
        assert_eq!(paused(), Some(first), "a later look does not make it longer");
        assert_eq!(registry.held(&key("s"), &SpecVersion::new("uid", 1)), Some(Held::Paused));
    }

    #[test]
    fn a_request_is_held_by_a_new_spec_a_410_a_pause_and_a_closed_way() {
        let (registry, _updates) = registry();
        let held = |generation| registry.held(&key("s"), &SpecVersion::new("uid", generation));
        let open = |generation| {
            let version = SpecVersion::new("uid", generation);
            registry.publish(&key("s"), &version, Ok(route(version.clone())), DAY);
        };
        assert_eq!(held(1), Some(Held::Changed), "there is none");
        registry.exists(key("s"), seen("uid", 1));
        assert_eq!(held(1), Some(Held::Closed));
        open(1);
        assert_eq!(held(1), None);
        registry.pause(
            &key("s"),
            &SpecVersion::new("uid", 1),
            Timestamp::now() + Duration::from_secs(60),
            Duration::from_secs(60),
        );
        assert_eq!(held(1), Some(Held::Paused));
        registry.mark_gone(&key("s"), &SpecVersion::new("uid", 1));
        assert_eq!(held(1), Some(Held::Gone));
        registry.exists(key("s"), seen("uid", 2));
        assert_eq!(held(1), Some(Held::Changed));
        registry.exists(key("s"), seen("another", 1));
        assert_eq!(held(1), Some(Held::Changed));
    }

    /// What the updates of a Subscriber say, in their order.
    fn said(updates: &mut mpsc::UnboundedReceiver<Update>) -> Vec<String> {
        let word = |update| match update {
            Update::Open { .. } => "open".to_owned(),
            Update::Closed { gate, .. } => format!("{gate:?}"),
            Update::Paused { .. } => "paused".to_owned(),
            Update::Reset { .. } => "reset".to_owned(),
            Update::Listed(_) => "listed".to_owned(),
            Update::Owned(_) => "owned".to_owned(),
        };
        std::iter::from_fn(|| updates.try_recv().ok()).map(word).collect()
    }

    #[test]
    fn a_reconcile_that_began_before_a_410_opens_nothing_and_a_request_resets_before_it_opens() {
        let (registry, mut updates) = registry();
        let (key, version) = (key("s"), spec("uid"));
        exists(&registry, key.clone(), "uid".into());
        assert!(!registry.begin(&key, &version, None).unwrap().changed);
        registry.mark_gone(&key, &version);
        registry.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(said(&mut updates), ["reset", "SubscriberNotReady", "EndpointGone"]);
        assert_eq!(registry.held(&key, &version), Some(Held::Gone));
        assert!(registry.begin(&key, &version, Some("1".into())).unwrap().requested);
        registry.publish(&key, &version, Ok(route(version.clone())), DAY);
        let minute = Duration::from_secs(60);
        registry.pause(&key, &version, Timestamp::now() + minute, minute);
        registry.publish(&key, &version, Ok(route(version.clone())), DAY);
        assert_eq!(said(&mut updates), ["reset", "open", "paused", "open", "paused"]);
    }

    #[test]
    fn a_report_of_a_version_that_is_not_in_force_changes_nothing() {
        let (registry, mut updates) = registry();
        let version = |generation| SpecVersion::new("uid", generation);
        registry.exists(key("s"), seen("uid", 2));
        registry.begin(&key("s"), &version(2), None);
        said(&mut updates);
        let minute = Duration::from_secs(60);
        for stale in [version(1), version(3), spec("another")] {
            registry.pause(&key("s"), &stale, Timestamp::now() + minute, minute);
            registry.mark_gone(&key("s"), &stale);
        }
        assert_eq!(said(&mut updates), [""; 0]);
        assert_eq!(registry.held(&key("s"), &version(2)), Some(Held::Closed));
        registry.pause(&key("s"), &version(2), Timestamp::now() + minute, minute);
        assert_eq!(said(&mut updates), ["paused"]);
    }

    #[test]
    fn a_changed_secret_finds_those_that_name_it() {
        let (registry, _updates) = registry();
        exists(&registry, key("s"), "1".into());
        registry.refers_to(&key("s"), "1", HashSet::from([Reference::Secret("oauth".into())]));
        assert_eq!(registry.referrers("a", &Reference::Secret("oauth".into())), [key("s")]);
        assert!(registry.referrers("b", &Reference::Secret("oauth".into())).is_empty());
        assert!(registry.referrers("a", &Reference::ConfigMap("oauth".into())).is_empty());
    }

    #[test]
    fn the_index_of_references_follows_each_change_and_keeps_nothing_of_what_is_gone() {
        let (registry, _updates) = registry();
        let secret = |name: &str| Reference::Secret(name.into());
        let any = |_: &Reference| true;
        exists(&registry, key("s"), "1".into());
        exists(&registry, key("t"), "2".into());
        registry.refers_to(&key("s"), "1", HashSet::from([secret("old"), secret("both")]));
        registry.refers_to(&key("t"), "2", HashSet::from([secret("both")]));
        registry.refers_to(&key("s"), "1", HashSet::from([secret("new"), secret("both")]));
        registry.refers_to(&key("s"), "0", HashSet::from([secret("old")]));
        assert!(registry.referrers("a", &secret("old")).is_empty());
        assert_eq!(registry.referrers("a", &secret("new")), [key("s")]);
        assert_eq!(registry.referrers("a", &secret("both")).len(), 2);
        let shown = HashSet::from([("a".to_owned(), secret("both"))]);
        assert_eq!(registry.dangling(Some("a"), any, &shown), HashSet::from([key("s")]));
        assert_eq!(registry.dangling(None, any, &shown), HashSet::from([key("s")]));
        assert!(registry.dangling(Some("b"), any, &shown).is_empty());
        exists(&registry, key("s"), "another".into());
        assert!(registry.referrers("a", &secret("new")).is_empty());
        registry.deleted(&key("t"));
        assert!(registry.lock().referrers.is_empty());
    }

    #[test]
    fn a_gone_webhook_is_gone_for_its_spec_alone() {
        let (registry, _updates) = registry();
        exists(&registry, key("s"), "1".into());
        registry.mark_gone(&key("s"), &spec("1"));
        assert!(registry.is_gone(&key("s"), &spec("1")));
        assert!(!registry.is_gone(&key("s"), &SpecVersion::new("1", 2)));
        registry.mark_gone(&key("s"), &SpecVersion::new("1", 0));
        assert!(registry.is_gone(&key("s"), &spec("1")), "a late answer to an older spec");
        exists(&registry, key("s"), "2".into());
        assert!(!registry.is_gone(&key("s"), &spec("1")), "another Subscriber of that name");
    }
}
