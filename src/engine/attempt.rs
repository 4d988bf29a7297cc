//! One attempt at one event, in stages: check it, encode it, get a token, send it, judge the answer.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tidings_api::AttemptReason as Reason;
use tidings_delivery::{
    event::InvalidEvent,
    webhook::{Clearance, Delivery, NotCleared, Outcome, Unauthorized, Verdict},
};
use tidings_queue::{Health, NotSent, Signal};

use super::source::{Answer, Payload};
use crate::contract::Route;

/// An event of more bytes is not held twice while its attempt waits for a token.
const LARGE: usize = 64 << 10;

/// How an attempt ended.
pub(super) enum Attempted<I> {
    /// Nothing was sent and no attempt was spent. The item comes back, unless its event was dropped.
    NotSent(Option<Box<I>>, NotSent),
    /// The webhook answered, or failed to.
    Sent(Box<I>, Answer),
}

/// Attempts one event of `item` once. `chance` is a random number in 0..1.
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
    // What could not be checked still has its event.
    let event_id = sent_as.unwrap_or_else(|| item.event_id(event));
    let next_wait = route.backoff.wait(item.failures().saturating_add(1), chance);
    let (duration, max_attempts) = (began.elapsed(), route.max_attempts);
    Attempted::Sent(item, Answer { outcome, event_id, began, duration, next_wait, max_attempts, stored: None })
}

/// `sent_as` becomes the event's id as soon as the event is checked.
async fn send<I: Payload>(
    item: &mut I,
    event: u16,
    route: &Route,
    clearance: &impl Clearance,
    sent_as: &mut Option<String>,
) -> Result<Outcome, NotSent> {
    let checked = item.event(event).inspect(|event| *sent_as = Some(event.id().to_owned()));
    let delivery = match checked.and_then(|event| Delivery::prepare(&route.target, &event)) {
        Ok(delivery) => delivery,
        Err(fault) => return Ok(invalid(&fault)),
    };
    if item.size() > LARGE {
        item.drop_events();
    }
    let authorized = delivery.authorize(clearance).await.map_err(|unauthorized| match unauthorized {
        Unauthorized::NoToken(_) => NotSent::NoToken,
        Unauthorized::Stopping => NotSent::Held,
    })?;
    // While it is sent, the event is held once.
    item.drop_events();
    authorized.send(clearance).await.map_err(|NotCleared| NotSent::Held)
}

/// What an outcome says of the webhook as a whole (None: nothing). `backoff` is the pause where the webhook does not say how long.
pub(super) fn signal(outcome: &Outcome, backoff: Duration) -> Option<Signal> {
    match outcome.verdict {
        Verdict::Pause(requested) => Some(Signal::Pause(requested.unwrap_or(backoff))),
        Verdict::Gone => Some(Signal::Gone),
        _ => health(outcome.reason).map(Signal::Health),
    }
}

/// What the outcome says about the webhook's health, for the circuit; None: nothing.
fn health(reason: Reason) -> Option<Health> {
    match reason {
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

fn invalid(fault: &InvalidEvent) -> Outcome {
    Outcome {
        verdict: Verdict::Failed,
        reason: Reason::InvalidEvent,
        status: None,
        message: format!("{fault}; nothing was sent: create a corrected Notification"),
    }
}

fn panicked() -> Outcome {
    Outcome {
        verdict: Verdict::Retry,
        reason: Reason::InternalError,
        status: None,
        message: "the operator failed inside this attempt; its log says how".into(),
    }
}
