//! An index that finds the Subscribers that refer to a Secret or ConfigMap, no matter how many Subscribers exist.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tidings_queue::SubscriberKey;

/// An object that a Subscriber names, in the Subscriber's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A Secret, by name.
    Secret(String),
    /// A ConfigMap, by name.
    ConfigMap(String),
}

/// For each namespace and each object in it: the names of the Subscribers that refer to the object.
#[derive(Debug, Default)]
pub(super) struct Referrers(HashMap<Arc<str>, Objects>);

type Objects = HashMap<Reference, HashSet<Arc<str>>>;

impl Referrers {
    /// Adds references of the Subscriber.
    pub(super) fn link(&mut self, key: &SubscriberKey, references: impl IntoIterator<Item = Reference>) {
        for reference in references {
            let objects = self.0.entry(key.namespace.clone()).or_default();
            objects.entry(reference).or_default().insert(key.name.clone());
        }
    }

    /// Removes references of the Subscriber.
    pub(super) fn unlink<'r>(&mut self, key: &SubscriberKey, references: impl IntoIterator<Item = &'r Reference>) {
        let Some(objects) = self.0.get_mut(&key.namespace) else { return };
        for reference in references {
            if let Some(names) = objects.get_mut(reference) {
                names.remove(&key.name);
                if names.is_empty() {
                    objects.remove(reference);
                }
            }
        }
        if objects.is_empty() {
            self.0.remove(&key.namespace);
        }
    }

    /// The Subscribers that refer to an object in `namespace`.
    pub(super) fn of(&self, namespace: &str, reference: &Reference) -> Vec<SubscriberKey> {
        let Some((namespace, objects)) = self.0.get_key_value(namespace) else { return Vec::new() };
        objects.get(reference).into_iter().flatten().map(|name| key(namespace, name)).collect()
    }

    /// The Subscribers in `namespace` (None: in all namespaces) that refer to an object of a kind that a complete list
    /// did not show.
    pub(super) fn dangling(
        &self,
        namespace: Option<&str>,
        of_kind: impl Fn(&Reference) -> bool,
        shown: &HashSet<(String, Reference)>,
    ) -> HashSet<SubscriberKey> {
        let in_namespace = |(namespace, objects): (&Arc<str>, &Objects)| {
            let missing = objects.iter().filter(|(reference, _)| {
                of_kind(reference) && !shown.contains(&(namespace.to_string(), (*reference).clone()))
            });
            missing.flat_map(|(_, names)| names.iter().map(|name| key(namespace, name))).collect::<Vec<_>>()
        };
        match namespace {
            Some(namespace) => self.0.get_key_value(namespace).into_iter().flat_map(in_namespace).collect(),
            None => self.0.iter().flat_map(in_namespace).collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(namespace: &Arc<str>, name: &Arc<str>) -> SubscriberKey {
    SubscriberKey { namespace: namespace.clone(), name: name.clone() }
}
