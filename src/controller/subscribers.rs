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
        Controller, Predicate, WatchStreamExt,
        controller::Action,
        predicates, reflector,
        reflector::ObjectRef,
        watcher::{self, Event, watcher},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    API_TIMEOUT, FIELD_MANAGER, WATCH_SECONDS,
    happenings::Pauses,
    in_namespace,
    listings::{Listing, Referents, lane_key, object_ref},
    registry::{Passage, Reference, Registry, Spec},
    resolve::{Resolver, Unresolved, references, seconds},
    subscriber_status::{Finding, status},
};
use crate::{
    api::{REQUEST_ANNOTATION, Subscriber, SubscriberReason as Reason, SubscriberStatus},
    dispatch::{Gate, LaneKey},
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
    /// The pauses written.
    pub pauses: Pauses,
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
        let mut referents = Referents { namespace: namespace.map(str::to_owned), reference, shown: HashSet::new() };
        watcher(in_namespace::<PartialObjectMeta<K>>(&self.client, namespace), watch_config())
            .default_backoff()
            .inspect_err(|error| warn!(%error, kind = %K::kind(&()), "watching"))
            .filter_map(|event| async { event.ok() })
            .flat_map(move |event| stream::iter(referents.observe(&registry, &event)))
    }

    /// What is there to say about this Subscriber.
    async fn look(&self, subscriber: &Subscriber, key: &LaneKey, requested: bool) -> Result<Look, Unresolved> {
        let spec = spec_of(subscriber);
        let expire_after = seconds(subscriber.spec.delivery.expire_after_seconds);
        let closed = |gate| Passage::Closed(gate, expire_after);
        if subscriber.spec.suspend {
            let message = "spec.suspend is true: Notifications are held".to_owned();
            return Ok(Look::new((true, Reason::Suspended, message), closed(Gate::Suspended)));
        }
        if self.registry.is_gone(key, &spec) {
            let message = "webhook.url answered 410: change it, or annotate with tidings.dev/reconcile-requested-at";
            return Ok(Look::new((false, Reason::EndpointGone, message.into()), closed(Gate::EndpointGone)));
        }
        let route = match self.resolver.route(&key.namespace, spec, &subscriber.spec).await {
            Ok(route) => route,
            Err(Unresolved::Subscriber { reason, message, of_credentials }) => {
                let token = of_credentials.then(|| (false, reason, message.clone()));
                let look = Look::new((false, reason, message), closed(Gate::SubscriberNotReady));
                return Ok(Look { token, again: Some(LOOK_AGAIN), ..look });
            }
            Err(error) => return Err(error),
        };
        self.registry.holds(key, route.target.tokens.clone());
        if requested {
            route.target.tokens.forget_failure().await;
        }
        Ok(match route.target.tokens.token().await {
            Ok(_) => {
                let pause = if requested { None } else { pause_of(&self.status_of(subscriber), route.expire_after) };
                let ready = (true, Reason::Operational, "Notifications are sent".into());
                let token = Some((true, Reason::TokenIssued, "the token service issued a token".into()));
                Look { token, ..Look::new(ready, Passage::Open(Arc::new(route), pause)) }
            }
            Err(no_token) => without_token(subscriber, no_token, closed(Gate::SubscriberNotReady)),
        })
    }

    async fn write(&self, subscriber: &Subscriber, look: &Look, requested: bool) -> Result<(), kube::Error> {
        let old = self.status_of(subscriber);
        let finding = Finding { ready: look.ready.clone(), token: look.token.clone() };
        let mut new = status(&old, &finding, subscriber.metadata.generation, Timestamp::now());
        if requested {
            new.paused_until_time = None;
            new.last_handled_request = request_of(subscriber);
        }
        if new == old {
            return Ok(());
        }
        let (ready, reason, message) = &look.ready;
        let key = lane_key(subscriber);
        if *ready {
            info!(subscriber = %key, %reason, why = message, "Subscriber is ready");
        } else {
            warn!(subscriber = %key, %reason, why = message, "Subscriber is not ready");
        }
        let mut patch = json!({ "conditions": new.conditions, "observedGeneration": new.observed_generation });
        if requested {
            // In a merge patch null removes.
            patch["pausedUntilTime"] = serde_json::Value::Null;
            patch["lastHandledRequest"] = json!(new.last_handled_request);
        }
        self.patch_status(&key, &Patch::Merge(json!({ "status": patch }))).await?;
        self.registry.wrote(&key, subscriber.uid().unwrap_or_default(), new);
        Ok(())
    }

    /// The status as this process wrote it last: the watch may not have shown it yet.
    fn status_of(&self, subscriber: &Subscriber) -> SubscriberStatus {
        let shown = subscriber.status.clone().unwrap_or_default();
        match self.registry.written(&lane_key(subscriber), &subscriber.uid().unwrap_or_default()) {
            // A pause that is shown beside an older status was ended since.
            Some(written) => {
                let is_old = shown.observed_generation != written.observed_generation
                    || shown.last_handled_request != written.last_handled_request;
                let paused_until_time = if is_old { None } else { shown.paused_until_time };
                SubscriberStatus { paused_until_time, ..written }
            }
            None => shown,
        }
    }

    /// Patches a Subscriber's status. One that is not there any more needs none.
    pub(super) async fn patch_status<P>(&self, key: &LaneKey, patch: &Patch<P>) -> Result<(), kube::Error>
    where
        P: Serialize + Debug,
    {
        let api = Api::<Subscriber>::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patched = tokio::time::timeout(API_TIMEOUT, api.patch_status(&key.name, &params, patch)).await;
        match patched.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into()))) {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop),
        }
    }
}

/// What a look at a Subscriber found.
struct Look {
    ready: (bool, Reason, String),
    token: Option<(bool, Reason, String)>,
    passage: Passage,
    again: Option<Duration>,
}

impl Look {
    fn new(ready: (bool, Reason, String), passage: Passage) -> Self {
        Self { ready, token: None, passage, again: None }
    }
}

async fn reconcile(subscriber: Arc<Subscriber>, context: Arc<Subscribers>) -> Result<Action, Error> {
    let key = lane_key(&subscriber);
    let spec = spec_of(&subscriber);
    let requested = is_requested(&subscriber, &context.status_of(&subscriber));
    context.registry.refers_to(&key, references(&subscriber.spec));
    if requested {
        context.registry.clear_gone(&key);
        context.pauses.forget(&key);
    } else if says_gone(&subscriber, &context.status_of(&subscriber)) {
        context.registry.mark_gone(&key, spec.clone());
    }
    let look = context.look(&subscriber, &key, requested).await?;
    context.registry.publish(&key, &spec, look.passage.clone(), requested);
    context.write(&subscriber, &look, requested).await.map_err(Error::Write)?;
    Ok(look.again.map_or_else(Action::await_change, Action::requeue))
}

/// Whether the spec, or the annotation that asks for a new look, is newer than what the status tells of.
fn is_requested(subscriber: &Subscriber, status: &SubscriberStatus) -> bool {
    let looked_before = status.observed_generation.is_some_and(|generation| generation >= 0);
    let changed = looked_before && status.observed_generation != subscriber.metadata.generation;
    let request = request_of(subscriber);
    changed || (request.is_some() && request != status.last_handled_request)
}

fn request_of(subscriber: &Subscriber) -> Option<String> {
    // As long as the status may hold.
    subscriber.annotations().get(REQUEST_ANNOTATION).map(|value| value.chars().take(256).collect())
}

/// Whether the status tells that the webhook of this very spec is gone.
fn says_gone(subscriber: &Subscriber, status: &SubscriberStatus) -> bool {
    status.observed_generation == subscriber.metadata.generation
        && status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == Reason::EndpointGone.as_str())
}

/// The end of a pause that is still to come. A time written by a wrong clock is not trusted past the expiry.
fn pause_of(status: &SubscriberStatus, longest: Duration) -> Option<std::time::Instant> {
    let until = status.paused_until_time.as_ref()?.0;
    let wait = Duration::try_from(until.duration_since(Timestamp::now())).ok()?;
    (!wait.is_zero()).then(|| std::time::Instant::now() + wait.min(longest))
}

/// Which spec of which Subscriber this is.
fn spec_of(subscriber: &Subscriber) -> Spec {
    (subscriber.uid().unwrap_or_default(), subscriber.metadata.generation.unwrap_or_default())
}

fn on_error(subscriber: Arc<Subscriber>, error: &Error, _: Arc<Subscribers>) -> Action {
    warn!(subscriber = %lane_key(&subscriber), %error, "will look at the Subscriber again");
    Action::requeue(TRY_AGAIN)
}

/// What a missing token means: until the first success the Subscriber is not ready; later only TokenAvailable says so,
/// unless somebody must act.
fn without_token(subscriber: &Subscriber, no_token: NoToken, passage: Passage) -> Look {
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
    let again = ask_again.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    Look { ready, token: Some((false, reason, message)), passage, again: Some(again) }
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
