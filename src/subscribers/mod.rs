//! Watches Subscribers and all that they name ([`watching`]) and reconciles each in its turn ([`looks`], [`reconcile`]): goes
//! through the chain that its events depend on ([`examine`], [`handshake`]), sends a test event if an annotation asks for it
//! ([`self_test`]), writes what was found into the status ([`status`], [`announce`]), opens or closes the gate.
//!
//! [`writer`] is the one road into a Subscriber's status; [`report`] and [`vitals`] say how its deliveries go.

mod announce;
mod consent;
mod examine;
mod first_word;
mod handshake;
mod listings;
mod looks;
mod marks;
mod page;
mod reconcile;
mod referrers;
pub mod registry;
mod report;
pub mod resolve;
mod secrets;
mod self_test;
mod standing;
mod status;
mod stored_subscriber;
mod vitals;
mod watching;
mod writer;

use std::{
    collections::HashSet,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex},
};

pub use announce::Announcer;
pub use examine::Step;
use futures::{Stream, StreamExt, TryStreamExt, stream};
pub use handshake::Unanswered;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tidings_queue::SubscriberKey;
use tokio::sync::watch;
use tracing::warn;
pub use vitals::{Vitals, Written};

use self::{
    listings::Referents,
    marks::Cause,
    referrers::Reference,
    registry::Registry,
    resolve::{Resolver, Unresolved},
};
use crate::{
    cluster::{
        SingleTry,
        call::{WATCH_SECONDS, in_namespace},
    },
    metrics::Metrics,
    ownership::Leadership,
};

/// Watches Subscribers and all that they refer to.
pub struct Subscribers {
    /// Watches.
    pub client: Client,
    /// Writes.
    pub writer: SingleTry,
    /// Makes targets.
    pub resolver: Resolver,
    /// Where answers go.
    pub registry: Arc<Registry>,
    /// Tells of what changed.
    pub announcer: Announcer,
    /// How deliveries go.
    pub vitals: Mutex<Vitals>,
    /// Counts the namespaces whose Subscribers cannot be listed.
    pub metrics: Metrics,
    /// Whether anything may be asked, sent and written.
    pub leadership: Leadership,
    /// Whether the operator is to end: nothing more is asked and sent then.
    pub stopping: watch::Receiver<bool>,
}

/// Why a Subscriber could not be looked at; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do its part.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The status could not be written.
    #[error("writing the status: {0}")]
    Write(#[source] kube::Error),
}

impl Subscribers {
    /// Watches the Secrets and ConfigMaps of one namespace (None: of all), and marks the Subscribers that refer to what comes,
    /// changes or goes. A standby does so, too: while no Subscriber is known there is nothing to mark, and nothing is kept.
    pub async fn watch_referents(self: Arc<Self>, namespace: Option<String>) {
        let scope = namespace.as_deref();
        let secrets = self.referrers::<Secret>(scope, Reference::Secret);
        let config_maps = self.referrers::<ConfigMap>(scope, Reference::ConfigMap);
        let mut referrers = pin!(stream::select(secrets, config_maps));
        while let Some(referrer) = referrers.next().await {
            self.registry.mark(&referrer, Cause::Change);
        }
    }

    /// Whether the operator is to end.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when the operator is to end.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// What is asked of somebody, unless the operator is to end: then the answer is not waited for, and the next leader asks.
    async fn unless_stopping<T>(&self, exchange: impl Future<Output = T>) -> Result<T, Unresolved> {
        if self.is_stopping() {
            return Err(Unresolved::Stopping);
        }
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            answer = exchange => Ok(answer),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Unresolved::Stopping),
        }
    }

    /// The Subscribers to look at again whenever an object that they refer to comes, changes or goes.
    fn referrers<K>(
        &self,
        namespace: Option<&str>,
        reference: fn(String) -> Reference,
    ) -> impl Stream<Item = SubscriberKey> + Send + use<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let registry = self.registry.clone();
        let mut referents = Referents { namespace: namespace.map(str::to_owned), reference, shown: HashSet::new() };
        watcher(in_namespace::<PartialObjectMeta<K>>(&self.client, namespace), watch_config())
            .default_backoff()
            .inspect_err(|error| warn!(%error, kind = %K::kind(&()), "watching"))
            .filter_map(|event| async { event.ok() })
            .flat_map(move |event| stream::iter(referents.observe(&registry, &event)))
    }
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
