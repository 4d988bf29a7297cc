//! One look at a Subscriber, from what is asked of it to its status and its gate.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tidings_api::{ConditionType, REQUEST_ANNOTATION, SubscriberReason as Reason, SubscriberStatus, TEST_ANNOTATION};
use tidings_queue::{Gate, SpecVersion, SubscriberKey};
use url::Url;

use super::{
    Error, Subscribers,
    examine::{Chain, Step},
    handshake::{Finding, describe},
    registry::Registry,
    resolve::{Unresolved, references},
    standing::Begun,
    status::{Findings, Word},
    stored_subscriber::StoredSubscriber,
};
use crate::contract::Route;

/// Looks at a Subscriber and acts on what it finds: its gate opens or closes, its status says why. Returns when to look at
/// it again.
pub(super) async fn reconcile(subscriber: &StoredSubscriber, context: &Subscribers) -> Result<Option<Duration>, Error> {
    if !context.leadership.holds(&subscriber.key()) {
        return Err(Unresolved::NotLeading.into());
    }
    let registry = &context.registry;
    let Some(visit) = Visit::begin(subscriber, registry) else { return Ok(None) };
    let (key, uid) = (&visit.key, &visit.spec.uid);
    registry.refers_to(key, uid, subscriber.spec.as_deref().map(references).unwrap_or_default());
    if visit.changed {
        // What the new spec does not permit must not go by the old one meanwhile.
        registry.close(key, &visit.spec, visit.expire_after());
    }
    if !visit.requested && says_gone(subscriber, &visit.status) {
        registry.mark_gone(key, &visit.spec);
    }
    let look = match context.look(&visit).await {
        Ok(look) => look,
        Err(error) => {
            // What it has found so far may be that the webhook is to be left alone. Unwritten, it is the next look's to write.
            drop(context.write(key, uid).await);
            return Err(error.into());
        }
    };
    registry.page(key, uid, |page| page.amend(|status| look.put_into(status, &visit, &context.resolver.origin)));
    registry.publish(key, &visit.spec, look.way, visit.expire_after());
    context.write(key, uid).await.map_err(Error::Write)?;
    Ok(look.again)
}

impl Subscribers {
    /// What there is to say about this Subscriber, and whether its Notifications may go.
    async fn look(&self, visit: &Visit<'_>) -> Result<Look, Unresolved> {
        let held = Word::yes(Reason::Suspended, "spec.suspend is true: Notifications are held");
        let suspended = visit.subscriber.spec.as_ref().is_ok_and(|spec| spec.suspend);
        let chain = if self.registry.is_gone(&visit.key, &visit.spec) {
            Chain::stopped(Step::Delivery, Word::gone())
        } else if suspended && visit.test.is_none() {
            Chain::stopped(Step::Delivery, held.clone())
        } else {
            match &visit.subscriber.spec {
                Ok(spec) => self.examine(visit, spec).await?,
                Err(fault) => Chain::stopped(Step::Secret, Word::no(Reason::InvalidSpec, &fault.message)),
            }
        };
        let tested = match &visit.test {
            Some(value) => Some(self.test(visit, &chain, value).await?),
            None => None,
        };
        let Chain { token, consent, end, again } = chain;
        let (ready, way) = match end {
            _ if suspended => (held, Err(Gate::Suspended)),
            _ if self.registry.is_gone(&visit.key, &visit.spec) => (Word::gone(), Err(Gate::EndpointGone)),
            Ok(route) => (Word::yes(Reason::Operational, "Notifications are sent"), Ok(route)),
            Err(stop) => (stop.ready, Err(Gate::SubscriberNotReady)),
        };
        let validated = consent.as_ref().and_then(|consent| consent.validated.clone());
        let findings = Findings { ready, token, validated, tested };
        Ok(Look { findings, consent, way, again })
    }
}

/// One look at a Subscriber, as it began.
pub(super) struct Visit<'a> {
    pub(super) subscriber: &'a StoredSubscriber,
    pub(super) key: SubscriberKey,
    pub(super) spec: SpecVersion,
    /// The status as this process knew it then.
    pub(super) status: SubscriberStatus,
    /// The spec is another than that of the look before.
    pub(super) changed: bool,
    /// The spec changed, or somebody asked for a new look: what may be opened is opened.
    pub(super) requested: bool,
    /// The test that somebody asked for.
    pub(super) test: Option<String>,
}

impl<'a> Visit<'a> {
    /// None: the Subscriber is not there any more.
    fn begin(subscriber: &'a StoredSubscriber, registry: &Registry) -> Option<Self> {
        let (key, spec) = (subscriber.key(), subscriber.id());
        let request = annotation(subscriber, REQUEST_ANNOTATION);
        let Begun { status, changed, requested } = registry.begin(&key, &spec, request)?;
        let test =
            annotation(subscriber, TEST_ANNOTATION).filter(|value| status.last_handled_test.as_ref() != Some(value));
        Some(Self { subscriber, key, spec, status, changed, requested, test })
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.subscriber.metadata.generation
    }

    pub(super) fn expire_after(&self) -> Duration {
        self.subscriber.expire_after()
    }
}

/// What a look at a Subscriber found.
struct Look {
    findings: Findings,
    consent: Option<Finding>,
    way: Result<Arc<Route>, Gate>,
    again: Option<Duration>,
}

impl Look {
    fn put_into(&self, status: &mut SubscriberStatus, visit: &Visit<'_>, origin: &HeaderValue) {
        self.findings.put_into(status, visit.generation(), Timestamp::now());
        describe(status, &host(visit.subscriber), origin.to_str().unwrap_or_default(), self.consent.as_ref());
        if visit.requested {
            status.last_handled_request = annotation(visit.subscriber, REQUEST_ANNOTATION);
        }
        if visit.test.is_some() {
            status.last_handled_test.clone_from(&visit.test);
        }
    }
}

/// The host of the webhook, if the spec names one.
pub(super) fn host(subscriber: &StoredSubscriber) -> String {
    let url = subscriber.spec.as_ref().ok().and_then(|spec| Url::parse(&spec.webhook.url.0).ok());
    url.as_ref().and_then(Url::host_str).unwrap_or_default().to_owned()
}

/// The value of an annotation, cut to what the status may hold.
fn annotation(subscriber: &StoredSubscriber, name: &str) -> Option<String> {
    subscriber.annotations().get(name).map(|value| value.chars().take(256).collect())
}

/// Whether the status tells that the webhook of this very spec is gone.
fn says_gone(subscriber: &StoredSubscriber, status: &SubscriberStatus) -> bool {
    status.observed_generation == subscriber.metadata.generation
        && status.condition(ConditionType::Ready).is_some_and(|c| c.reason == Reason::EndpointGone.as_str())
}
