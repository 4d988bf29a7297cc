//! Which Subscribers exist, what they refer to, and whether their Notifications may go.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{dispatch::LaneKey, webhook::Target};

/// Whether a Subscriber's Notifications may be sent, and where.
#[derive(Clone)]
pub enum Gate {
    /// They may.
    Open(Arc<Target>),
    /// They wait.
    Closed,
}

/// News for the queue.
pub type GateChange = (LaneKey, Gate);

/// An object in a Subscriber's namespace that it names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A Secret, by name.
    Secret(String),
    /// A ConfigMap, by name.
    ConfigMap(String),
}

/// What the watch and the reconciler know together, under one lock, so that a Subscriber that was deleted is never
/// opened by a reconcile that began before.
pub struct Registry {
    known: Mutex<Known>,
    changes: mpsc::UnboundedSender<GateChange>,
}

#[derive(Default)]
struct Known {
    uids: HashMap<LaneKey, String>,
    references: HashMap<LaneKey, HashSet<Reference>>,
    reconcilers: Vec<(Option<String>, mpsc::UnboundedSender<LaneKey>)>,
}

impl Registry {
    /// A registry that tells `changes` about every gate.
    pub fn new(changes: mpsc::UnboundedSender<GateChange>) -> Self {
        Self { known: Mutex::default(), changes }
    }

    /// The watch shows this Subscriber.
    pub fn exists(&self, key: LaneKey, uid: String) {
        let mut known = self.lock();
        if known.uids.insert(key.clone(), uid.clone()).is_some_and(|old| old != uid) {
            self.tell(key, Gate::Closed);
        }
    }

    /// The watch shows that this Subscriber is gone.
    pub fn gone(&self, key: &LaneKey) {
        let mut known = self.lock();
        known.uids.remove(key);
        known.references.remove(key);
        self.tell(key.clone(), Gate::Closed);
    }

    /// A listing of `namespace` (None: of all) is complete and showed these: all others are gone.
    pub fn only(&self, namespace: Option<&str>, shown: &HashSet<LaneKey>) {
        let gone: Vec<_> = {
            let known = self.lock();
            let listed = |key: &&LaneKey| namespace.is_none_or(|namespace| *namespace == *key.namespace);
            known.uids.keys().filter(listed).filter(|key| !shown.contains(*key)).cloned().collect()
        };
        for key in gone {
            self.gone(&key);
        }
    }

    /// The reconciler's answer for the Subscriber with this uid; dropped when that one is gone meanwhile.
    pub fn publish(&self, key: &LaneKey, uid: &str, gate: Gate) {
        let known = self.lock();
        if known.uids.get(key).is_some_and(|existing| existing == uid) {
            self.tell(key.clone(), gate);
        }
    }

    /// What the Subscriber refers to now.
    pub fn refers_to(&self, key: &LaneKey, references: HashSet<Reference>) {
        let mut known = self.lock();
        if known.uids.contains_key(key) {
            known.references.insert(key.clone(), references);
        }
    }

    /// The Subscribers that refer to an object in `namespace`.
    pub fn referrers(&self, namespace: &str, reference: &Reference) -> Vec<LaneKey> {
        let known = self.lock();
        let refers = |(key, references): &(&LaneKey, &HashSet<Reference>)| {
            *key.namespace == *namespace && references.contains(reference)
        };
        known.references.iter().filter(refers).map(|(key, _)| key.clone()).collect()
    }

    /// Delivery found this Subscriber in trouble: its reconciler should look at it again.
    pub fn look_again(&self, key: &LaneKey) {
        for (namespace, reconciler) in &self.lock().reconcilers {
            if namespace.as_deref().is_none_or(|namespace| *namespace == *key.namespace) {
                let _ = reconciler.send(key.clone());
            }
        }
    }

    /// Where the reconciler of `namespace` (None: of all) hears of Subscribers to look at again.
    pub fn look_again_in(&self, namespace: Option<String>) -> mpsc::UnboundedReceiver<LaneKey> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().reconcilers.push((namespace, sender));
        receiver
    }

    fn tell(&self, key: LaneKey, gate: Gate) {
        // The queue ends first at shutdown; nobody needs the news then.
        let _ = self.changes.send((key, gate));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> LaneKey {
        LaneKey { namespace: "a".into(), name: name.into() }
    }

    fn registry() -> (Registry, mpsc::UnboundedReceiver<GateChange>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Registry::new(sender), receiver)
    }

    #[test]
    fn a_reconcile_that_outlives_its_subscriber_changes_nothing() {
        let (registry, mut changes) = registry();
        registry.exists(key("s"), "uid-1".into());
        registry.gone(&key("s"));
        changes.try_recv().unwrap();
        registry.publish(&key("s"), "uid-1", Gate::Closed);
        registry.exists(key("s"), "uid-2".into());
        registry.publish(&key("s"), "uid-1", Gate::Closed);
        assert!(changes.try_recv().is_err());
        registry.publish(&key("s"), "uid-2", Gate::Closed);
        assert_eq!(changes.try_recv().unwrap().0, key("s"));
    }

    #[test]
    fn a_listing_closes_those_it_does_not_show() {
        let (registry, mut changes) = registry();
        registry.exists(key("stays"), "1".into());
        registry.exists(key("goes"), "2".into());
        registry.only(Some("a"), &HashSet::from([key("stays")]));
        assert_eq!(changes.try_recv().unwrap().0, key("goes"));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_changed_secret_finds_those_that_name_it() {
        let (registry, _changes) = registry();
        registry.exists(key("s"), "1".into());
        registry.refers_to(&key("s"), HashSet::from([Reference::Secret("oauth".into())]));
        assert_eq!(registry.referrers("a", &Reference::Secret("oauth".into())), [key("s")]);
        assert!(registry.referrers("b", &Reference::Secret("oauth".into())).is_empty());
        assert!(registry.referrers("a", &Reference::ConfigMap("oauth".into())).is_empty());
    }
}
