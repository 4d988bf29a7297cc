//! What one watch's listing shows, and so what it does not show any more.

use std::{collections::HashSet, sync::Arc};

use kube::{
    ResourceExt,
    core::PartialObjectMeta,
    runtime::{reflector::ObjectRef, watcher::Event},
};

use super::{
    registry::{Reference, Registry, Seen, Spec},
    resolve::seconds,
    version,
};
use crate::{api::Subscriber, dispatch::LaneKey};

/// Keeps the registry up to date with one watch, deletions included.
pub(super) struct Listing {
    pub(super) registry: Arc<Registry>,
    pub(super) namespace: Option<String>,
    /// What the listing under way has shown.
    pub(super) shown: HashSet<LaneKey>,
}

impl Listing {
    pub(super) fn register(&mut self, event: &Event<Subscriber>) {
        match event {
            Event::Init => self.shown.clear(),
            Event::InitApply(subscriber) => {
                self.shown.insert(lane_key(subscriber));
                self.exists(subscriber);
            }
            Event::InitDone => self.registry.only(self.namespace.as_deref(), &std::mem::take(&mut self.shown)),
            Event::Apply(subscriber) => self.exists(subscriber),
            Event::Delete(subscriber) => self.registry.deleted(&lane_key(subscriber)),
        }
    }

    fn exists(&self, subscriber: &Subscriber) {
        let seen = Seen {
            spec: spec_of(subscriber),
            expire_after: seconds(subscriber.spec.delivery.expire_after_seconds),
            status: subscriber.status.clone().unwrap_or_default(),
            version: version(&subscriber.metadata),
        };
        self.registry.exists(lane_key(subscriber), seen);
    }
}

/// The Secrets, or ConfigMaps, of one watch.
pub(super) struct Referents {
    pub(super) namespace: Option<String>,
    pub(super) reference: fn(String) -> Reference,
    /// What the listing under way has shown.
    pub(super) shown: HashSet<(String, Reference)>,
}

impl Referents {
    /// The Subscribers to look at again.
    pub(super) fn observe<K>(
        &mut self,
        registry: &Registry,
        event: &Event<PartialObjectMeta<K>>,
    ) -> Vec<ObjectRef<Subscriber>> {
        let of = |object: &PartialObjectMeta<K>| {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            (namespace, (self.reference)(object.metadata.name.clone().unwrap_or_default()))
        };
        let referrers = match event {
            Event::Init => {
                self.shown.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (namespace, reference) = of(object);
                let referrers = registry.referrers(&namespace, &reference);
                if !referrers.is_empty() {
                    self.shown.insert((namespace, reference));
                }
                referrers
            }
            // What went while the watch was down is in no event.
            Event::InitDone => {
                let is_ours = |of: &Reference| {
                    std::mem::discriminant(of) == std::mem::discriminant(&(self.reference)(String::new()))
                };
                registry.dangling(self.namespace.as_deref(), is_ours, &std::mem::take(&mut self.shown))
            }
            Event::Apply(object) | Event::Delete(object) => {
                let (namespace, reference) = of(object);
                registry.referrers(&namespace, &reference)
            }
        };
        referrers.iter().map(object_ref).collect()
    }
}

pub(super) fn lane_key(subscriber: &Subscriber) -> LaneKey {
    LaneKey { namespace: subscriber.namespace().unwrap_or_default().into(), name: subscriber.name_any().into() }
}

/// Which spec of which Subscriber this is.
pub(super) fn spec_of(subscriber: &Subscriber) -> Spec {
    (subscriber.uid().unwrap_or_default(), subscriber.metadata.generation.unwrap_or_default())
}

pub(super) fn object_ref(key: &LaneKey) -> ObjectRef<Subscriber> {
    ObjectRef::new(&key.name).within(&key.namespace)
}
