//! The Subscribers that the watches show, and so those that they do not show any more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::runtime::watcher::Event;
use tidings_queue::SubscriberKey;

use super::{member::ObservedSubscriber, roster::Roster, stored_subscriber::StoredSubscriber};
use crate::cluster::call::version;

/// All Subscribers as the watches last showed them, pages of a listing under way included. Keeps the roster up to date.
pub(super) struct WatchedSubscribers {
    roster: Arc<Roster>,
    /// By namespace and name.
    known: HashMap<Arc<str>, HashMap<Arc<str>, Arc<StoredSubscriber>>>,
}

/// The Subscribers of one watch: of one namespace, or (None) of all.
pub(super) struct WatchedScope {
    namespace: Option<String>,
    /// What the listing under way has shown.
    shown: HashSet<SubscriberKey>,
}

/// What a watch event means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WatchChange {
    /// This Subscriber is new.
    New(SubscriberKey),
    /// It has another spec, or a new request.
    Changed(SubscriberKey),
    /// It is not there any more.
    Gone(SubscriberKey),
}

impl WatchedScope {
    pub(super) fn new(namespace: Option<String>) -> Self {
        Self { namespace, shown: HashSet::new() }
    }

    /// The namespace, for people.
    pub(super) fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("(all)")
    }
}

impl WatchedSubscribers {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self { roster, known: HashMap::new() }
    }

    /// The Subscriber as it was last shown.
    pub(super) fn get(&self, key: &SubscriberKey) -> Option<&Arc<StoredSubscriber>> {
        self.known.get(&key.namespace)?.get(&key.name)
    }

    /// Takes in what the watch of `scope` shows.
    pub(super) fn observe(&mut self, scope: &mut WatchedScope, event: Event<StoredSubscriber>) -> Vec<WatchChange> {
        match event {
            Event::Init => {
                scope.shown.clear();
                Vec::new()
            }
            Event::InitApply(subscriber) => {
                scope.shown.insert(subscriber.key());
                self.show(subscriber).into_iter().collect()
            }
            Event::InitDone => {
                let shown = std::mem::take(&mut scope.shown);
                let missing = self.missing(scope.namespace.as_deref(), &shown);
                let gone = missing.into_iter().filter_map(|key| self.hide(key)).collect();
                self.roster.note_listed(scope.namespace.as_deref());
                gone
            }
            Event::Apply(subscriber) => self.show(subscriber).into_iter().collect(),
            Event::Delete(subscriber) => self.hide(subscriber.key()).into_iter().collect(),
        }
    }

    fn show(&mut self, mut subscriber: StoredSubscriber) -> Option<WatchChange> {
        let key = subscriber.key();
        let seen = ObservedSubscriber {
            spec: subscriber.id(),
            expire_after: subscriber.expire_after(),
            // The roster keeps it.
            status: std::mem::take(&mut subscriber.status),
            version: version(&subscriber.metadata),
        };
        self.roster.upsert(key.clone(), seen);
        let of_namespace = self.known.entry(key.namespace.clone()).or_default();
        let subscriber = Arc::new(subscriber);
        match of_namespace.insert(key.name.clone(), subscriber.clone()) {
            None => Some(WatchChange::New(key)),
            Some(old) if subscriber.has_same_requests_as(&old) => None,
            Some(old) if subscriber.metadata.uid != old.metadata.uid => Some(WatchChange::New(key)),
            Some(_) => Some(WatchChange::Changed(key)),
        }
    }

    fn hide(&mut self, key: SubscriberKey) -> Option<WatchChange> {
        self.roster.remove(&key);
        let of_namespace = self.known.get_mut(&key.namespace)?;
        of_namespace.remove(&key.name)?;
        if of_namespace.is_empty() {
            self.known.remove(&key.namespace);
        }
        Some(WatchChange::Gone(key))
    }

    /// Those in `namespace` (None: in all) that a complete listing did not show.
    fn missing(&self, namespace: Option<&str>, shown: &HashSet<SubscriberKey>) -> Vec<SubscriberKey> {
        let keys = |(namespace, names): (&Arc<str>, &HashMap<Arc<str>, _>)| {
            let key = |name: &Arc<str>| SubscriberKey { namespace: namespace.clone(), name: name.clone() };
            names.keys().map(key).filter(|key| !shown.contains(key)).collect::<Vec<_>>()
        };
        match namespace {
            Some(namespace) => self.known.get_key_value(namespace).map(keys).unwrap_or_default(),
            None => self.known.iter().flat_map(keys).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;

    fn key(name: &str) -> SubscriberKey {
        SubscriberKey { namespace: "a".into(), name: name.into() }
    }

    fn subscriber(name: &str, generation: i64) -> StoredSubscriber {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "1", "generation": generation},
            "spec": {},
        }))
        .unwrap()
    }

    #[test]
    fn what_a_page_of_a_listing_shows_counts_before_the_listing_is_complete() {
        let (updates, _engine) = mpsc::unbounded_channel();
        let (mut watched_subscribers, mut scope) =
            (WatchedSubscribers::new(Arc::new(Roster::new(updates))), WatchedScope::new(None));
        let events = [Event::Init, Event::InitApply(subscriber("old", 1)), Event::InitDone];
        for event in events {
            watched_subscribers.observe(&mut scope, event);
        }
        // A relist: its first page shows what changed and what is new, and its second page does not come for now.
        assert!(watched_subscribers.observe(&mut scope, Event::Init).is_empty());
        let cell = [subscriber("old", 2), subscriber("new", 1)];
        let news: Vec<_> =
            cell.into_iter().flat_map(|s| watched_subscribers.observe(&mut scope, Event::InitApply(s))).collect();
        assert_eq!(news, [WatchChange::Changed(key("old")), WatchChange::New(key("new"))]);
        assert_eq!(watched_subscribers.get(&key("old")).unwrap().metadata.generation, Some(2));
        assert!(watched_subscribers.get(&key("new")).is_some());
        // The same once more is no news.
        assert!(watched_subscribers.observe(&mut scope, Event::InitApply(subscriber("new", 1))).is_empty());
    }

    #[test]
    fn a_listing_hides_those_of_its_scope_that_it_does_not_show() {
        let (updates, _engine) = mpsc::unbounded_channel();
        let mut watched_subscribers = WatchedSubscribers::new(Arc::new(Roster::new(updates)));
        let (mut a, mut b) = (WatchedScope::new(Some("a".into())), WatchedScope::new(Some("b".into())));
        for name in ["stays", "goes"] {
            watched_subscribers.observe(&mut a, Event::Apply(subscriber(name, 1)));
        }
        assert!(
            watched_subscribers.observe(&mut b, Event::Init).is_empty()
                && watched_subscribers.observe(&mut b, Event::InitDone).is_empty()
        );
        watched_subscribers.observe(&mut a, Event::Init);
        watched_subscribers.observe(&mut a, Event::InitApply(subscriber("stays", 1)));
        assert_eq!(watched_subscribers.observe(&mut a, Event::InitDone), [WatchChange::Gone(key("goes"))]);
        assert!(watched_subscribers.get(&key("goes")).is_none() && watched_subscribers.get(&key("stays")).is_some());
    }
}
