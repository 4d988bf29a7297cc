//! What is known of one Subscriber: which version of its spec is in force, and what forbids a request to its webhook. Pure:
//! times are passed in.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::SubscriberStatus;
use tidings_delivery::oauth::TokenSource;
use tidings_queue::{Gate, SpecVersion};

use super::{referrers::Reference, status_cell::StatusCell, step::Step, validation::FailedValidation};
use crate::contract::Route;

/// A Subscriber as the watch shows it.
pub struct ObservedSubscriber {
    /// Which spec of which Subscriber.
    pub spec: SpecVersion,
    /// Its `delivery.expireAfterSeconds`.
    pub expire_after: Duration,
    /// Its status.
    pub status: SubscriberStatus,
    /// The resourceVersion.
    pub version: u64,
}

/// Why a request to a webhook may not begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The Subscriber was deleted, or its spec is another one by now.
    Changed,
    /// The webhook answered 410.
    Gone,
    /// The webhook requested a pause.
    Paused,
    /// The latest reconcile closed the way.
    Closed,
}

/// How a pass over a Subscriber begins.
pub struct Begun {
    /// The status as this process knows it.
    pub status: SubscriberStatus,
    /// The spec is another than that of the pass before.
    pub changed: bool,
    /// The spec changed, or an annotation requests a reconcile: what may be opened is opened.
    pub requested: bool,
}

/// One Subscriber, under the lock of the roster: the version of its spec in force, what forbids a request to its webhook, what it
/// refers to, and its status.
pub(super) struct Member {
    uid: Arc<str>,
    /// The newest generation that the watch showed.
    generation: i64,
    /// Its `delivery.expireAfterSeconds`: no pause that is read is believed beyond it.
    expire_after: Duration,
    /// Whether the latest reconcile opened the way.
    open: bool,
    /// The end of the pause, as the engine was given it, and the time in the status that it comes from.
    paused_until: Option<Instant>,
    pause_known: Option<Timestamp>,
    /// The generation, and the request, that the latest pass began with.
    begun: Option<i64>,
    request: Option<String>,
    /// What may be opened is to be opened with the next answer of a reconcile.
    reset: bool,
    references: HashSet<Reference>,
    /// The generation whose webhook answered 410.
    gone: Option<i64>,
    /// Held also while the Subscriber is in trouble, so that a failure is remembered until it is time to ask again.
    tokens: Option<Arc<TokenSource>>,
    /// The last request for the webhook's consent, if there was no answer.
    failed_validation: Option<FailedValidation>,
    /// Which step the pass that is under way is at (None: there is none).
    step: Option<Step>,
    cell: StatusCell,
}

impl Member {
    /// What is known of a Subscriber that is new.
    pub(super) fn new(
        ObservedSubscriber { spec: SpecVersion { uid, generation }, expire_after, status, version }: ObservedSubscriber,
    ) -> Self {
        Self {
            uid,
            generation,
            expire_after,
            open: false,
            paused_until: None,
            pause_known: None,
            begun: None,
            request: None,
            reset: false,
            references: HashSet::new(),
            gone: None,
            tokens: None,
            failed_validation: None,
            step: None,
            cell: StatusCell::new(status, version),
        }
    }

    /// The Subscriber's uid.
    pub(super) fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// The Subscriber's status.
    pub(super) fn cell(&self) -> &StatusCell {
        &self.cell
    }

    /// The Subscriber's status, to change it.
    pub(super) fn cell_mut(&mut self) -> &mut StatusCell {
        &mut self.cell
    }

    /// The version of the spec that the latest pass began with (None: there was no pass yet).
    fn in_force(&self) -> Option<SpecVersion> {
        self.begun.map(|generation| SpecVersion::new(self.uid.clone(), generation))
    }

    /// The watch shows this generation. True if it is a new one, which is not open before its reconcile has ended.
    pub(super) fn renew(&mut self, generation: i64, expire_after: Duration) -> bool {
        let is_new = generation > self.generation;
        if is_new {
            (self.generation, self.expire_after, self.open) = (generation, expire_after, false);
        }
        is_new
    }

    /// A pass over this spec begins; `request` is the value of the annotation that requests it. What a new spec or request ends (a pause, a
    /// 410, the wait for the webhook's consent) ends now, once, however often the pass has to begin again.
    pub(super) fn begin(&mut self, spec: &SpecVersion, request: Option<String>) -> Begun {
        let status = self.cell.desired();
        let before = self.begun.or(status.observed_generation).filter(|generation| *generation >= 0);
        let changed = before.is_some_and(|generation| generation != spec.generation);
        let handled = self.request.as_ref().or(status.last_handled_request.as_ref());
        let asked = request.is_some() && request.as_ref() != handled;
        self.begun = Some(spec.generation);
        if asked {
            self.request = request;
        }
        if changed || asked {
            (self.gone, self.failed_validation, self.reset, self.paused_until) = (None, None, true, None);
            self.cell.amend(|status| status.paused_until_time = None);
        }
        Begun { status: self.cell.desired().clone(), changed, requested: self.reset }
    }

    /// What a reconcile of this spec found counts, as far as it still may: the way, or the gate that closes it.
    pub(super) fn decide(
        &mut self,
        spec: &SpecVersion,
        route_or_gate: Result<Arc<Route>, Gate>,
        expire_after: Duration,
    ) -> Result<Arc<Route>, Gate> {
        let route_or_gate = match route_or_gate {
            Ok(_) if self.is_gone(spec) => Err(Gate::EndpointGone),
            // The watch showed a newer spec meanwhile: its own reconcile follows.
            Ok(_) if self.generation > spec.generation => Err(Gate::SubscriberNotReady),
            route_or_gate => route_or_gate,
        };
        (self.open, self.expire_after) = (route_or_gate.is_ok(), expire_after);
        route_or_gate
    }

    /// Whether pause, open circuit and 410 end with the answer of this reconcile: once.
    pub(super) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// Nothing is sent until the pass that begins is over.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// The webhook of this spec answered 410. Returns the age at which its events expire, if that closes a way that was open.
    pub(super) fn note_gone(&mut self, spec: &SpecVersion) -> Option<Duration> {
        if !spec.concerns(self.in_force().as_ref()) {
            return None;
        }
        self.gone = self.gone.max(Some(spec.generation));
        let was_open = self.gone == Some(spec.generation) && std::mem::take(&mut self.open);
        was_open.then_some(self.expire_after)
    }

    /// Whether the webhook of this spec answered 410.
    pub(super) fn is_gone(&self, spec: &SpecVersion) -> bool {
        self.gone == Some(spec.generation)
    }

    /// The webhook of this spec requests a pause until `until`, that is for `wait`. The end of the pause; None: what the webhook
    /// of another spec requested ended with that spec.
    pub(super) fn pause(
        &mut self,
        spec: &SpecVersion,
        until: Timestamp,
        wait: Duration,
        now: Instant,
    ) -> Option<Instant> {
        if !spec.concerns(self.in_force().as_ref()) {
            return None;
        }
        self.cell.pause(until);
        let until = now + wait;
        self.paused_until = self.paused_until.max(Some(until));
        self.pause_known = self.cell.desired().paused_until_time.as_ref().map(|until| until.0);
        Some(until)
    }

    /// The end of the pause that the status holds. A time is believed up to the Subscriber's expiry from when it is first
    /// read: the engine and every POST go by this one end, whatever the wall clock does meanwhile.
    pub(super) fn pause_end(&mut self, now: Instant, clock: Timestamp) -> Option<Instant> {
        let known = self.cell.desired().paused_until_time.as_ref().map(|until| until.0);
        if known != self.pause_known {
            let silence = self.cell.silence(self.expire_after, clock);
            self.paused_until = self.paused_until.max((!silence.is_zero()).then(|| now + silence));
            self.pause_known = known;
        }
        self.paused_until.filter(|until| now < *until)
    }

    /// What forbids a request to the webhook of this spec now, whatever a reconcile found before.
    pub(super) fn held(&self, spec: &SpecVersion, now: Instant) -> Option<HeldBack> {
        if self.generation > spec.generation {
            Some(HeldBack::Changed)
        } else if self.is_gone(spec) {
            Some(HeldBack::Gone)
        } else if self.paused_until.is_some_and(|until| now < until) {
            Some(HeldBack::Paused)
        } else if !self.open {
            Some(HeldBack::Closed)
        } else {
            None
        }
    }

    /// What the Subscriber refers to.
    pub(super) fn references(&self) -> &HashSet<Reference> {
        &self.references
    }

    /// The Subscriber refers to these from now on. What it referred to before.
    pub(super) fn set_references(&mut self, references: HashSet<Reference>) -> HashSet<Reference> {
        std::mem::replace(&mut self.references, references)
    }

    /// Holds the Subscriber's source of tokens.
    pub(super) fn set_tokens(&mut self, tokens: Arc<TokenSource>) {
        self.tokens = Some(tokens);
    }

    /// The last request for the webhook's consent, if there was no answer.
    pub(super) fn failed_validation(&self) -> Option<FailedValidation> {
        self.failed_validation
    }

    /// A request for the webhook's consent had no answer, or (None) it had one.
    pub(super) fn set_failed_validation(&mut self, failed_validation: Option<FailedValidation>) {
        self.failed_validation = failed_validation;
    }

    /// Which step the pass is at (None: none is under way).
    pub(super) fn step(&self) -> Option<Step> {
        self.step
    }

    /// The pass is at this step; None: it is over.
    pub(super) fn set_step(&mut self, step: Option<Step>) {
        self.step = step;
    }
}
