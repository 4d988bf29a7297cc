//! One pass over a Subscriber: what it started with, and how it changes the roster.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tidings_api::{
    ConditionType, REQUEST_ANNOTATION, SubscriberReason as Reason, SubscriberStatus, TEST_ANNOTATION, was_handled,
    with_handled,
};
use tidings_delivery::{oauth::TokenSource, webhook::NoValidationResponse};
use tidings_queue::{Gate, SpecVersion, SubscriberKey};

use super::{
    member::{Begun, HeldBack},
    referrers::Reference,
    roster::Roster,
    status_cell::StatusCell,
    step::Step,
    stored_subscriber::StoredSubscriber,
    validation::FailedValidation,
};
use crate::contract::{Route, pause};

/// One pass over a Subscriber, from [`Self::begin`] to [`Self::publish`]. It holds the Subscriber as the watch showed
/// it. Its changes to the roster carry the version of the spec that it started with.
pub(super) struct Pass<'a> {
    subscriber: &'a StoredSubscriber,
    roster: &'a Roster,
    key: SubscriberKey,
    version: SpecVersion,
    begun: Begun,
    /// The value of the annotation, if it requests a new test.
    test: Option<String>,
}

impl<'a> Pass<'a> {
    /// Starts a pass. Returns None if the Subscriber no longer exists.
    pub(super) fn begin(subscriber: &'a StoredSubscriber, roster: &'a Roster) -> Option<Self> {
        let (key, version) = (subscriber.key(), subscriber.id());
        let begun = roster.begin(&key, &version, annotation(subscriber, REQUEST_ANNOTATION))?;
        let (last, handled) = (begun.status.last_handled_test.as_deref(), &begun.status.handled_tests);
        let test = annotation(subscriber, TEST_ANNOTATION).filter(|value| !was_handled(value, last, handled));
        Some(Self { subscriber, roster, key, version, begun, test })
    }

    /// The Subscriber as the watch showed it when the pass started.
    pub(super) fn subscriber(&self) -> &StoredSubscriber {
        self.subscriber
    }

    pub(super) fn key(&self) -> &SubscriberKey {
        &self.key
    }

    /// The version of the spec that is reconciled.
    pub(super) fn version(&self) -> &SpecVersion {
        &self.version
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.subscriber.metadata.generation
    }

    pub(super) fn expire_after(&self) -> Duration {
        self.subscriber.expire_after()
    }

    /// The status as this process knew it when the pass started.
    pub(super) fn status(&self) -> &SubscriberStatus {
        &self.begun.status
    }

    /// The value of the annotation that requests a test, if it is new.
    pub(super) fn test(&self) -> Option<&str> {
        self.test.as_deref()
    }

    /// Whether to query the endpoints again regardless of earlier responses: the spec changed, or an annotation
    /// requests it.
    pub(super) fn is_forced(&self) -> bool {
        self.begun.requested || self.test.is_some()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.subscriber.spec.as_ref().is_ok_and(|spec| spec.suspend)
    }

    /// Puts the spec of this pass in force. A changed spec closes the lane, so that no events are sent by the previous
    /// spec. A 410 in the status applies unless the spec changed or an annotation requests a reconcile.
    pub(super) fn put_in_force(&self, references: HashSet<Reference>) {
        self.roster.set_references(&self.key, &self.version.uid, references);
        if self.begun.changed {
            self.roster.close(&self.key, &self.version, self.expire_after());
        }
        if !self.begun.requested && self.status_is_gone() {
            self.note_gone();
        }
    }

    /// Whether the status says that the webhook of exactly this spec answered 410.
    fn status_is_gone(&self) -> bool {
        let ready = self.begun.status.condition(ConditionType::Ready);
        self.begun.status.observed_generation == self.generation()
            && ready.is_some_and(|ready| ready.reason == Reason::EndpointGone.as_str())
    }

    /// Sets the current step.
    pub(super) fn enter(&self, step: Step) {
        self.roster.set_step(&self.key, &self.version.uid, Some(step));
    }

    /// Keeps the Subscriber's token source in the roster. Returns the previous one.
    pub(super) fn keep(&self, tokens: Arc<TokenSource>) -> Option<Arc<TokenSource>> {
        self.roster.set_tokens(&self.key, &self.version.uid, tokens)
    }

    /// Whether the status says of exactly this spec that the token service accepted the client, so far.
    pub(super) fn had_token(&self) -> bool {
        let status = &self.begun.status;
        // Of this spec: a step that is under way may stand in the status before there was a token.
        let of_spec = |type_| status.condition(type_).filter(|found| found.observed_generation == self.generation());
        let reason = |type_| of_spec(type_).map(|condition| condition.reason.as_str());
        let token = reason(ConditionType::TokenAvailable);
        status.observed_generation == self.generation()
            && token != Some(Reason::TokenRejected.as_str())
            && (token == Some(Reason::TokenIssued.as_str())
                || reason(ConditionType::Ready) == Some(Reason::Operational.as_str()))
    }

    /// The last validation request, if it failed.
    pub(super) fn failed_validation(&self) -> Option<FailedValidation> {
        self.roster.failed_validation(&self.key, &self.version.uid)
    }

    /// Records that the webhook answered a validation request.
    pub(super) fn note_answer(&self) {
        self.roster.set_failed_validation(&self.key, &self.version.uid, None);
    }

    /// Records that a validation request failed. Returns the time until the next request.
    pub(super) fn note_no_answer(&self, error: NoValidationResponse) -> Duration {
        let now = Instant::now();
        let requested = error.retry_after();
        let failed_validation = FailedValidation::after(self.failed_validation(), error, now, rand::random());
        let wait = failed_validation.ask_again.saturating_duration_since(now);
        self.roster.set_failed_validation(&self.key, &self.version.uid, Some(failed_validation));
        if let Some(requested) = requested {
            self.pause(requested);
        }
        wait
    }

    /// How much longer the pause that the webhook requested lasts.
    pub(super) fn silence(&self) -> Duration {
        let silence = |cell: &mut StatusCell| cell.silence(self.expire_after(), Timestamp::now());
        self.roster.cell(&self.key, &self.version.uid, silence).unwrap_or_default()
    }

    /// Records that the webhook requests a pause of this length, starting now.
    pub(super) fn pause(&self, requested: Duration) {
        let (until, wait) = pause(requested.min(self.expire_after()), Timestamp::now());
        self.roster.pause(&self.key, &self.version, until, wait);
    }

    /// Records that the webhook answered 410.
    pub(super) fn note_gone(&self) {
        self.roster.note_gone(&self.key, &self.version);
    }

    /// Whether the webhook answered 410.
    pub(super) fn is_gone(&self) -> bool {
        self.roster.is_gone(&self.key, &self.version)
    }

    /// What forbids a request to the webhook now.
    pub(super) fn held(&self) -> Option<HeldBack> {
        self.roster.held(&self.key, &self.version)
    }

    /// Changes the status, and records in it which annotations the pass has handled.
    pub(super) fn conclude(&self, change: impl FnOnce(&mut SubscriberStatus)) {
        self.roster.conclude(&self.key, &self.version.uid, |status| {
            change(status);
            if self.begun.requested {
                status.last_handled_request = annotation(self.subscriber, REQUEST_ANNOTATION);
            }
            if let Some(test) = &self.test {
                status.handled_tests = with_handled(test, status.last_handled_test.as_deref(), &status.handled_tests);
                status.last_handled_test = Some(test.clone());
            }
        });
    }

    /// Opens the Subscriber's lane with this route, or closes it with this gate.
    pub(super) fn publish(&self, route_or_gate: Result<Arc<Route>, Gate>) {
        self.roster.publish(&self.key, &self.version, route_or_gate, self.expire_after());
    }
}

/// The value of an annotation, truncated to the limit of the status fields.
fn annotation(subscriber: &StoredSubscriber, name: &str) -> Option<String> {
    subscriber.annotations().get(name).map(|value| value.chars().take(256).collect())
}
