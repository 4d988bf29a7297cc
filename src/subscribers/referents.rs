//! Watches Secrets and ConfigMaps, and marks the Subscribers that refer to them.

use std::{collections::HashSet, fmt::Debug, pin::pin, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tidings_queue::SubscriberKey;
use tracing::warn;

use super::{reconcile_requests::ReconcileCause, referrers::Reference, roster::Roster, watch_config::watch_config};
use crate::{
    cluster::call::{in_namespace, plain_watch},
    metrics::{Metrics, WatchedKind},
};

/// Watches the Secrets and ConfigMaps of one namespace (None: of all namespaces). When one is created, changed or
/// deleted, marks the Subscribers that refer to it. A standby does this too: it knows no Subscriber, so it marks and
/// keeps nothing.
///
/// `metrics` counts the watches that fail.
pub(super) async fn watch_referents(client: Client, roster: Arc<Roster>, namespace: Option<String>, metrics: Metrics) {
    let failed = |kind| {
        let metrics = metrics.clone();
        move || metrics.watch_restarted(kind)
    };
    let (of_secrets, of_config_maps) = (failed(WatchedKind::Secret), failed(WatchedKind::ConfigMap));
    let secrets = referrers::<Secret, _>(&client, roster.clone(), namespace.clone(), Reference::Secret, of_secrets);
    let config_maps =
        referrers::<ConfigMap, _>(&client, roster.clone(), namespace, Reference::ConfigMap, of_config_maps);
    let mut referrers = pin!(stream::select(secrets, config_maps));
    while let Some(referrer) = referrers.next().await {
        roster.mark(&referrer, ReconcileCause::Change);
    }
}

/// A stream of the Subscribers to reconcile because an object of this kind that they refer to was created, changed or
/// deleted. Calls `failed` when the watch fails.
fn referrers<K, F>(
    client: &Client,
    roster: Arc<Roster>,
    namespace: Option<String>,
    reference: fn(String) -> Reference,
    failed: F,
) -> impl Stream<Item = SubscriberKey> + Send + use<K, F>
where
    F: Fn() + Send,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let objects = in_namespace::<PartialObjectMeta<K>>(client, namespace.as_deref());
    let mut referents = Referents { namespace, reference, shown: HashSet::new() };
    watcher(objects, watch_config())
        .default_backoff()
        .inspect_err(move |error| {
            failed();
            warn!(error = %plain_watch(error), kind = %K::kind(&()), "watch failed; restarting it");
        })
        .filter_map(|event| async { event.ok() })
        .flat_map(move |event| stream::iter(referents.observe(&roster, &event)))
}

/// The Secrets, or ConfigMaps, of one watch.
struct Referents {
    namespace: Option<String>,
    reference: fn(String) -> Reference,
    /// The objects that the list under way has shown.
    shown: HashSet<(String, Reference)>,
}

impl Referents {
    /// Returns the Subscribers to reconcile because of this event.
    fn observe<K>(&mut self, roster: &Roster, event: &Event<PartialObjectMeta<K>>) -> Vec<SubscriberKey> {
        let of = |object: &PartialObjectMeta<K>| {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            (namespace, (self.reference)(object.metadata.name.clone().unwrap_or_default()))
        };
        match event {
            Event::Init => {
                self.shown.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (namespace, reference) = of(object);
                let referrers = roster.referrers(&namespace, &reference);
                if !referrers.is_empty() {
                    self.shown.insert((namespace, reference));
                }
                referrers
            }
            // No event reports an object that was deleted while the watch was down.
            Event::InitDone => {
                let is_ours = |of: &Reference| {
                    std::mem::discriminant(of) == std::mem::discriminant(&(self.reference)(String::new()))
                };
                let shown = std::mem::take(&mut self.shown);
                roster.dangling(self.namespace.as_deref(), is_ours, &shown).into_iter().collect()
            }
            Event::Apply(object) | Event::Delete(object) => {
                let (namespace, reference) = of(object);
                roster.referrers(&namespace, &reference)
            }
        }
    }
}
