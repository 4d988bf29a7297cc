//! Sends events that are due. Inputs go into the queue, and actions come out. The engine uses no Kubernetes client and
//! no Subscriber object.
//!
//! The result of every action returns through one function, [`Engine::ended`]. It reports to `subscribers` what an
//! [`attempt()`] found out about a Subscriber, and passes the result to the queue. An outcome takes this path:
//!
//! `attempt` → `ended` → queue → `Action::Write` → `act` → [`Source::write`] → `ended` → queue,
//!
//! and the queue retries or forgets the event.

mod attempt;
pub mod source;
#[cfg(test)]
mod tests;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tidings_api::AttemptReason;
use tidings_delivery::webhook::{Clearance, Verdict};
use tidings_queue::{
    Action, Answered, Bounds, Content, Done, Flight, LONGEST_WAIT_REJECTING, NotSent, Now, Permit, Queue,
    RejectionMeaning, Seen, Signal, SpecVersion, SubscriberKey, Term, Ticket, Update,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};
use tracing::{error, info};

use self::{
    attempt::{Attempted, attempt, signal},
    source::{Answer, Payload, Source},
};
use crate::{
    contract::{LANES_EVERY, LaneUpdate, Report, Route, pause},
    metrics::{AttemptOutcome, LanesWanted, Metrics},
    ownership::Mandate,
    traces::AttemptTrace,
};

/// What an engine shares with the rest of the operator.
pub struct Surroundings {
    mandate: Mandate,
    reports: mpsc::UnboundedSender<Report>,
    metrics: Metrics,
}

impl Surroundings {
    /// `mandate` says whether this process may act and whether it is stopping, `reports` receives what the engine finds
    /// out about Subscribers, and `metrics` counts attempts.
    pub fn new(mandate: Mandate, reports: mpsc::UnboundedSender<Report>, metrics: Metrics) -> Self {
        Self { mandate, reports, metrics }
    }
}

/// Owns the queue of one source.
pub struct Engine<S: Source> {
    queue: Queue<S>,
    source: Arc<S>,
    with: Surroundings,
    tasks: JoinSet<TaskEnded<S>>,
}

/// The result of a task of the engine.
enum TaskEnded<S: Source> {
    /// An attempt to deliver an event, along this route.
    Attempt(Ticket<S>, Arc<Route>, Attempted<S::Item>),
    /// A load, write or pull.
    Done(Done<S>),
}

impl<S: Source> Engine<S> {
    /// Makes an engine for these namespaces (None: all).
    pub fn new(source: S, bounds: &Bounds, namespaces: &[Option<String>], with: Surroundings) -> Self {
        let namespaces = namespaces.iter().map(|namespace| namespace.as_deref().map(Into::into)).collect();
        let queue = Queue::new(bounds, namespaces, now());
        Self { queue, source: Arc::new(source), with, tasks: JoinSet::new() }
    }

    /// Runs until the operator stops, and then until everything in flight has ended and is written. Calls `listed` once
    /// every unfinished entry is known.
    pub async fn run(
        mut self,
        seen: impl Stream<Item = Seen<S>>,
        mut updates: mpsc::UnboundedReceiver<LaneUpdate>,
        listed: impl FnOnce(),
    ) {
        let mandate = self.with.mandate.clone();
        let (mut seen, mut stopping, mut leadership) =
            (pin!(seen), pin!(mandate.stopping()), mandate.leadership().clone());
        let mut listed = Some(listed);
        let mut wanted = self.with.metrics.lanes_wanted();
        let mut snapshots = tokio::time::interval(LANES_EVERY);
        snapshots.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.queue.apply(Update::Owned(leadership.term_of_all()), now());
            self.act();
            let wake = self.queue.wake_at();
            tokio::select! {
                Some(seen) = seen.next() => {
                    self.observe(seen);
                    if listed.is_some() && self.queue.is_listed() && let Some(listed) = listed.take() {
                        info!(unfinished = self.queue.len(), "all unfinished Notifications are listed");
                        listed();
                    }
                }
                Some(update) = updates.recv() => self.queue.apply(update, now()),
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                _ = snapshots.tick() => self.report_lanes(),
                Some(answer) = wanted.recv() => self.show_lanes(answer),
                () = leadership.regained() => {}
                () = until(wake) => {}
                () = &mut stopping => break,
            }
        }
        info!(in_flight = self.tasks.len(), "shutting down: no new attempts start; waiting for the attempts in flight");
        self.queue.drain();
        self.act();
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    Some(ended) => self.ended(ended),
                    None => return,
                },
                Some(answer) = wanted.recv() => self.show_lanes(answer),
            }
            self.act();
        }
    }

    /// Hands what the source shows to the queue. Of an entry that is new, records how late the source shows it.
    fn observe(&mut self, seen: Seen<S>) {
        let (known, now) = (self.queue.len(), now());
        // The first list shows what was created at any time.
        let began = match &seen {
            Seen::Present(entry) if self.queue.is_listed() && entry.attempts == 0 => Some(entry.began),
            _ => None,
        };
        self.queue.observe(seen, now);
        if let Some(began) = began.filter(|_| self.queue.len() > known) {
            self.with.metrics.shown_after(now.wall.duration_since(began).unwrap_or_default());
        }
    }

    fn show_lanes(&mut self, answer: LanesWanted) {
        // A scrape that no longer waits needs no answer.
        let _ = answer.send(self.queue.readings(now()));
    }

    /// Starts a task for each action of the queue.
    fn act(&mut self) {
        while let Some(action) = self.queue.next(now()) {
            let source = self.source.clone();
            match action {
                Action::Load(ticket) => self.tasks.spawn(async move {
                    let loaded = source.load(&ticket).await;
                    TaskEnded::Done(Done::Loaded { ticket, loaded })
                }),
                Action::Send(flight) => self.send(flight),
                Action::Write { ticket, item, content } => self.tasks.spawn(async move {
                    let content = when_stored(content).await;
                    let written = source.write(ticket.clone(), item, content).await;
                    TaskEnded::Done(Done::Written { ticket, written })
                }),
                Action::Pull { source: from, of, want } => self.tasks.spawn(async move {
                    let (entries, more) = source.pull(from, &of, want).await;
                    TaskEnded::Done(Done::Pulled { source: from, of, entries, more })
                }),
            };
        }
        self.with.metrics.queue(self.queue.len(), self.queue.in_flight(), self.queue.bytes_in_flight());
    }

    fn send(&mut self, flight: Flight<S>) -> tokio::task::AbortHandle {
        let Flight { ticket, item, route, permit, term } = flight;
        let cleared = AttemptClearance { of: ticket.of.clone(), mandate: self.with.mandate.clone(), permit, term };
        self.tasks.spawn(async move {
            let (of, number) = (&ticket.of, ticket.attempts.saturating_add(1));
            let trace = AttemptTrace::begin(&of.namespace, &of.name, &ticket.name, item.uid(), number);
            let attempted = attempt(item, ticket.event, &route, &cleared, trace, rand::random()).await;
            TaskEnded::Attempt(ticket, route, attempted)
        })
    }

    /// Passes the result of a task to the queue, and what it means for a Subscriber to `subscribers`.
    fn ended(&mut self, ended: Result<TaskEnded<S>, JoinError>) {
        let done = match ended {
            Ok(TaskEnded::Done(done)) => done,
            Ok(TaskEnded::Attempt(ticket, route, attempted)) => {
                let answered = self.answer(&ticket, &route, attempted);
                Done::Answered { ticket, answered }
            }
            // An attempt catches its own panics. After any other panic the slot would be lost, so the engine panics
            // too.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.queue.finish(done, now());
    }

    /// Reports what an attempt means for its Subscriber. Returns what it means for the queue.
    fn answer(&self, ticket: &Ticket<S>, route: &Route, attempted: Attempted<S::Item>) -> Answered<S> {
        let (of, version) = (ticket.of.clone(), route.version.clone());
        match attempted {
            Attempted::NotSent(item, why) => {
                if why != NotSent::Held {
                    self.publish(Report::Reconcile { of, why });
                }
                Answered::NotSent { item, why }
            }
            Attempted::Sent(item, mut answer) => {
                if answer.outcome.verdict == Verdict::Rejected {
                    match self.queue.judge_rejection(ticket) {
                        RejectionMeaning::Final => {}
                        RejectionMeaning::Outdated => answer.outcome.defer(),
                        RejectionMeaning::Held => {
                            answer.outcome.hold();
                            // Due for the next probe, whatever the Subscriber's backoff.
                            answer.next_wait = answer.next_wait.min(LONGEST_WAIT_REJECTING);
                        }
                    }
                }
                let outcome = &answer.outcome;
                self.with.metrics.attempt(&of, outcome.reason, outcome_of(outcome.verdict), answer.duration);
                if outcome.reason == AttemptReason::InternalError {
                    error!(namespace = %of.namespace, name = %ticket.name, subscriber = %of.name, "the delivery panicked");
                }
                if outcome.reason.is_attempt() {
                    let failed = outcome.verdict != Verdict::Delivered;
                    let failure = failed.then(|| (outcome.reason, outcome.status.map(|status| status.as_u16())));
                    self.publish(Report::Attempted { of: of.clone(), version: version.clone(), failure });
                }
                let mut signal = signal(outcome, answer.next_wait);
                let again = !outcome.verdict.is_final();
                let backoff =
                    if matches!(outcome.verdict, Verdict::RetryAfter(_)) { answer.next_wait } else { Duration::ZERO };
                if let Some(Signal::Pause(requested) | Signal::HealthAndPause(_, requested)) = &mut signal {
                    *requested = self.paused(of, version, (*requested).min(route.expire_after), &mut answer);
                    answer.next_wait = answer.next_wait.max(backoff);
                } else if signal == Some(Signal::Gone) {
                    let (stored, is_stored) = oneshot::channel();
                    answer.stored = Some(is_stored);
                    self.publish(Report::Gone { of, version, stored });
                }
                let again = again.then_some(answer.next_wait);
                Answered::Sent { item, answer, again, signal }
            }
        }
    }

    /// Reports a pause. The outcome is written after the pause is stored. Returns the length of the pause, which ends
    /// at a full second.
    fn paused(&self, of: SubscriberKey, version: SpecVersion, requested: Duration, answer: &mut Answer) -> Duration {
        let (until, wait) = pause(requested, Timestamp::now());
        let (stored, is_stored) = oneshot::channel();
        (answer.stored, answer.next_wait) = (Some(is_stored), wait);
        self.publish(Report::Paused { of, version, until, wait, stored });
        wait
    }

    fn report_lanes(&mut self) {
        let lanes = self.queue.changed(now());
        if !lanes.is_empty() {
            self.publish(Report::Lanes(lanes));
        }
    }

    fn publish(&self, report: Report) {
        // `subscribers` stops first only when a part of the operator failed.
        let _ = self.with.reports.send(report);
    }
}

/// Returns what the consequence of an attempt is counted as.
fn outcome_of(verdict: Verdict) -> AttemptOutcome {
    match verdict {
        Verdict::Delivered => AttemptOutcome::Delivered,
        Verdict::Rejected | Verdict::Hold => AttemptOutcome::Rejected,
        Verdict::Failed => AttemptOutcome::Failed,
        Verdict::Retry | Verdict::Defer | Verdict::Pause(_) | Verdict::RetryAfter(_) | Verdict::Gone => {
            AttemptOutcome::Retried
        }
    }
}

/// Decides whether one attempt may continue.
struct AttemptClearance {
    of: SubscriberKey,
    mandate: Mandate,
    permit: Permit,
    term: Term,
}

impl Clearance for AttemptClearance {
    /// Whether the term is the one in which the attempt began, the operator is not stopping, and the queue has not
    /// revoked the permit.
    fn may_send(&self) -> bool {
        self.mandate.term(&self.of).is_some_and(|term| term.epoch == self.term.epoch)
            && self.permit.holds(SystemTime::now())
    }

    async fn stopping(&self) {
        self.mandate.stopping().await;
    }
}

/// Returns the content once everything that it depends on is stored.
async fn when_stored(mut content: Content<Answer>) -> Content<Answer> {
    if let Content::Outcome(answers) = &mut content {
        for (_, answer) in answers {
            if let Some(stored) = answer.stored.take() {
                drop(stored.await);
            }
        }
    }
    content
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
