//! Keeps the Subscribers that the watches show, and finds the ones that the watches no longer show.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::runtime::watcher::Event;
use tidings_queue::SubscriberKey;

use super::{member::ObservedSubscriber, roster::Roster, stored_subscriber::StoredSubscriber};
use crate::cluster::call::version;

/// All Subscribers as the watches last showed them, including the pages of a list under way. Keeps the roster up to
/// date.
pub(super) struct WatchedSubscribers {
    roster: Arc<Roster>,
    /// The Subscribers by namespace and name.
    known: HashMap<Arc<str>, HashMap<Arc<str>, Arc<StoredSubscriber>>>,
}

/// The scope of one watch: one namespace, or (None) all namespaces.
pub(super) struct WatchedScope {
    namespace: Option<String>,
    /// The Subscribers that the list under way has shown.
    shown: HashSet<SubscriberKey>,
}

/// What a watch event means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WatchChange {
    /// This Subscriber is new.
    New(SubscriberKey),
    /// This Subscriber has a changed spec or annotation.
    Changed(SubscriberKey),
    /// This Subscriber no longer exists.
    Gone(SubscriberKey),
}

impl WatchedScope {
    pub(super) fn new(namespace: Option<String>) -> Self {
        Self { namespace, shown: HashSet::new() }
    }

    /// The namespace, for log messages.
    pub(super) fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("(all)")
    }
}

impl WatchedSubscribers {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self { roster, known: HashMap::new() }
    }

    /// The Subscriber as the watch last showed it.
    pub(super) fn get(&self, key: &SubscriberKey) -> Option<&Arc<StoredSubscriber>> {
        self.known.get(&key.namespace)?.get(&key.name)
    }

    /// Processes an event of the watch of `scope`, and returns the changes.
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
        let observed = ObservedSubscriber {
            spec: subscriber.id(),
            expire_after: subscriber.expire_after(),
            // Only the roster keeps the status.
            status: std::mem::take(&mut subscriber.status),
            version: version(&subscriber.metadata),
        };
        self.roster.upsert(key.clone(), observed);
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

    /// The Subscribers in `namespace` (None: in all namespaces) that a complete list did not show.
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
    fn a_page_of_a_list_takes_effect_before_the_list_is_complete() {
        let (updates, _engine) = mpsc::unbounded_channel();
        let (mut watched, mut scope) =
            (WatchedSubscribers::new(Arc::new(Roster::new(updates))), WatchedScope::new(None));
        let events = [Event::Init, Event::InitApply(subscriber("old", 1)), Event::InitDone];
        for event in events {
            watched.observe(&mut scope, event);
        }
        // A second list: its first page shows a changed and a new Subscriber, and its second page has not arrived yet.
        assert!(watched.observe(&mut scope, Event::Init).is_empty());
        let page = [subscriber("old", 2), subscriber("new", 1)];
        let changes: Vec<_> = page.into_iter().flat_map(|s| watched.observe(&mut scope, Event::InitApply(s))).collect();
        assert_eq!(changes, [WatchChange::Changed(key("old")), WatchChange::New(key("new"))]);
        assert_eq!(watched.get(&key("old")).unwrap().metadata.generation, Some(2));
        assert!(watched.get(&key("new")).is_some());
        // The same Subscriber again is not a change.
        assert!(watched.observe(&mut scope, Event::InitApply(subscriber("new", 1))).is_empty());
    }

    #[test]
    fn a_list_removes_the_subscribers_of_its_scope_that_it_does_not_show() {
        let (updates, _engine) = mpsc::unbounded_channel();
        let mut watched = WatchedSubscribers::new(Arc::new(Roster::new(updates)));
        let (mut a, mut b) = (WatchedScope::new(Some("a".into())), WatchedScope::new(Some("b".into())));
        for name in ["stays", "goes"] {
            watched.observe(&mut a, Event::Apply(subscriber(name, 1)));
        }
        assert!(watched.observe(&mut b, Event::Init).is_empty() && watched.observe(&mut b, Event::InitDone).is_empty());
        watched.observe(&mut a, Event::Init);
        watched.observe(&mut a, Event::InitApply(subscriber("stays", 1)));
        assert_eq!(watched.observe(&mut a, Event::InitDone), [WatchChange::Gone(key("goes"))]);
        assert!(watched.get(&key("goes")).is_none() && watched.get(&key("stays")).is_some());
    }
}
