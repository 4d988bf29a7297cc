//! One attempt at one Notification, in stages: read it, encode it, get a token, send it, write what happened.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tracing::{debug, error, info, warn};

use super::{
    API_TIMEOUT, StatusWriter, Unfinished,
    notification_status::{Attempt, after},
    status::Written,
};
use crate::{
    api::AttemptReason,
    cloudevent::{Defaults, Event, InvalidEvent},
    dispatch::{Backoff, LaneKey},
    webhook::{Delivery, Outcome, Target, Verdict},
};

/// What all attempts share.
pub struct Attempts {
    /// Reads and writes Notifications.
    pub writer: StatusWriter,
    /// How long a failed attempt waits for the next.
    pub backoff: Backoff,
}

/// What to attempt.
pub struct Job {
    /// Its Subscriber.
    pub lane: LaneKey,
    /// The Notification's name.
    pub name: Box<str>,
    /// The Notification's uid.
    pub uid: Arc<str>,
    /// The object, if it is in memory.
    pub object: Option<Box<Unfinished>>,
    /// Where it goes.
    pub target: Arc<Target>,
}

/// How an attempt ended, for the queue.
pub enum Ended {
    /// Its final status is written, as of this resourceVersion.
    Finished(u64),
    /// Its status is written, as of this resourceVersion; it is due again after this.
    Retry(u64, Duration),
    /// Nothing was sent and no attempt was spent: there is no token, or no permitted way to the webhook.
    NotStarted(Box<Unfinished>, NotStarted),
    /// It could not be read; try again soon.
    Unread,
    /// It is gone, or another one has its name.
    Gone,
    /// Somebody else wrote its status: go on from there.
    Superseded(Box<Unfinished>),
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// The Subscriber has no token to send.
    NoToken,
    /// The egress policy denies the webhook's address.
    EgressDenied,
}

impl Attempts {
    /// Attempts `job` once. Returns when what happened is written.
    pub async fn run(&self, mut job: Job) -> Ended {
        let object = match job.object.take() {
            Some(object) => object,
            None => match self.read(&job).await {
                Ok(Some(object)) => object,
                Ok(None) => return Ended::Gone,
                Err(error) => {
                    warn!(notification = %job, %error, "could not be read; it is tried again");
                    return Ended::Unread;
                }
            },
        };
        if object.is_finished() || object.is_being_deleted() {
            return Ended::Superseded(object);
        }
        let started = Instant::now();
        let event_id = event_id(&object);
        // A panic is a failed attempt, not a lost Notification.
        let sent = AssertUnwindSafe(send(&object, &job.target)).catch_unwind().await;
        let outcome = match sent {
            Ok(Sent::Answered(outcome)) if outcome.reason == AttemptReason::EgressDenied => {
                return Ended::NotStarted(object, NotStarted::EgressDenied);
            }
            Ok(Sent::Answered(outcome)) => outcome,
            Ok(Sent::NoToken) => return Ended::NotStarted(object, NotStarted::NoToken),
            Ok(Sent::Invalid(fault)) => invalid(&fault),
            Err(_) => {
                error!(notification = %job, "the delivery panicked");
                panicked()
            }
        };
        let retry_after = self.backoff.wait(object.status.attempts.saturating_add(1), rand::random());
        let attempt = Attempt { outcome: &outcome, event_id: &event_id, duration: started.elapsed(), retry_after };
        let status = after(&object, &attempt, Timestamp::now());
        self.writer.metrics.attempt(outcome.reason.as_str(), attempt.duration);
        let written = self.writer.record(&object, &status).await;
        if outcome.verdict == Verdict::Delivered {
            debug!(notification = %job, subscriber = %job.lane.name, attempts = status.attempts, "delivered");
        } else {
            let (reason, status_code) = (outcome.reason, outcome.status.map(|status| status.as_u16()));
            info!(notification = %job, subscriber = %job.lane.name, %reason, status_code, attempts = status.attempts, "not delivered");
        }
        match written {
            Written::Recorded(version) if outcome.verdict == Verdict::Retry => Ended::Retry(version, retry_after),
            Written::Recorded(version) => {
                self.writer.metrics.finished(status.phase.as_str());
                Ended::Finished(version)
            }
            Written::Gone => Ended::Gone,
            Written::Superseded(current) => Ended::Superseded(current),
        }
    }

    async fn read(&self, job: &Job) -> Result<Option<Box<Unfinished>>, kube::Error> {
        let api = Api::<Unfinished>::namespaced(self.writer.client.clone(), &job.lane.namespace);
        let object = tokio::time::timeout(API_TIMEOUT, api.get_opt(&job.name))
            .await
            .unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))?;
        Ok(object.filter(|object| object.metadata.uid.as_deref() == Some(&*job.uid)).map(Box::new))
    }
}

enum Sent {
    Answered(Outcome),
    NoToken,
    Invalid(InvalidEvent),
}

async fn send(object: &Unfinished, target: &Target) -> Sent {
    let delivery = match parse(object).and_then(|event| Delivery::prepare(target, &event)) {
        Ok(delivery) => delivery,
        Err(fault) => return Sent::Invalid(fault),
    };
    match delivery.authorize().await {
        Ok(authorized) => Sent::Answered(authorized.send().await),
        Err(_) => Sent::NoToken,
    }
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
