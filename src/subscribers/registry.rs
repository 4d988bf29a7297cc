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

pub use super::referrers::Reference;
use super::{
    Step, Unanswered, Written,
    marks::{Cause, Marks},
    page::Page,
    referrers::Referrers,
};
pub use crate::contract::{Change, Held, Passage, Seen};

/// How a look at a Subscriber begins.
pub struct Begun {
    /// The status as this process knows it.
    pub status: SubscriberStatus,
    /// The spec is another than that of the look before.
    pub changed: bool,
    /// The spec changed, or somebody asked for a new look: what may be opened is opened.
    pub requested: bool,
}

/// What the watch, the reconciler and delivery know together, under one lock, so that a Subscriber that was deleted or
/// is gone is never opened by a reconcile that began before.
pub struct Registry {
    known: Mutex<Known>,
    changes: mpsc::UnboundedSender<Change>,
    marks: Marks,
}

#[derive(Default)]
struct Known {
    subscribers: HashMap<SubscriberKey, Entry>,
    referrers: Referrers,
    /// Those whose status others wrote over.
    overwritten: HashSet<SubscriberKey>,
}

impl Known {
    /// The Subscriber refers to these from now on.
    fn refer(&mut self, key: &SubscriberKey, uid: &str, references: HashSet<Reference>) {
        let Some(entry) = self.subscribers.get_mut(key).filter(|entry| &*entry.uid == uid) else { return };
        let before = std::mem::replace(&mut entry.references, references.clone());
        self.referrers.unlink(key, before.difference(&references));
        self.referrers.link(key, references);
    }

    /// The Subscriber of this name, and all that is known of it, is no more.
    fn forget(&mut self, key: &SubscriberKey) {
        if let Some(entry) = self.subscribers.remove(key) {
            self.referrers.unlink(key, &entry.references);
        }
        self.overwritten.remove(key);
    }
}

/// What is known of one Subscriber.
struct Entry {
    uid: Arc<str>,
    /// The newest generation that the watch showed.
    generation: i64,
    /// Its `delivery.expireAfterSeconds`: no pause that is read is believed beyond it.
    expire_after: Duration,
    /// Whether the latest reconcile opened the way.
    open: bool,
    /// The end of the pause, as the queue was given it, and the time in the status that it comes from.
    paused_until: Option<Instant>,
    pause_known: Option<Timestamp>,
    /// The generation, and the request for a new look, that the latest look began with.
    begun: Option<i64>,
    request: Option<String>,
    /// What may be opened is to be opened with the next passage.
    reset: bool,
    references: HashSet<Reference>,
    /// The generation whose webhook answered 410.
    gone: Option<i64>,
    /// Held also while the Subscriber is in trouble, so that a failure is remembered until it is time to ask again.
    tokens: Option<Arc<TokenSource>>,
    /// The webhook's consent was asked for without an answer.
    unanswered: Option<Unanswered>,
    /// Which step the look that is under way is at (None: there is none).
    step: Option<Step>,
    page: Page,
}

impl Entry {
    fn new(Seen { spec: SpecVersion { uid, generation }, expire_after, status, version }: Seen) -> Self {
        Self {
            uid,
            generation,
            expire_after,
            open: false,
            paused_until: None,
            pause_known: None,
            begun: None,
            request: None,
            reset: false,
            references: HashSet::new(),
            gone: None,
            tokens: None,
            unanswered: None,
            step: None,
            page: Page::new(status, version),
        }
    }
}

impl Entry {
    /// The end of the pause that the status holds. A time is believed up to the Subscriber's expiry from when it is first
    /// read: the queue and every POST go by this one end, whatever the wall clock does meanwhile.
    fn pause_read(&mut self) -> Option<Instant> {
        let known = self.page.wanted().paused_until_time.as_ref().map(|until| until.0);
        if known != self.pause_known {
            let silence = self.page.silence(self.expire_after, Timestamp::now());
            self.paused_until = self.paused_until.max((!silence.is_zero()).then(|| Instant::now() + silence));
            self.pause_known = known;
        }
        self.paused_until.filter(|until| Instant::now() < *until)
    }
}

impl Registry {
    /// A registry that tells `changes` about every passage.
    pub fn new(changes: mpsc::UnboundedSender<Change>) -> Self {
        Self { known: Mutex::default(), changes, marks: Marks::default() }
    }

    /// The watch shows this Subscriber. A new one, and a new spec, are not ready before their reconcile has ended; the
    /// queue learns at once after what time Notifications expire.
    pub fn exists(&self, key: SubscriberKey, seen: Seen) {
        let closed = Passage::Closed(Gate::SubscriberNotReady, Some(seen.expire_after));
        let mut known = self.lock();
        let Some(entry) = known.subscribers.get_mut(&key).filter(|entry| entry.uid == seen.spec.uid) else {
            known.forget(&key);
            known.subscribers.insert(key.clone(), Entry::new(seen));
            return self.tell(key, closed, true);
        };
        if seen.spec.generation > entry.generation {
            (entry.generation, entry.expire_after, entry.open) = (seen.spec.generation, seen.expire_after, false);
            self.send(Change::Passage {
                lane: key.clone(),
                spec: Some(seen.spec.clone()),
                passage: closed,
                pause: None,
                reset: false,
            });
        }
        drop(known);
        self.shown(&key, &seen.spec.uid, seen.status, seen.version);
    }

    /// The API server has this status of a Subscriber that is known.
    pub fn shown(&self, key: &SubscriberKey, uid: &str, status: SubscriberStatus, version: u64) {
        let shown = self.with(key, uid, |entry| {
            let has_pause = entry.page.shown(status, version);
            if let Some(until) = entry.pause_read().filter(|_| has_pause) {
                self.send(Change::Paused(key.clone(), until));
            }
            (has_pause, entry.page.is_behind())
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
        self.tell(key.clone(), Passage::Closed(Gate::SubscriberNotFound, None), true);
    }

    /// A listing of `namespace` (None: of all) is complete: what is not known now is not there.
    pub fn listed(&self, namespace: Option<&str>) {
        self.send(Change::Listed(namespace.map(str::to_owned)));
    }

    /// The reconciler's answer for a spec; dropped when the Subscriber was deleted meanwhile, closed when its webhook
    /// is gone. No pause is believed beyond `expire_after`.
    pub fn publish(&self, key: &SubscriberKey, spec: &SpecVersion, passage: Passage, expire_after: Duration) {
        self.with(key, &spec.uid, |entry| {
            let passage = match passage {
                Passage::Open(_) if entry.gone == Some(spec.generation) => {
                    Passage::Closed(Gate::EndpointGone, Some(expire_after))
                }
                // The watch showed a newer spec meanwhile: its own reconcile follows.
                Passage::Open(_) if entry.generation > spec.generation => {
                    Passage::Closed(Gate::SubscriberNotReady, Some(expire_after))
                }
                passage => passage,
            };
            entry.open = matches!(passage, Passage::Open(_));
            entry.expire_after = expire_after;
            let pause = entry.pause_read();
            let (lane, spec, reset) = (key.clone(), Some(spec.clone()), std::mem::take(&mut entry.reset));
            self.send(Change::Passage { lane, spec, passage, pause, reset });
        });
    }

    /// The webhook of this spec answered 410.
    pub fn mark_gone(&self, key: &SubscriberKey, spec: &SpecVersion) {
        // A late answer to an older spec changes nothing.
        self.with(key, &spec.uid, |entry| entry.gone = entry.gone.max(Some(spec.generation)));
    }

    /// Whether the webhook of this spec answered 410.
    pub fn is_gone(&self, key: &SubscriberKey, spec: &SpecVersion) -> bool {
        self.with(key, &spec.uid, |entry| entry.gone == Some(spec.generation)).unwrap_or(false)
    }

    /// What forbids a request to the webhook of this spec now, whatever a reconcile found before.
    pub fn held(&self, key: &SubscriberKey, spec: &SpecVersion) -> Option<Held> {
        let held = |entry: &mut Entry| {
            if entry.generation > spec.generation {
                Some(Held::Changed)
            } else if entry.gone == Some(spec.generation) {
                Some(Held::Gone)
            } else if entry.paused_until.is_some_and(|until| Instant::now() < until) {
                Some(Held::Paused)
            } else if !entry.open {
                Some(Held::Closed)
            } else {
                None
            }
        };
        self.with(key, &spec.uid, held).unwrap_or(Some(Held::Changed))
    }

    /// A look at this spec begins; `request` is what somebody asked for it by. What a new spec or request ends (a pause, a
    /// 410, the wait for the webhook's consent) ends now, once, however often the look has to begin again.
    pub fn begin(&self, key: &SubscriberKey, spec: &SpecVersion, request: Option<String>) -> Option<Begun> {
        self.with(key, &spec.uid, |entry| {
            let status = entry.page.wanted();
            let before = entry.begun.or(status.observed_generation).filter(|generation| *generation >= 0);
            let changed = before.is_some_and(|generation| generation != spec.generation);
            let handled = entry.request.as_ref().or(status.last_handled_request.as_ref());
            let asked = request.is_some() && request.as_ref() != handled;
            entry.begun = Some(spec.generation);
            if asked {
                entry.request = request;
            }
            if changed || asked {
                (entry.gone, entry.unanswered, entry.reset, entry.paused_until) = (None, None, true, None);
                entry.page.amend(|status| status.paused_until_time = None);
            }
            Begun { status: entry.page.wanted().clone(), changed, requested: entry.reset }
        })
    }

    /// The webhook of this spec asked to be left alone until `until`, that is for `wait`.
    pub fn pause(&self, key: &SubscriberKey, spec: &SpecVersion, until: Timestamp, wait: Duration) {
        self.with(key, &spec.uid, |entry| {
            // What another spec was asked for ended with it.
            if entry.begun.is_none_or(|generation| generation == spec.generation) {
                entry.page.pause(until);
                let until = Instant::now() + wait;
                entry.paused_until = entry.paused_until.max(Some(until));
                entry.pause_known = entry.page.wanted().paused_until_time.as_ref().map(|until| until.0);
                self.send(Change::Paused(key.clone(), until));
            }
        });
    }

    /// Nothing of this Subscriber goes until the look that begins is over.
    pub fn close(&self, key: &SubscriberKey, spec: &SpecVersion, expire_after: Duration) {
        self.with(key, &spec.uid, |entry| {
            entry.open = false;
            let passage = Passage::Closed(Gate::SubscriberNotReady, Some(expire_after));
            self.send(Change::Passage {
                lane: key.clone(),
                spec: Some(spec.clone()),
                passage,
                pause: None,
                reset: false,
            });
        });
    }

    /// Holds the Subscriber's source of tokens.
    pub fn holds(&self, key: &SubscriberKey, uid: &str, tokens: Arc<TokenSource>) {
        self.with(key, uid, |entry| entry.tokens = Some(tokens));
    }

    /// Whether, and when, the webhook's consent was asked for without an answer.
    pub fn unanswered(&self, key: &SubscriberKey, uid: &str) -> Option<Unanswered> {
        self.with(key, uid, |entry| entry.unanswered).flatten()
    }

    /// The webhook's consent was asked for, without an answer or (None) with one.
    pub fn asked(&self, key: &SubscriberKey, uid: &str, unanswered: Option<Unanswered>) {
        self.with(key, uid, |entry| entry.unanswered = unanswered);
    }

    /// What to do with the status of the Subscriber with this uid; None: it is not there any more.
    pub fn page<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Page) -> T) -> Option<T> {
        self.with(key, uid, |entry| then(&mut entry.page))
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
        self.with(key, uid, |entry| entry.step = step);
    }

    /// Which step the look at this Subscriber is at.
    pub fn step(&self, key: &SubscriberKey, uid: &str) -> Option<Step> {
        self.with(key, uid, |entry| entry.step).flatten()
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
        keys.into_iter().filter_map(|key| known.subscribers.get(&key).map(|entry| (key, entry.uid.clone()))).collect()
    }

    /// The statuses of these, as they are written.
    pub fn pages(&self, of: &[(SubscriberKey, Arc<str>)]) -> Vec<Written> {
        let known = self.lock();
        let written = of.iter().filter_map(|(key, uid)| {
            let page = &known.subscribers.get(key).filter(|entry| entry.uid == *uid)?.page;
            let (key, uid, status) = (key.clone(), uid.clone(), page.written().clone());
            Some(Written { key, uid, status, is_behind: page.is_behind() })
        });
        written.collect()
    }

    /// Whatever there is to do, under the lock, with the Subscriber of this uid, if it is still there.
    fn with<T>(&self, key: &SubscriberKey, uid: &str, then: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().subscribers.get_mut(key).filter(|entry| &*entry.uid == uid).map(then)
    }

    fn tell(&self, lane: SubscriberKey, passage: Passage, reset: bool) {
        self.send(Change::Passage { lane, spec: None, passage, pause: None, reset });
    }

    fn send(&self, change: Change) {
        // The queue ends first at shutdown; nobody needs the news then.
        let _ = self.changes.send(change);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

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

    fn closed() -> Passage {
        Passage::Closed(Gate::Suspended, Some(DAY))
    }

    fn registry() -> (Registry, mpsc::UnboundedReceiver<Change>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Registry::new(sender), receiver)
    }

    fn exists(registry: &Registry, key: SubscriberKey, uid: String) {
        registry.exists(key, seen(&uid, 1));
    }

    /// The gates told so far, by the Subscriber's name.
    fn told(changes: &mut mpsc::UnboundedReceiver<Change>) -> Vec<(String, Gate)> {
        let gate = |change| match change {
            Change::Passage { lane, passage: Passage::Closed(gate, _), .. } => Some((lane.name.to_string(), gate)),
            _ => None,
        };
        std::iter::from_fn(|| changes.try_recv().ok()).filter_map(gate).collect()
    }

    #[test]
    fn a_reconcile_that_outlives_its_subscriber_changes_nothing() {
        let (registry, mut changes) = registry();
        exists(&registry, key("s"), "uid-1".into());
        registry.deleted(&key("s"));
        assert_eq!(
            told(&mut changes),
            [("s".into(), Gate::SubscriberNotReady), ("s".into(), Gate::SubscriberNotFound)]
        );
        registry.publish(&key("s"), &spec("uid-1"), closed(), DAY);
        exists(&registry, key("s"), "uid-2".into());
        registry.publish(&key("s"), &spec("uid-1"), closed(), DAY);
        assert_eq!(told(&mut changes), [("s".into(), Gate::SubscriberNotReady)]);
        registry.publish(&key("s"), &spec("uid-2"), closed(), DAY);
        assert_eq!(told(&mut changes), [("s".into(), Gate::Suspended)]);
    }

    #[test]
    fn the_queue_learns_when_notifications_expire_with_the_listing_and_with_a_new_spec() {
        let (registry, mut changes) = registry();
        let mut learned = || match changes.try_recv().ok() {
            Some(Change::Passage { spec, passage: Passage::Closed(_, expire_after), .. }) => Some((spec, expire_after)),
            _ => None,
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
        let (registry, mut changes) = registry();
        let far = Timestamp::now() + 365 * DAY;
        let status = SubscriberStatus { paused_until_time: Some(Time(far)), ..SubscriberStatus::default() };
        registry.exists(key("s"), Seen { status, expire_after: DAY, ..seen("uid", 1) });
        let mut paused = || {
            registry.publish(&key("s"), &SpecVersion::new("uid", 1), closed(), DAY);
            std::iter::from_fn(|| changes.try_recv().ok()).find_map(|change| match change {
                Change::Passage { pause, .. } => pause,
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
        let (registry, _changes) = registry();
        let held = |generation| registry.held(&key("s"), &SpecVersion::new("uid", generation));
        let open = |generation| {
            let passage = Passage::Closed(Gate::Suspended, None);
            registry.publish(&key("s"), &SpecVersion::new("uid", generation), passage, DAY);
            registry.with(&key("s"), "uid", |entry| entry.open = true);
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

    #[test]
    fn a_changed_secret_finds_those_that_name_it() {
        let (registry, _changes) = registry();
        exists(&registry, key("s"), "1".into());
        registry.refers_to(&key("s"), "1", HashSet::from([Reference::Secret("oauth".into())]));
        assert_eq!(registry.referrers("a", &Reference::Secret("oauth".into())), [key("s")]);
        assert!(registry.referrers("b", &Reference::Secret("oauth".into())).is_empty());
        assert!(registry.referrers("a", &Reference::ConfigMap("oauth".into())).is_empty());
    }

    #[test]
    fn the_index_of_references_follows_each_change_and_keeps_nothing_of_what_is_gone() {
        let (registry, _changes) = registry();
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
        let (registry, _changes) = registry();
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
