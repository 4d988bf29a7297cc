//! Keeps what is known of one Subscriber: which version of its spec is in force, and what forbids a request to its
//! webhook. Pure: times are passed in.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tidings_api::SubscriberStatus;
use tidings_delivery::oauth::TokenSource;
use tidings_queue::{Gate, SpecVersion};

use super::{
    progress::{Progress, waits_for_its_turn},
    referrers::Reference,
    status_cell::StatusCell,
    step::Step,
    validation::FailedValidation,
};
use crate::contract::Route;

/// A Subscriber as the watch shows it.
pub struct ObservedSubscriber {
    /// The Subscriber's uid and the generation of its spec.
    pub spec: SpecVersion,
    /// The Subscriber's `delivery.expireAfterSeconds`.
    pub expire_after: Duration,
    /// The Subscriber's status.
    pub status: SubscriberStatus,
    /// The Subscriber's resourceVersion.
    pub version: u64,
}

/// Why no request may be sent to a webhook now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The Subscriber was deleted, or its spec has changed.
    Changed,
    /// The webhook answered 410.
    Gone,
    /// The webhook requested a pause.
    Paused,
    /// The latest reconcile closed the lane.
    Closed,
}

/// The state in which a pass over a Subscriber starts.
pub struct Begun {
    /// The status as this process knows it.
    pub status: SubscriberStatus,
    /// The spec differs from the spec of the previous pass.
    pub changed: bool,
    /// The spec changed, or an annotation requests a reconcile: pauses, open circuits and 410s end.
    pub requested: bool,
}

/// One Subscriber, protected by the roster's lock: the version of its spec in force, what forbids a request to its
/// webhook, the objects that it refers to, and its status.
pub(super) struct Member {
    uid: Arc<str>,
    /// The newest generation that the watch showed.
    generation: i64,
    /// The Subscriber's `delivery.expireAfterSeconds`: the limit of a pause that is read from the status.
    expire_after: Duration,
    /// Whether the latest reconcile opened the lane.
    open: bool,
    /// The end of the pause as the engine received it, and the time in the status that it comes from.
    paused_until: Option<Instant>,
    pause_known: Option<Timestamp>,
    /// The generation, and the requested reconcile, that the latest pass started with.
    begun: Option<i64>,
    request: Option<String>,
    /// The next result of a reconcile resets the lane: a pause, an open circuit and a 410 end.
    reset: bool,
    references: HashSet<Reference>,
    /// The generation whose webhook answered 410.
    gone: Option<i64>,
    /// Kept also while the Subscriber is not ready, so that a failed token request is remembered until the next one is
    /// due.
    tokens: Option<Arc<TokenSource>>,
    /// The last validation request, if it failed.
    failed_validation: Option<FailedValidation>,
    /// The current step of the pass under way, and since when (None: no pass is under way).
    step: Option<(Step, Instant)>,
    /// Whether the pass under way has another token source than the pass before.
    has_new_tokens: bool,
    cell: StatusCell,
}

impl Member {
    /// A Subscriber of which no pass has started yet.
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
            has_new_tokens: false,
            cell: StatusCell::new(status, version),
        }
    }

    pub(super) fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    pub(super) fn cell(&self) -> &StatusCell {
        &self.cell
    }

    pub(super) fn cell_mut(&mut self) -> &mut StatusCell {
        &mut self.cell
    }

    /// The version of the spec that the latest pass started with (None: there was no pass yet).
    fn in_force(&self) -> Option<SpecVersion> {
        self.begun.map(|generation| SpecVersion::new(self.uid.clone(), generation))
    }

    /// Records the generation that the watch shows. Returns true if it is new: its lane stays closed until its
    /// reconcile has ended.
    pub(super) fn renew(&mut self, generation: i64, expire_after: Duration) -> bool {
        let is_new = generation > self.generation;
        if is_new {
            (self.generation, self.expire_after, self.open) = (generation, expire_after, false);
        }
        is_new
    }

    /// Starts a pass over this spec. `request` is the value of the annotation that requests a reconcile. A new spec or
    /// a new request ends a pause, a 410 and the wait for the next validation request. They end once, no matter how
    /// often the pass starts again.
    pub(super) fn begin(&mut self, spec: &SpecVersion, request: Option<String>) -> Begun {
        let status = self.cell.desired();
        let before = self.begun.or(status.observed_generation).filter(|generation| *generation >= 0);
        let changed = before.is_some_and(|generation| generation != spec.generation);
        let handled = self.request.as_ref().or(status.last_handled_request.as_ref());
        let is_new_request = request.is_some() && request.as_ref() != handled;
        self.begun = Some(spec.generation);
        if is_new_request {
            self.request = request;
        }
        if changed || is_new_request {
            (self.gone, self.failed_validation, self.reset, self.paused_until) = (None, None, true, None);
            self.cell.amend(|status| status.paused_until_time = None);
        }
        Begun { status: self.cell.desired().clone(), changed, requested: self.reset }
    }

    /// Applies the result of a reconcile of this spec, corrected by what has happened since: the route, or the gate
    /// that closes the lane.
    pub(super) fn decide(
        &mut self,
        spec: &SpecVersion,
        route_or_gate: Result<Arc<Route>, Gate>,
        expire_after: Duration,
    ) -> Result<Arc<Route>, Gate> {
        let route_or_gate = match route_or_gate {
            Ok(_) if self.is_gone(spec) => Err(Gate::EndpointGone),
            // The watch has shown a newer spec since: the reconcile of that spec follows.
            Ok(_) if self.generation > spec.generation => Err(Gate::SubscriberNotReady),
            route_or_gate => route_or_gate,
        };
        (self.open, self.expire_after) = (route_or_gate.is_ok(), expire_after);
        route_or_gate
    }

    /// Whether the result of this reconcile ends a pause, an open circuit and a 410. True once.
    pub(super) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// Closes the lane until the pass that is starting has ended.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Records that the webhook of this spec answered 410. Returns the age at which its events expire if this closes an
    /// open lane.
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

    /// Records that the webhook of this spec requests a pause until `until`, that is for `wait`. Returns the end of the
    /// pause, or None if the request came from the webhook of another spec: that pause ended with that spec.
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

    /// The end of the pause in the status: at most `expire_after` from when the time was first read. The engine and
    /// every POST use this one end, even if the wall clock changes.
    pub(super) fn pause_end(&mut self, now: Instant, clock: Timestamp) -> Option<Instant> {
        let known = self.cell.desired().paused_until_time.as_ref().map(|until| until.0);
        if known != self.pause_known {
            let silence = self.cell.silence(self.expire_after, clock);
            self.paused_until = self.paused_until.max((!silence.is_zero()).then(|| now + silence));
            self.pause_known = known;
        }
        self.paused_until.filter(|until| now < *until)
    }

    /// What forbids a request to the webhook of this spec now, regardless of the last reconcile's result.
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

    pub(super) fn references(&self) -> &HashSet<Reference> {
        &self.references
    }

    /// Replaces the Subscriber's references and returns the previous ones.
    pub(super) fn set_references(&mut self, references: HashSet<Reference>) -> HashSet<Reference> {
        std::mem::replace(&mut self.references, references)
    }

    /// Replaces the token source and returns the previous one.
    pub(super) fn set_tokens(&mut self, tokens: Arc<TokenSource>) -> Option<Arc<TokenSource>> {
        let previous = self.tokens.replace(tokens.clone());
        self.has_new_tokens = previous.as_ref().is_some_and(|previous| !Arc::ptr_eq(previous, &tokens));
        previous
    }

    pub(super) fn failed_validation(&self) -> Option<FailedValidation> {
        self.failed_validation.clone()
    }

    /// Records a failed validation request, or (None) that one succeeded.
    pub(super) fn set_failed_validation(&mut self, failed_validation: Option<FailedValidation>) {
        self.failed_validation = failed_validation;
    }

    /// Sets the current step of the pass (None: the pass has its result).
    pub(super) fn set_step(&mut self, step: Option<Step>, now: Instant) {
        self.step = step.map(|step| (step, now));
        if step.is_none() {
            self.has_new_tokens = false;
        }
    }

    /// Whether this is the newest spec that the watch showed.
    pub(super) fn is_of(&self, spec: &SpecVersion) -> bool {
        self.generation == spec.generation
    }

    /// Whether a pass is at a step.
    pub(super) fn is_at_a_step(&self) -> bool {
        self.step.is_some()
    }

    /// What the status must say now, while no events are sent and the pass under way takes long (None: the status
    /// stands).
    pub(super) fn progress(&self, now: Instant) -> Option<Progress> {
        let status = self.cell.desired();
        match self.step {
            None => (self.begun.is_none() && waits_for_its_turn(status)).then_some(Progress::Turn),
            // The pass over a newer spec has not started, and no step of it can be named.
            Some(_) if self.open || self.begun != Some(self.generation) => None,
            Some(step) => {
                let is_renewed = self.reset || self.has_new_tokens;
                Progress::of_step(status, self.generation, step, is_renewed, now)
            }
        }
    }
}
