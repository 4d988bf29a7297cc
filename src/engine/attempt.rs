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
use tracing::Instrument;

use super::source::{Answer, Payload, Unsendable};
use crate::{contract::Route, traces::AttemptTrace};

/// An event with more bytes than this is not held twice while its attempt waits for a token.
const LARGE: usize = 64 << 10;

/// How an attempt ended.
pub(super) enum Attempted<I> {
    /// No request was sent, and no attempt is counted. Returns the item, unless its event was dropped.
    NotSent(Option<Box<I>>, NotSent),
    /// The request was sent: the webhook responded, or failed to respond.
    Sent(Box<I>, Answer),
}

/// Makes one attempt to deliver one event of `item`, within `trace`. `chance` is a random number in 0..1.
pub(super) async fn attempt<I: Payload>(
    mut item: Box<I>,
    event: u16,
    route: &Route,
    clearance: &impl Clearance,
    mut trace: AttemptTrace,
    chance: f64,
) -> Attempted<I> {
    let (began, mut sent_as, span) = (Instant::now(), None, trace.span().clone());
    let sent = send(&mut *item, event, route, clearance, &mut trace, &mut sent_as).instrument(span);
    // A panic is a failed attempt, not a lost event.
    let sent = AssertUnwindSafe(sent).catch_unwind().await;
    let outcome = match sent {
        Ok(Ok(outcome)) if outcome.reason == Reason::EgressDenied => {
            trace.end(None, Some(Reason::EgressDenied.as_str()));
            return Attempted::NotSent(None, NotSent::EgressDenied);
        }
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => {
            trace.end(None, Some(not_sent(why)));
            return Attempted::NotSent((item.size() > 0).then_some(item), why);
        }
        Err(_) => panicked(),
    };
    let failure = (outcome.verdict != Verdict::Delivered).then(|| outcome.reason.as_str());
    trace.end(outcome.status.map(|status| status.as_u16()), failure);
    let trace_id = trace.id();
    // An event that failed its check is still in the item.
    let event_id = sent_as.unwrap_or_else(|| item.event_id(event));
    let next_wait = route.backoff.wait(item.failures().saturating_add(1), chance);
    let (duration, max_attempts) = (began.elapsed(), route.max_attempts);
    Attempted::Sent(
        item,
        Answer { outcome, event_id, trace_id, began, duration, next_wait, max_attempts, stored: None },
    )
}

/// Sends the event. `trace` learns of the event, and `sent_as` is set to its id, as soon as the event is checked.
async fn send<I: Payload>(
    item: &mut I,
    event: u16,
    route: &Route,
    clearance: &impl Clearance,
    trace: &mut AttemptTrace,
    sent_as: &mut Option<String>,
) -> Result<Outcome, NotSent> {
    let checked = item.event(event).inspect(|event| {
        trace.of_event(event);
        *sent_as = Some(event.id().to_owned());
    });
    let delivery = match checked.and_then(|event| Ok(Delivery::prepare(&route.target, &event)?)) {
        Ok(delivery) => delivery,
        Err(fault) => return Ok(unsendable(&fault)),
    };
    if item.size() > LARGE {
        item.drop_events();
    }
    let headers = |request: &_, headers: &mut _| trace.add_headers(request, headers);
    let authorized =
        delivery.traced(&headers).authorize(clearance).await.map_err(|unauthorized| match unauthorized {
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

/// What a trace says of an attempt without a request.
fn not_sent(why: NotSent) -> &'static str {
    match why {
        NotSent::NoToken => "NoToken",
        NotSent::EgressDenied => Reason::EgressDenied.as_str(),
        NotSent::Held => "Held",
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
