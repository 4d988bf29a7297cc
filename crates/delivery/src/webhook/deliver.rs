//! One delivery: token, POST, response.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{
    Outcome, Signer, Target,
    signature::{MessageId, NotSigned},
};
use crate::{
    egress::{SendError, retry_after},
    event::{CheckedEvent, Encoding, InvalidEvent, encode},
    oauth::NoToken,
    spans,
};

/// Decides whether a delivery may continue.
pub trait Clearance: Sync {
    /// Whether a POST may start now. Called immediately before every POST.
    fn may_send(&self) -> bool;

    /// Returns when the operator stops. The delivery then no longer waits for a token.
    fn stopping(&self) -> impl Future<Output = ()> + Send;
}

/// Adds the headers of W3C Trace Context to a POST, which has this span (disabled: no traces are exported).
pub type TraceHeaders<'a> = &'a (dyn Fn(&Span, &mut HeaderMap) + Sync);

/// An event encoded for a target: the POST without the token.
pub struct Delivery<'a> {
    target: &'a Target,
    trace: Option<TraceHeaders<'a>>,
    signed_by: Option<(&'a Signer, MessageId)>,
    headers: HeaderMap,
    body: Bytes,
}

/// A delivery with its token: the next step sends it.
pub struct Authorized<'a> {
    delivery: Delivery<'a>,
    token: HeaderValue,
}

/// Why a delivery has no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// The token service issued none.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// The operator is stopping.
    #[error("the operator is stopping")]
    Stopping,
}

/// The event may not be sent now; nothing is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCleared;

impl<'a> Delivery<'a> {
    /// Encodes `event` for `target`.
    pub fn prepare(target: &'a Target, event: &CheckedEvent) -> Result<Self, InvalidEvent> {
        let (headers, body) = encode(event, target.encoding)?;
        let signed_by = target.signer.as_ref().map(|signer| (signer, MessageId::of_event(event.id())));
        Ok(Self { target, trace: None, signed_by, headers, body: body.into() })
    }

    /// Adds these headers to each POST.
    pub fn traced(self, headers: TraceHeaders<'a>) -> Self {
        Self { trace: Some(headers), ..self }
    }

    /// Gets the token. Without one, nothing is sent and no attempt is spent.
    pub async fn authorize(self, clearance: &impl Clearance) -> Result<Authorized<'a>, Unauthorized> {
        let token = self.target.tokens.token().instrument(token_span());
        let token = unless_stopping(clearance, token).await.ok_or(Unauthorized::Stopping)??;
        Ok(Authorized { delivery: self, token })
    }
}

impl Authorized<'_> {
    /// POSTs the event. A 401, or another status by the rules, renews the token and sends once more, with a signature of
    /// its own (no challenge scheme is followed).
    pub async fn send(self, clearance: &impl Clearance) -> Result<Outcome, NotCleared> {
        let Self { delivery, token } = self;
        let target = delivery.target;
        // One deadline for both requests.
        let deadline = Instant::now() + target.timeout;
        let mut answer = delivery.post(&token, deadline, clearance).await?;
        if answer.as_ref().is_ok_and(|(status, _)| target.rules.renews_token(*status)) {
            let renewed = timeout_at(deadline, target.tokens.token_other_than(&token)).instrument(token_span());
            if let Some(Ok(Some(Ok(token)))) = unless_stopping(clearance, renewed).await {
                answer = delivery.post(&token, deadline, clearance).await?;
            }
        }
        Ok(match answer {
            Ok((status, retry_after)) => {
                let is_default = target.rules.action(status).is_none();
                if is_default && target.token_doubt.is_raised_by(status, retry_after) {
                    target.tokens.renew_next(&token).await;
                }
                Outcome::of_answer(status, retry_after, &delivery.describe(), &target.rules)
            }
            Err(error) => Outcome::of_error(&error),
        })
    }
}

impl Delivery<'_> {
    async fn post(
        &self,
        token: &HeaderValue,
        deadline: Instant,
        clearance: &impl Clearance,
    ) -> Result<Result<(StatusCode, Option<Duration>), SendError>, NotCleared> {
        if !clearance.may_send() {
            return Err(NotCleared);
        }
        let mut headers = self.headers.clone();
        if let Some((signer, id)) = &self.signed_by {
            match signer.headers(id, SystemTime::now(), &self.body) {
                Ok(signature) => headers.extend(signature),
                Err(NotSigned) => return Ok(Err(SendError::Broken)),
            }
        }
        headers.insert(AUTHORIZATION, token.clone());
        let span = request_span(self.target);
        if let Some(add) = self.trace {
            add(&span, &mut headers);
        }
        let time = deadline.saturating_duration_since(Instant::now());
        // Also before the POST that follows a broken reused connection.
        let may_repeat = || clearance.may_send();
        let answer = self.target.exchange(Method::POST, headers, self.body.clone(), time, &may_repeat).await;
        note(&span, answer.as_ref().map(|answer| answer.status));
        Ok(answer.map(|answer| (answer.status, retry_after(&answer.headers, SystemTime::now()))))
    }

    /// Describes the request for people: content mode and media type.
    fn describe(&self) -> String {
        let mode = match self.target.encoding {
            Encoding::Structured(_) => "Structured",
            Encoding::Binary => "Binary",
        };
        let media_type = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("?");
        format!("content mode {mode} with Content-Type {media_type:.100}")
    }
}

/// The span of the wait for a token: for the request that is in flight, if one is.
fn token_span() -> Span {
    info_span!(target: spans::TARGET, "token")
}

/// The span of a POST, which includes the connection attempt and the response (OpenTelemetry, HTTP client spans). The
/// code that sends the request does not run in it, so that `connect` is beside it. It has the webhook's host, and never
/// the rest of the URL, which may hold a secret.
fn request_span(to: &Target) -> Span {
    info_span!(
        target: spans::TARGET,
        "request",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.response.status_code = Empty,
        server.address = to.url.host_str(),
        server.port = to.url.port_or_known_default().map(i64::from),
        error.type = Empty,
    )
}

/// Writes the result of a POST into its span.
fn note(span: &Span, answer: Result<StatusCode, &SendError>) {
    if span.is_disabled() {
        return;
    }
    let failed = match answer {
        Ok(status) => {
            span.record("http.response.status_code", i64::from(status.as_u16()));
            (status.is_client_error() || status.is_server_error()).then(|| status.as_str().to_owned())
        }
        Err(error) => Some(Outcome::of_error(error).reason.as_str().to_owned()),
    };
    if let Some(error) = failed {
        span.record("error.type", error);
        span.record("otel.status_code", "ERROR");
    }
}

/// Returns the result of `work`, or None if the operator stops first.
async fn unless_stopping<T>(clearance: &impl Clearance, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clearance.stopping() => None,
    }
}
