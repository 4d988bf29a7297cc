//! One look at a Subscriber, from what is asked of it to its status and its gate.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};
use url::Url;

use super::{
    Error, Subscribers,
    examine::{Chain, Step},
    handshake::{Finding, describe},
    status::{Findings, Word},
    writer::pause as pause_until,
};
use crate::{
    api::{REQUEST_ANNOTATION, Subscriber, SubscriberReason as Reason, SubscriberStatus, TEST_ANNOTATION},
    controller::{
        attempt::pause,
        listings::lane_key,
        registry::{Passage, Registry, Spec},
        resolve::{Route, Unresolved, references, seconds},
    },
    dispatch::{Gate, LaneKey},
};

/// Looks at a Subscriber and acts on what it finds: its gate opens or closes, its status says why.
pub(super) async fn reconcile(subscriber: Arc<Subscriber>, context: Arc<Subscribers>) -> Result<Action, Error> {
    if !context.leadership.holds() {
        return Err(Unresolved::NotLeading.into());
    }
    let registry = &context.registry;
    let Some(visit) = Visit::begin(&subscriber, registry) else { return Ok(Action::await_change()) };
    let (key, uid) = (&visit.key, &visit.spec.0);
    registry.refers_to(key, uid, references(&subscriber.spec));
    if visit.requested {
        registry.clear(key, uid);
        // At once: a pause that the webhook asks for from now on is kept.
        registry.page(key, uid, |page| page.amend(|status| status.paused_until_time = None));
    } else if says_gone(&subscriber, &visit.status) {
        registry.mark_gone(key, &visit.spec);
    }
    let look = context.look(&visit).await?;
    let status = registry.page(key, uid, |page| {
        page.amend(|status| look.put_into(status, &visit, &context.resolver.origin));
        page.wanted().clone()
    });
    let passage = match look.way {
        Ok(route) => {
            let left = status.map(|status| pause_left(&status, route.expire_after)).unwrap_or_default();
            Passage::Open(route, (!left.is_zero()).then(|| std::time::Instant::now() + left))
        }
        Err(gate) => Passage::Closed(gate, visit.expire_after()),
    };
    registry.publish(key, &visit.spec, passage, visit.requested);
    context.write(key, uid).await.map_err(Error::Write)?;
    Ok(look.again.map_or_else(Action::await_change, Action::requeue))
}

impl Subscribers {
    /// What there is to say about this Subscriber, and whether its Notifications may go.
    async fn look(&self, visit: &Visit<'_>) -> Result<Look, Unresolved> {
        let held = Word::yes(Reason::Suspended, "spec.suspend is true: Notifications are held");
        let gone = Word::no(
            Reason::EndpointGone,
            "webhook.url answered 410: change it, or annotate the Subscriber with tidings.dev/reconcile-requested-at",
        );
        let suspended = visit.subscriber.spec.suspend;
        let chain = if self.registry.is_gone(&visit.key, &visit.spec) {
            Chain::stopped(Step::Delivery, gone.clone())
        } else if suspended && visit.test.is_none() {
            Chain::stopped(Step::Delivery, held.clone())
        } else {
            self.examine(visit).await?
        };
        let tested = match &visit.test {
            Some(_) if !self.leadership.holds() => return Err(Unresolved::NotLeading),
            Some(value) => Some(self.test(visit, &chain, value).await),
            None => None,
        };
        if tested.as_ref().is_some_and(|tested| tested.gone) {
            self.registry.mark_gone(&visit.key, &visit.spec);
        }
        let Chain { token, consent, end, again } = chain;
        let (ready, way) = match end {
            _ if suspended => (held, Err(Gate::Suspended)),
            _ if self.registry.is_gone(&visit.key, &visit.spec) => (gone, Err(Gate::EndpointGone)),
            Ok(route) => (Word::yes(Reason::Operational, "Notifications are sent"), Ok(route)),
            Err(stop) => (stop.ready, Err(Gate::SubscriberNotReady)),
        };
        let silence = consent.as_ref().and_then(|consent| consent.silence).map(|asked| asked.min(visit.expire_after()));
        let pause = silence.map(|asked| pause(asked, Timestamp::now()).0);
        let pause = pause.max(tested.as_ref().and_then(|tested| tested.pause));
        let validated = consent.as_ref().and_then(|consent| consent.validated.clone());
        let findings = Findings { ready, token, validated, tested: tested.map(|tested| tested.word) };
        Ok(Look { findings, consent, pause, way, again })
    }
}

/// One look at a Subscriber, as it began.
pub(super) struct Visit<'a> {
    pub(super) subscriber: &'a Subscriber,
    pub(super) key: LaneKey,
    pub(super) spec: Spec,
    /// The status as this process knew it then.
    pub(super) status: SubscriberStatus,
    /// The spec changed, or somebody asked for a new look: what may be opened is opened.
    pub(super) requested: bool,
    /// The test that somebody asked for.
    pub(super) test: Option<String>,
}

impl<'a> Visit<'a> {
    /// None: the Subscriber is not there any more.
    fn begin(subscriber: &'a Subscriber, registry: &Registry) -> Option<Self> {
        let (key, spec) = (lane_key(subscriber), spec_of(subscriber));
        let status = registry.page(&key, &spec.0, |page| page.wanted().clone())?;
        let requested = is_requested(subscriber, &status);
        let test =
            annotation(subscriber, TEST_ANNOTATION).filter(|value| status.last_handled_test.as_ref() != Some(value));
        Some(Self { subscriber, key, spec, status, requested, test })
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.subscriber.metadata.generation
    }

    fn expire_after(&self) -> Duration {
        seconds(self.subscriber.spec.delivery.expire_after_seconds)
    }

    /// How long the webhook is to be left alone.
    pub(super) fn silence(&self) -> Duration {
        if self.requested { Duration::ZERO } else { pause_left(&self.status, self.expire_after()) }
    }
}

/// What a look at a Subscriber found.
struct Look {
    findings: Findings,
    consent: Option<Finding>,
    /// The webhook asks to be left alone until then.
    pause: Option<Timestamp>,
    way: Result<Arc<Route>, Gate>,
    again: Option<Duration>,
}

impl Look {
    fn put_into(&self, status: &mut SubscriberStatus, visit: &Visit<'_>, origin: &HeaderValue) {
        self.findings.put_into(status, visit.generation(), Timestamp::now());
        let host = Url::parse(&visit.subscriber.spec.webhook.url.0).ok();
        let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
        describe(status, host, origin.to_str().unwrap_or_default(), self.consent.as_ref());
        if let Some(until) = self.pause {
            pause_until(status, until);
        }
        if visit.requested {
            status.last_handled_request = annotation(visit.subscriber, REQUEST_ANNOTATION);
        }
        if visit.test.is_some() {
            status.last_handled_test.clone_from(&visit.test);
        }
    }
}

/// Whether the spec, or the annotation that asks for a new look, is newer than what the status tells of.
fn is_requested(subscriber: &Subscriber, status: &SubscriberStatus) -> bool {
    let looked_before = status.observed_generation.is_some_and(|generation| generation >= 0);
    let changed = looked_before && status.observed_generation != subscriber.metadata.generation;
    let request = annotation(subscriber, REQUEST_ANNOTATION);
    changed || (request.is_some() && request != status.last_handled_request)
}

/// The value of an annotation, cut to what the status may hold.
fn annotation(subscriber: &Subscriber, name: &str) -> Option<String> {
    subscriber.annotations().get(name).map(|value| value.chars().take(256).collect())
}

/// Whether the status tells that the webhook of this very spec is gone.
fn says_gone(subscriber: &Subscriber, status: &SubscriberStatus) -> bool {
    status.observed_generation == subscriber.metadata.generation
        && status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == Reason::EndpointGone.as_str())
}

/// How much of a pause is left. A time written by a wrong clock is not trusted past the expiry.
fn pause_left(status: &SubscriberStatus, longest: Duration) -> Duration {
    let left = status.paused_until_time.as_ref().map(|until| until.0.duration_since(Timestamp::now()));
    left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default().min(longest)
}

/// Which spec of which Subscriber this is.
fn spec_of(subscriber: &Subscriber) -> Spec {
    (subscriber.uid().unwrap_or_default(), subscriber.metadata.generation.unwrap_or_default())
}
