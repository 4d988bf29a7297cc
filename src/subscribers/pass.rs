//! One pass over a Subscriber: what it began with, and what it does to the roster on its way.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tidings_api::{ConditionType, REQUEST_ANNOTATION, SubscriberReason as Reason, SubscriberStatus, TEST_ANNOTATION};
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

/// One pass over a Subscriber, from [`Self::begin`] to [`Self::publish`]. It holds the Subscriber as the watch showed it, and changes
/// the roster by the version of the spec that it began with.
pub(super) struct Pass<'a> {
    subscriber: &'a StoredSubscriber,
    roster: &'a Roster,
    key: SubscriberKey,
    version: SpecVersion,
    /// As the pass began.
    begun: Begun,
    test: Option<String>,
}

impl<'a> Pass<'a> {
    /// Begins. None: the Subscriber is not there any more.
    pub(super) fn begin(subscriber: &'a StoredSubscriber, roster: &'a Roster) -> Option<Self> {
        let (key, version) = (subscriber.key(), subscriber.id());
        let begun = roster.begin(&key, &version, annotation(subscriber, REQUEST_ANNOTATION))?;
        let handled = begun.status.last_handled_test.as_ref();
        let test = annotation(subscriber, TEST_ANNOTATION).filter(|value| handled != Some(value));
        Some(Self { subscriber, roster, key, version, begun, test })
    }

    /// The Subscriber as the watch showed it last.
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

    /// The status as this process knew it when the pass began.
    pub(super) fn status(&self) -> &SubscriberStatus {
        &self.begun.status
    }

    /// The test that an annotation requests.
    pub(super) fn test(&self) -> Option<&str> {
        self.test.as_deref()
    }

    /// Whether endpoints are asked again, whatever is known of them: the spec changed, or an annotation requests it.
    pub(super) fn is_forced(&self) -> bool {
        self.begun.requested || self.test.is_some()
    }

    /// Whether the Subscriber is suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.subscriber.spec.as_ref().is_ok_and(|spec| spec.suspend)
    }

    /// Puts the spec of this pass in force: what the spec before permitted is not sent meanwhile, and a 410 that the status
    /// tells of counts.
    pub(super) fn put_in_force(&self, references: HashSet<Reference>) {
        self.roster.set_references(&self.key, &self.version.uid, references);
        if self.begun.changed {
            self.roster.close(&self.key, &self.version, self.expire_after());
        }
        if !self.begun.requested && self.says_gone() {
            self.note_gone();
        }
    }

    /// Whether the status tells that the webhook of this very spec is gone.
    fn says_gone(&self) -> bool {
        let ready = self.begun.status.condition(ConditionType::Ready);
        self.begun.status.observed_generation == self.generation()
            && ready.is_some_and(|ready| ready.reason == Reason::EndpointGone.as_str())
    }

    /// The pass is at this step from now on.
    pub(super) fn enter(&self, step: Step) {
        self.roster.set_step(&self.key, &self.version.uid, Some(step));
    }

    /// Keeps the Subscriber's source of tokens.
    pub(super) fn keep(&self, tokens: Arc<TokenSource>) {
        self.roster.set_tokens(&self.key, &self.version.uid, tokens);
    }

    /// The last request for the webhook's consent, if there was no answer.
    pub(super) fn failed_validation(&self) -> Option<FailedValidation> {
        self.roster.failed_validation(&self.key, &self.version.uid)
    }

    /// The webhook answered a request for its consent.
    pub(super) fn note_answer(&self) {
        self.roster.set_failed_validation(&self.key, &self.version.uid, None);
    }

    /// The webhook did not answer a request for its consent. How long until the next request.
    pub(super) fn note_no_answer(&self, error: NoValidationResponse) -> Duration {
        let now = Instant::now();
        let failed_validation = FailedValidation::after(self.failed_validation(), error, now, rand::random());
        self.roster.set_failed_validation(&self.key, &self.version.uid, Some(failed_validation));
        if let Some(asked) = error.retry_after() {
            self.pause(asked);
        }
        failed_validation.ask_again.saturating_duration_since(now)
    }

    /// How much longer the webhook requests silence.
    pub(super) fn silence(&self) -> Duration {
        let silence = |cell: &mut StatusCell| cell.silence(self.expire_after(), Timestamp::now());
        self.roster.cell(&self.key, &self.version.uid, silence).unwrap_or_default()
    }

    /// The webhook requests a pause of this length, from now on.
    pub(super) fn pause(&self, asked: Duration) {
        let (until, wait) = pause(asked.min(self.expire_after()), Timestamp::now());
        self.roster.pause(&self.key, &self.version, until, wait);
    }

    /// The webhook answered 410.
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

    /// Changes the status, and notes which annotations are handled by that.
    pub(super) fn conclude(&self, change: impl FnOnce(&mut SubscriberStatus)) {
        self.roster.cell(&self.key, &self.version.uid, |cell| {
            cell.amend(|status| {
                change(status);
                if self.begun.requested {
                    status.last_handled_request = annotation(self.subscriber, REQUEST_ANNOTATION);
                }
                if self.test.is_some() {
                    status.last_handled_test.clone_from(&self.test);
                }
            });
        });
    }

    /// Opens the Subscriber by this route, or closes it.
    pub(super) fn publish(&self, route_or_gate: Result<Arc<Route>, Gate>) {
        self.roster.publish(&self.key, &self.version, route_or_gate, self.expire_after());
    }
}

/// The value of an annotation, cut to what the status may hold.
fn annotation(subscriber: &StoredSubscriber, name: &str) -> Option<String> {
    subscriber.annotations().get(name).map(|value| value.chars().take(256).collect())
}
