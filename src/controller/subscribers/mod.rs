//! Watches Subscribers and all that they name, and looks after each ([`reconcile`]): goes through the chain that its events
//! depend on ([`examine`], [`handshake`]), tests it if somebody asks ([`self_test`]), says what was found ([`status`],
//! [`announce`]), opens or closes its gate.
//!
//! [`writer`] is the one road into a Subscriber's status; [`report`] and [`vitals`] say how its deliveries go.

mod announce;
mod examine;
mod handshake;
mod reconcile;
mod report;
mod self_test;
mod status;
mod vitals;
mod writer;

pub use announce::Announcer;
pub use handshake::Unanswered;
pub use vitals::{CENSUS, Census, State, Vitals};

use std::{
    collections::HashSet,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::{self, Action},
        predicates, reflector,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use self::reconcile::reconcile;
use super::{
    Leadership, WATCH_SECONDS, in_namespace,
    listings::{Listing, Referents, lane_key, object_ref},
    registry::{Reference, Registry},
    resolve::{Resolver, Unresolved},
};
use crate::api::Subscriber;

/// After an error of the API server.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// So many Subscribers are looked at at once, each through exchanges of up to a minute.
const CONCURRENCY: u16 = 256;

/// Watches Subscribers and all that they refer to.
pub struct Subscribers {
    /// Watches.
    pub client: Client,
    /// Writes; should not retry by itself.
    pub writer: Client,
    /// Makes targets.
    pub resolver: Resolver,
    /// Where answers go.
    pub registry: Arc<Registry>,
    /// Tells of what changed.
    pub announcer: Announcer,
    /// How deliveries go.
    pub vitals: Mutex<Vitals>,
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
    /// Watches the Secrets and ConfigMaps of one namespace (None: of all) and tells which Subscribers to look at again. A
    /// standby does so, too: while no Subscriber is known there is nothing to tell, and nothing is kept.
    pub async fn watch_referents(
        self: Arc<Self>,
        namespace: Option<String>,
        referrers: mpsc::UnboundedSender<ObjectRef<Subscriber>>,
    ) {
        let scope = namespace.as_deref();
        let secrets = self.referrers::<Secret>(scope, Reference::Secret);
        let config_maps = self.referrers::<ConfigMap>(scope, Reference::ConfigMap);
        stream::select(secrets, config_maps).for_each(|referrer| async { drop(referrers.send(referrer)) }).await;
    }

    /// Looks after the Subscribers of one namespace (None: of all) until `shutdown`; `referrers` are those that
    /// [`Self::watch_referents`] tells. `synced` is called once all that exist are known.
    pub async fn run(
        self: Arc<Self>,
        namespace: Option<String>,
        referrers: mpsc::UnboundedReceiver<ObjectRef<Subscriber>>,
        synced: impl FnOnce() + Send + 'static,
        shutdown: impl Future<Output = ()> + Send + Sync + 'static,
    ) {
        let (reader, writer) = reflector::store();
        let scope = namespace.as_deref();
        let mut listing =
            Listing { registry: self.registry.clone(), namespace: namespace.clone(), shown: HashSet::new() };
        let mut synced = Some(synced);
        let subscribers = watcher(in_namespace::<Subscriber>(&self.client, scope), watch_config())
            .default_backoff()
            .reflect(writer)
            .inspect_ok(move |event| {
                listing.register(event);
                if matches!(event, Event::InitDone)
                    && let Some(synced) = synced.take()
                {
                    synced();
                }
            })
            .inspect_err(|error| warn!(%error, "watching Subscribers"))
            .applied_objects()
            .predicate_filter(predicates::generation.combine(predicates::annotations), Default::default());
        let again = received(self.registry.look_again_in(namespace)).map(|key| object_ref(&key));
        Controller::for_stream(subscribers, reader)
            .reconcile_on(again)
            .reconcile_on(received(referrers))
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .graceful_shutdown_on(shutdown)
            .run(reconcile, on_error, self)
            .for_each(|result| async {
                if let Err(error) = result {
                    debug!(%error, "looking at a Subscriber");
                }
            })
            .await;
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
    ) -> impl Stream<Item = ObjectRef<Subscriber>> + Send + use<K>
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

fn received<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

fn on_error(subscriber: Arc<Subscriber>, error: &Error, _: Arc<Subscribers>) -> Action {
    match error {
        Error::Unresolved(Unresolved::NotLeading | Unresolved::Stopping) => {
            debug!(subscriber = %lane_key(&subscriber), %error)
        }
        _ => warn!(subscriber = %lane_key(&subscriber), %error, "will look at the Subscriber again"),
    }
    Action::requeue(TRY_AGAIN)
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
