//! One attempt to deliver one event, in stages: check the event, encode it, get a token, send the request, judge the
//! response.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tidings_api::AttemptReason as Reason;
use tidings_delivery::webhook::{Clearance, Delivery, NotCleared, Outcome, Unauthorized, Verdict};
use tidings_queue::{Health, NotSent, Signal};

use super::source::{Answer, Payload, Unsendable};
use crate::contract::Route;

/// An event with more bytes than this is not held twice while its attempt waits for a token.
const LARGE: usize = 64 << 10;

/// How an attempt ended.
pub(super) enum Attempted<I> {
    /// No request was sent, and no attempt is counted. Returns the item, unless its event was dropped.
    NotSent(Option<Box<I>>, NotSent),
    /// The request was sent: the webhook responded, or failed to respond.
    Sent(Box<I>, Answer),
}

/// Makes one attempt to deliver one event of `item`. `chance` is a random number in 0..1.
pub(super) async fn attempt<I: Payload>(
    mut item: Box<I>,
    event: u16,
    route: &Route,
    clearance: &impl Clearance,
    chance: f64,
) -> Attempted<I> {
    let (began, mut sent_as) = (Instant::now(), None);
    // A panic is a failed attempt, not a lost event.
    let sent = AssertUnwindSafe(send(&mut *item, event, route, clearance, &mut sent_as)).catch_unwind().await;
    let outcome = match sent {
        Ok(Ok(outcome)) if outcome.reason == Reason::EgressDenied => {
            return Attempted::NotSent(None, NotSent::EgressDenied);
        }
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => return Attempted::NotSent((item.size() > 0).then_some(item), why),
        Err(_) => panicked(),
    };
    // An event that failed its check is still in the item.
    let event_id = sent_as.unwrap_or_else(|| item.event_id(event));
    let next_wait = route.backoff.wait(item.failures().saturating_add(1), chance);
    let (duration, max_attempts) = (began.elapsed(), route.max_attempts);
    Attempted::Sent(item, Answer { outcome, event_id, began, duration, next_wait, max_attempts, stored: None })
}

/// Sends the event. `sent_as` is set to the event's id as soon as the event is checked.
async fn send<I: Payload>(
    item: &mut I,
    event: u16,
    route: &Route,
    clearance: &impl Clearance,
    sent_as: &mut Option<String>,
) -> Result<Outcome, NotSent> {
    let checked = item.event(event).inspect(|event| *sent_as = Some(event.id().to_owned()));
    let delivery = match checked.and_then(|event| Ok(Delivery::prepare(&route.target, &event)?)) {
        Ok(delivery) => delivery,
        Err(fault) => return Ok(unsendable(&fault)),
    };
    if item.size() > LARGE {
        item.drop_events();
    }
    let authorized = delivery.authorize(clearance).await.map_err(|unauthorized| match unauthorized {
        Unauthorized::NoToken(_) => NotSent::NoToken,
        Unauthorized::Stopping => NotSent::Held,
    })?;
    // During the request, the event is held only once.
    item.drop_events();
    authorized.send(clearance).await.map_err(|NotCleared| NotSent::Held)
}

/// Returns what an outcome means for the webhook as a whole (None: nothing). `backoff` is the length of a pause for
/// which the webhook names no time.
pub(super) fn signal(outcome: &Outcome, backoff: Duration) -> Option<Signal> {
    match outcome.verdict {
        Verdict::Pause(requested) => Some(Signal::Pause(requested.unwrap_or(backoff))),
        Verdict::RetryAfter(wait) => Some(match health(outcome.reason) {
            Some(health) => Signal::HealthAndPause(health, wait),
            None => Signal::Pause(wait),
        }),
        Verdict::Gone => Some(Signal::Gone),
        Verdict::Rejected | Verdict::Hold => Some(Signal::Health(Health::Rejected)),
        Verdict::Failed if outcome.reason == Reason::Rejected => Some(Signal::Health(Health::RejectedByRule)),
        _ => health(outcome.reason).map(Signal::Health),
    }
}

/// Returns what the outcome means for the circuit breaker (None: nothing).
fn health(reason: Reason) -> Option<Health> {
    match reason {
        Reason::Acknowledged | Reason::Accepted => Some(Health::Success),
        Reason::NameNotResolved
        | Reason::ConnectionFailed
        | Reason::TLSFailed
        | Reason::ProxyFailed
        | Reason::Timeout
        | Reason::ServerError
        | Reason::RedirectRefused
        | Reason::MethodNotAllowed
        | Reason::Unauthorized => Some(Health::Failure),
        Reason::Throttled | Reason::InvalidEvent | Reason::TooLarge | Reason::EgressDenied | Reason::InternalError => {
            None
        }
        Reason::Rejected | Reason::Forbidden | Reason::Gone | Reason::UnexpectedStatus => Some(Health::Answered),
    }
}

fn unsendable(fault: &Unsendable) -> Outcome {
    let reason = match fault {
        Unsendable::Invalid(_) => Reason::InvalidEvent,
        Unsendable::TooLarge(_) => Reason::TooLarge,
    };
    Outcome { verdict: Verdict::Failed, reason, status: None, message: fault.to_string() }
}

fn panicked() -> Outcome {
    Outcome {
        verdict: Verdict::Retry,
        reason: Reason::InternalError,
        status: None,
        message: "internal error during this attempt; see the operator's log".into(),
    }
}
