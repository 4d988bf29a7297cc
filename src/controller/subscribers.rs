//! One Subscriber: resolve what it names, ask for a token, say what was found, open or close its gate.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        predicates, reflector,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    API_TIMEOUT, FIELD_MANAGER, WATCH_SECONDS,
    registry::{Gate, Reference, Registry},
    resolve::{Resolver, Unresolved, references},
    subscriber_status::{Finding, status},
};
use crate::{
    api::{Subscriber, SubscriberReason as Reason},
    dispatch::LaneKey,
    oauth::{NoToken, TokenError},
};

/// What nobody tells us about (an egress policy that a DNS change satisfies) is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// After an error of the API server.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Watches Subscribers and all that they refer to.
pub struct Subscribers {
    /// Watches and writes.
    pub client: Client,
    /// Makes targets.
    pub resolver: Resolver,
    /// Where answers go.
    pub registry: Arc<Registry>,
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
    /// Looks after the Subscribers of one namespace (None: of all) until `shutdown`. `synced` is called once all that
    /// exist are known.
    pub async fn run(
        self: Arc<Self>,
        namespace: Option<String>,
        synced: impl FnOnce() + Send + 'static,
        shutdown: impl Future<Output = ()> + Send + Sync + 'static,
    ) {
        let (reader, writer) = reflector::store();
        let scope = namespace.as_deref();
        let mut listing =
            Listing { registry: self.registry.clone(), namespace: namespace.clone(), shown: HashSet::new() };
        let mut synced = Some(synced);
        let subscribers = watcher(api::<Subscriber>(&self.client, scope), watch_config())
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
            .predicate_filter(predicates::generation, Default::default());
        let again = stream::unfold(self.registry.look_again_in(namespace.clone()), |mut again| async {
            again.recv().await.map(|key| (object_ref(&key), again))
        });
        Controller::for_stream(subscribers, reader)
            .reconcile_on(again)
            .reconcile_on(self.referrers::<Secret>(scope, Reference::Secret))
            .reconcile_on(self.referrers::<ConfigMap>(scope, Reference::ConfigMap))
            .graceful_shutdown_on(shutdown)
            .run(reconcile, on_error, self)
            .for_each(|result| async {
                if let Err(error) = result {
                    debug!(%error, "looking at a Subscriber");
                }
            })
            .await;
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
        watcher(api::<PartialObjectMeta<K>>(&self.client, namespace), watch_config())
            .default_backoff()
            .inspect_err(|error| warn!(%error, kind = %K::kind(&()), "watching"))
            .filter_map(|event| async { event.ok() })
            .flat_map(move |event| {
                stream::iter(match event {
                    Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                        touched(&registry, &object, reference)
                    }
                    Event::Init | Event::InitDone => Vec::new(),
                })
            })
    }

    /// What is there to say about this Subscriber, and when to look again.
    async fn look(
        &self,
        subscriber: &Subscriber,
        key: &LaneKey,
    ) -> Result<(Finding, Gate, Option<Duration>), Unresolved> {
        let target = match self.resolver.target(&key.namespace, &subscriber.spec).await {
            Ok(target) => target,
            Err(Unresolved::Subscriber { reason, message }) => {
                let token = matches!(reason, Reason::SecretNotFound | Reason::InvalidSecret)
                    .then(|| (false, reason, message.clone()));
                let ready = (false, reason, message);
                return Ok((Finding { ready, token }, Gate::Closed, Some(LOOK_AGAIN)));
            }
            Err(error) => return Err(error),
        };
        if subscriber.spec.suspend {
            let message = "spec.suspend is true: Notifications are held".to_owned();
            let ready = (true, Reason::Suspended, message);
            return Ok((Finding { ready, token: None }, Gate::Closed, None));
        }
        Ok(match target.tokens.token().await {
            Ok(_) => (
                Finding {
                    ready: (true, Reason::Operational, "Notifications are delivered".into()),
                    token: Some((true, Reason::TokenIssued, "the token service issued a token".into())),
                },
                Gate::Open(Arc::new(target)),
                None,
            ),
            Err(no_token) => {
                let (finding, look_again) = without_token(subscriber, no_token);
                (finding, Gate::Closed, Some(look_again))
            }
        })
    }

    async fn write(&self, subscriber: &Subscriber, finding: &Finding) -> Result<(), kube::Error> {
        let old = subscriber.status.clone().unwrap_or_default();
        let new = status(&old, finding, subscriber.metadata.generation, Timestamp::now());
        if new == old {
            return Ok(());
        }
        let (ready, reason, message) = &finding.ready;
        let name = subscriber.name_any();
        let namespace = subscriber.namespace().unwrap_or_default();
        info!(subscriber = %format_args!("{namespace}/{name}"), ready, %reason, %message, "Subscriber looked at");
        let api = Api::<Subscriber>::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": new }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match tokio::time::timeout(API_TIMEOUT, api.patch_status(&name, &params, &patch)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
            Ok(result) => result.map(drop),
            Err(_) => Ok(()), // the next look writes it
        }
    }
}

async fn reconcile(subscriber: Arc<Subscriber>, context: Arc<Subscribers>) -> Result<Action, Error> {
    let key = lane_key(&subscriber);
    context.registry.refers_to(&key, references(&subscriber.spec));
    let (finding, gate, look_again) = context.look(&subscriber, &key).await?;
    context.registry.publish(&key, &subscriber.uid().unwrap_or_default(), gate);
    context.write(&subscriber, &finding).await.map_err(Error::Write)?;
    Ok(look_again.map_or_else(Action::await_change, Action::requeue))
}

fn on_error(subscriber: Arc<Subscriber>, error: &Error, _: Arc<Subscribers>) -> Action {
    warn!(subscriber = %lane_key(&subscriber), %error, "will look at the Subscriber again");
    Action::requeue(TRY_AGAIN)
}

/// What a missing token means: until the first success the Subscriber is not ready; later only TokenAvailable says so,
/// unless somebody must act.
fn without_token(subscriber: &Subscriber, no_token: NoToken) -> (Finding, Duration) {
    let NoToken { error, ask_again } = no_token;
    let (reason, hint) = match error {
        TokenError::Rejected("invalid_client") => (
            Reason::TokenRejected,
            ": check client id and client secret in the Secret, and tokenService.clientAuthentication",
        ),
        TokenError::Rejected("invalid_scope") => (Reason::TokenRejected, ": check tokenService.scopes"),
        TokenError::Rejected(_) => {
            (Reason::TokenRejected, ": check tokenService and what the client is registered for")
        }
        _ => (Reason::TokenUnavailable, "; it will be asked again"),
    };
    let message = format!("{error}{hint}");
    let had_token = subscriber.status.as_ref().is_some_and(|status| {
        status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == Reason::Operational.as_str())
            && status.observed_generation == subscriber.metadata.generation
    });
    let ready = if had_token && reason == Reason::TokenUnavailable {
        (true, Reason::Operational, "Notifications wait for the token service: see TokenAvailable".to_owned())
    } else {
        (false, reason, message.clone())
    };
    let token = Some((false, reason, message));
    (Finding { ready, token }, ask_again.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)))
}

/// Keeps the registry up to date with one watch, deletions included.
struct Listing {
    registry: Arc<Registry>,
    namespace: Option<String>,
    /// What the listing under way has shown.
    shown: HashSet<LaneKey>,
}

impl Listing {
    fn register(&mut self, event: &Event<Subscriber>) {
        match event {
            Event::Init => self.shown.clear(),
            Event::InitApply(subscriber) => {
                self.shown.insert(lane_key(subscriber));
                self.exists(subscriber);
            }
            Event::InitDone => self.registry.only(self.namespace.as_deref(), &std::mem::take(&mut self.shown)),
            Event::Apply(subscriber) => self.exists(subscriber),
            Event::Delete(subscriber) => self.registry.gone(&lane_key(subscriber)),
        }
    }

    fn exists(&self, subscriber: &Subscriber) {
        self.registry.exists(lane_key(subscriber), subscriber.uid().unwrap_or_default());
    }
}

fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn touched<K: Resource>(
    registry: &Registry,
    object: &PartialObjectMeta<K>,
    reference: impl Fn(String) -> Reference,
) -> Vec<ObjectRef<Subscriber>> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    registry.referrers(namespace, &reference(name)).iter().map(object_ref).collect()
}

fn lane_key(subscriber: &Subscriber) -> LaneKey {
    LaneKey { namespace: subscriber.namespace().unwrap_or_default().into(), name: subscriber.name_any().into() }
}

fn object_ref(key: &LaneKey) -> ObjectRef<Subscriber> {
    ObjectRef::new(&key.name).within(&key.namespace)
}
