//! One attempt at one Notification, in stages: read it, encode it, get a token, send it, write what happened.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::value::RawValue;
use tidings_api::AttemptReason;
use tidings_delivery::{
    event::{Defaults, Event, InvalidEvent},
    webhook::{Delivery, NotCleared, Outcome, Unauthorized, Verdict},
};
use tidings_queue::{Health, SpecVersion, SubscriberKey};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::clearance::{Cleared, Permit};
use crate::{
    contract::{NotSent, Report, Route, pause},
    notifications::{
        record::{StatusWriter, Written},
        replayed::HandledReplays,
        retention::RetentionHandle,
        status::{Attempt, after, expired},
        wire::Unfinished,
    },
    ownership::Leadership,
};

/// An event of more bytes is not held twice while its attempt waits for a token.
const LARGE: usize = 64 << 10;

/// What all attempts share.
pub struct Attempts {
    /// Reads and writes Notifications.
    pub writer: StatusWriter,
    /// Where what an answer says of the Subscriber as a whole is reported.
    pub reports: mpsc::UnboundedSender<Report>,
    /// Tells the queue the same at once.
    pub signals: mpsc::UnboundedSender<Signalled>,
    /// Whether the operator is to end: nothing more is sent then.
    pub stopping: watch::Receiver<bool>,
    /// Looked at immediately before each send.
    pub leadership: Leadership,
    /// Deletes what is finished when its time is over.
    pub retention: RetentionHandle,
    /// What was replayed a short time ago.
    pub replays: Arc<HandledReplays>,
}

/// What an answer says of a Subscriber, and of which of its specs.
pub struct Signalled {
    /// The Notification whose attempt was answered.
    pub uid: Arc<str>,
    /// The Subscriber.
    pub lane: SubscriberKey,
    /// The version of its spec when the attempt began.
    pub version: SpecVersion,
    /// What the answer says.
    pub signal: Signal,
}

/// What an answer says of the Subscriber as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// How the webhook is.
    Health(Health),
    /// It requested a pause until then.
    Paused(Instant),
    /// It is gone.
    Gone,
}

/// What to attempt.
pub struct Job {
    /// Its Subscriber.
    pub lane: SubscriberKey,
    /// The Notification's name.
    pub name: Box<str>,
    /// The Notification's uid.
    pub uid: Arc<str>,
    /// The attempts that are known to be recorded.
    pub attempts: u32,
    /// The object, if it is in memory; it is read otherwise.
    pub object: Option<Box<Unfinished>>,
    /// Where it goes.
    pub route: Arc<Route>,
    /// What the queue says meanwhile.
    pub permit: Arc<Permit>,
}

/// What has expired.
pub struct Expiry {
    /// Its Subscriber.
    pub lane: SubscriberKey,
    /// The Notification's name.
    pub name: Box<str>,
    /// When the life began that ended.
    pub began: Timestamp,
    /// The object, if it is in memory; it is read otherwise.
    pub object: Option<Box<Unfinished>>,
}

/// How an attempt ended, for the queue.
pub enum Ended {
    /// Its final status is written, as of this resourceVersion; `out_of_sight`: over a final status of another.
    Finished { version: u64, out_of_sight: bool },
    /// Its status is written; it is due again later.
    Retry(Recorded),
    /// Nothing was sent and no attempt was spent: there is no token, or no permitted way to the webhook. The object comes
    /// back, unless its event was dropped.
    NotStarted(Option<Box<Unfinished>>, NotSent),
    /// It could not be read; try again soon.
    Unread,
    /// It is gone, or another one has its name.
    Gone,
    /// Somebody else wrote its status: go on from there.
    Superseded(Box<Unfinished>),
}

/// What was written of an attempt that another one follows.
pub struct Recorded {
    /// The resourceVersion of the write.
    pub version: u64,
    /// How many attempts it tells of.
    pub attempts: u32,
    /// When the life began that it tells of: creation, or replay.
    pub began: Timestamp,
    /// When the next attempt is due, as it tells.
    pub next: Option<Timestamp>,
    /// The same as a wait.
    pub wait: Duration,
}

impl Attempts {
    /// Attempts `job` once. Returns when what happened is written.
    pub async fn run(&self, mut job: Job) -> Ended {
        let mut object = match job.object.take() {
            Some(object) => object,
            None => match self.writer.load(&job.lane.namespace, &job.name, &job.uid).await {
                Ok(Some(object)) => object,
                Ok(None) => return Ended::Gone,
                Err(error) => {
                    warn!(notification = %job, %error, "could not be read; it is tried again");
                    return Ended::Unread;
                }
            },
        };
        // More attempts than are known: another operator's outcome, which came after it was to lead no more.
        if object.is_finished() || object.is_being_deleted() || object.status.attempts > job.attempts {
            return Ended::Superseded(object);
        }
        let started = Instant::now();
        let event_id = event_id(&object);
        // A panic is a failed attempt, not a lost Notification.
        let sent = AssertUnwindSafe(self.send(&mut object, &job)).catch_unwind().await;
        let outcome = match sent {
            Ok(Sent::Answered(outcome)) if outcome.reason == AttemptReason::EgressDenied => {
                return Ended::NotStarted(None, NotSent::EgressDenied);
            }
            Ok(Sent::Answered(outcome)) => outcome,
            Ok(Sent::NoToken) => return Ended::NotStarted(with_event(object), NotSent::NoToken),
            Ok(Sent::Stopping) => return Ended::NotStarted(with_event(object), NotSent::Held),
            Ok(Sent::NotCleared) => return Ended::NotStarted(None, NotSent::Held),
            Ok(Sent::Invalid(fault)) => invalid(&fault),
            Err(_) => {
                error!(notification = %job, "the delivery panicked");
                panicked()
            }
        };
        let failures = object.status.attempts.saturating_sub(object.status.deferred_attempts).saturating_add(1);
        let backoff = job.route.backoff.wait(failures, rand::random());
        let retry_after = self.tell_subscriber(&job, &outcome, backoff).await;
        let attempt = Attempt {
            outcome: &outcome,
            event_id: &event_id,
            duration: started.elapsed(),
            retry_after,
            max_attempts: job.route.max_attempts,
        };
        self.writer.metrics.attempt(outcome.reason.as_str(), attempt.duration);
        let (status, written) = loop {
            let status = after(&object, &attempt, Timestamp::now());
            match self.writer.record(&object, &status).await {
                // It began after a replay that its object did not show: it is what that replay asked for. A label that
                // came into sight only now asks for another.
                Written::Superseded(current)
                    if !current.is_finished() && self.replays.came_before(started, &object, &current) =>
                {
                    object = Box::new(current.without_label());
                }
                written => break (status, written),
            }
        };
        if outcome.verdict == Verdict::Delivered {
            debug!(notification = %job, subscriber = %job.lane.name, attempts = status.attempts, "delivered");
        } else {
            let (reason, status_code) = (outcome.reason, outcome.status.map(|status| status.as_u16()));
            info!(notification = %job, subscriber = %job.lane.name, %reason, status_code, attempts = status.attempts, why = outcome.message, "not delivered");
        }
        match written {
            Written::Recorded { version, .. } if status.completion_time.is_none() => Ended::Retry(Recorded {
                version,
                attempts: status.attempts,
                began: object.began(),
                next: status.next_attempt_time.as_ref().map(|time| time.0),
                wait: retry_after,
            }),
            Written::Recorded { version, over_final, replay_asked } => {
                self.writer.metrics.finished(status.phase.as_str());
                self.retention.finished(&object, &status, (!replay_asked).then_some(version));
                Ended::Finished { version, out_of_sight: over_final }
            }
            Written::Gone => Ended::Gone,
            Written::Superseded(current) => Ended::Superseded(current),
        }
    }

    async fn send(&self, object: &mut Unfinished, job: &Job) -> Sent {
        let clearance = Cleared { attempts: self, job };
        let delivery = match parse(object).and_then(|event| Delivery::prepare(&job.route.target, &event)) {
            Ok(delivery) => delivery,
            Err(fault) => return Sent::Invalid(fault),
        };
        if object.spec.event.get().len() > LARGE {
            object.spec.event = RawValue::NULL.to_owned();
        }
        let authorized = match delivery.authorize(&clearance).await {
            Ok(authorized) => authorized,
            Err(Unauthorized::NoToken(_)) => return Sent::NoToken,
            Err(Unauthorized::Stopping) => return Sent::Stopping,
        };
        // While it is sent, the event is held once.
        object.spec.event = RawValue::NULL.to_owned();
        match authorized.send(&clearance).await {
            Ok(outcome) => Sent::Answered(outcome),
            Err(NotCleared) => Sent::NotCleared,
        }
    }

    /// Hands on what the answer says of the Subscriber as a whole: to the queue at once, and into its status before the
    /// Notification's own outcome is written. Returns how long the Notification waits for its next attempt.
    async fn tell_subscriber(&self, job: &Job, outcome: &Outcome, backoff: Duration) -> Duration {
        let (of, version) = (job.lane.clone(), job.route.version.clone());
        // The engine ends last: what it does not hear any more, it need not.
        let signal = |signal| {
            let (uid, lane, version) = (job.uid.clone(), of.clone(), version.clone());
            let _ = self.signals.send(Signalled { uid, lane, version, signal });
        };
        let report = |report| drop(self.reports.send(report));
        if outcome.reason != AttemptReason::InvalidEvent {
            let failed = outcome.verdict != Verdict::Delivered;
            let failure = failed.then(|| (outcome.reason, outcome.status.map(|status| status.as_u16())));
            report(Report::Attempted { of: of.clone(), version: version.clone(), failure });
        }
        let (stored, is_stored) = oneshot::channel();
        let wait = match outcome.verdict {
            Verdict::Pause(asked) => {
                let (until, wait) = pause(asked.unwrap_or(backoff).min(job.route.expire_after), Timestamp::now());
                signal(Signal::Paused(Instant::now() + wait));
                report(Report::Paused { of, version, until, wait, stored });
                wait
            }
            Verdict::Gone => {
                signal(Signal::Gone);
                report(Report::Gone { of, version, stored });
                backoff
            }
            _ => {
                if let Some(health) = health(outcome) {
                    signal(Signal::Health(health));
                }
                return backoff;
            }
        };
        // A sender that is dropped says that there is nothing to wait for.
        drop(is_stored.await);
        wait
    }

    /// Writes that a Notification was not delivered in time.
    pub async fn expire(&self, expiry: Expiry, uid: &str) -> Ended {
        let Expiry { lane, name, began, object } = expiry;
        let read = match object {
            Some(object) => Ok(Some(object)),
            None => self.writer.load(&lane.namespace, &name, uid).await,
        };
        let object = match read {
            // A replay that the watch has not shown yet begins its expiry anew.
            Ok(Some(object)) if object.is_finished() || object.began() != began => return Ended::Superseded(object),
            Ok(Some(object)) => object,
            Ok(None) => return Ended::Gone,
            Err(error) => {
                warn!(notification = %format_args!("{}/{name}", lane.namespace), %error, "could not be read; it is tried again");
                return Ended::Unread;
            }
        };
        let status = expired(&object, Timestamp::now());
        match self.writer.record(&object, &status).await {
            Written::Recorded { version, over_final, replay_asked } => {
                info!(notification = %format_args!("{}/{name}", lane.namespace), attempts = status.attempts, "expired");
                self.writer.metrics.finished(status.phase.as_str());
                self.retention.finished(&object, &status, (!replay_asked).then_some(version));
                Ended::Finished { version, out_of_sight: over_final }
            }
            Written::Gone => Ended::Gone,
            Written::Superseded(current) => Ended::Superseded(current),
        }
    }
}

/// What the outcome says about the webhook's health, for the circuit; None: nothing.
fn health(outcome: &Outcome) -> Option<Health> {
    use AttemptReason as Reason;
    match outcome.reason {
        Reason::Acknowledged | Reason::Accepted => Some(Health::Success),
        Reason::NameNotResolved
        | Reason::ConnectionFailed
        | Reason::TLSFailed
        | Reason::Timeout
        | Reason::ServerError
        | Reason::Unauthorized => Some(Health::Failure),
        Reason::Throttled | Reason::InvalidEvent | Reason::EgressDenied | Reason::InternalError => None,
        Reason::Rejected | Reason::RedirectRefused | Reason::Forbidden | Reason::Gone | Reason::UnexpectedStatus => {
            Some(Health::Answered)
        }
    }
}

enum Sent {
    Answered(Outcome),
    NoToken,
    Stopping,
    NotCleared,
    Invalid(InvalidEvent),
}

/// The object, unless its event was dropped.
fn with_event(object: Box<Unfinished>) -> Option<Box<Unfinished>> {
    (object.spec.event.get() != RawValue::NULL.get()).then_some(object)
}

fn parse(object: &Unfinished) -> Result<Event, InvalidEvent> {
    let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    let defaults = Defaults {
        id: object.metadata.uid.as_deref().unwrap_or_default(),
        time: created.as_deref().unwrap_or_default(),
    };
    Event::parse(object.spec.event.get(), defaults)
}

/// The id that the event goes with, known even when the event cannot be sent.
fn event_id(object: &Unfinished) -> String {
    #[derive(serde::Deserialize)]
    struct Id {
        id: Option<String>,
    }
    let given = serde_json::from_str::<Id>(object.spec.event.get()).ok().and_then(|event| event.id);
    given.or_else(|| object.metadata.uid.clone()).unwrap_or_default()
}

fn invalid(fault: &InvalidEvent) -> Outcome {
    Outcome {
        verdict: Verdict::Failed,
        reason: AttemptReason::InvalidEvent,
        status: None,
        message: format!("{fault}; nothing was sent: create a corrected Notification"),
    }
}

fn panicked() -> Outcome {
    Outcome {
        verdict: Verdict::Retry,
        reason: AttemptReason::InternalError,
        status: None,
        message: "the operator failed inside this attempt; its log says how".into(),
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.lane.namespace, self.name)
    }
}
