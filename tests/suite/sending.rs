//! The three ways in which the operator sends something to an address that a Subscriber names.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use testkit::{Authority, Client, TokenService};
use tidings_api::AttemptReason;
use tidings_delivery::{
    egress::{self, Egress, Policy, Response, SendError, Trust},
    event::{CheckedEvent, Defaults, Encoding},
    oauth::{AuthMethod, TokenError, TokenSource},
    webhook::{Clearance, Delivery, NoValidationResponse, Outcome, Target, request_validation},
};

use crate::token_sources::{source_at, source_of, trusting};

/// Nothing takes longer, unless a test wants it to.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How much of an answer is read where a test reads it.
pub const BODY_LIMIT: usize = 16 * 1024;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The delivery of an event.
    Post,
    /// The request for consent before it.
    Options,
    /// The request for a token.
    Token,
}

/// All of them.
pub const WAYS: [Way; 3] = [Way::Post, Way::Options, Way::Token];

/// A client, with what a delivery needs besides: a token service of its own.
pub struct Sender {
    pub http: Arc<egress::Client>,
    tokens: Arc<TokenSource>,
    _service: TokenService,
}

impl Sender {
    /// A sender over `http`.
    pub async fn over(http: Arc<egress::Client>) -> Self {
        let authority = Authority::new();
        let service = TokenService::start(&authority).await.unwrap();
        service.register(Client::new("id", "secret"));
        let way = Egress::new(allowing("127.0.0.1")).client("test", &trusting(&authority)).unwrap();
        let tokens = source_of(&service, way, AuthMethod::Basic);
        Self { http, tokens, _service: service }
    }

    /// A sender that may go where `policy` says and trusts whom `trust` says.
    pub async fn new(policy: Policy, trust: &Trust) -> Self {
        Self::over(Egress::new(policy).client("test", trust).unwrap()).await
    }

    /// Whether something that answers is at `url`, or why nothing is.
    pub async fn answer(&self, way: Way, url: &str) -> Result<(), AttemptReason> {
        match way {
            Way::Post => match self.post(url, PATIENCE).await {
                Outcome { status: None, reason, .. } => Err(reason),
                Outcome { .. } => Ok(()),
            },
            Way::Options => match request_validation(&self.target(url, PATIENCE), None).await {
                Err(NoValidationResponse::Failed(error)) => Err(reason(error)),
                _ => Ok(()),
            },
            Way::Token => match self.token(url, PATIENCE).await {
                Some(TokenError::Unreachable(error)) => Err(reason(error)),
                _ => Ok(()),
            },
        }
    }

    /// How the delivery of an event to `url` ends.
    pub async fn post(&self, url: &str, timeout: Duration) -> Outcome {
        let target = self.target(url, timeout);
        let defaults = Defaults { id: "1", time: "2026-10-01T10:02:00Z" };
        let event = CheckedEvent::parse(r#"{"source": "/s", "type": "t", "data": {}}"#, defaults).unwrap();
        let authorized = Delivery::prepare(&target, &event).unwrap().authorize(&Cleared).await.unwrap();
        authorized.send(&Cleared).await.unwrap()
    }

    fn target(&self, url: &str, timeout: Duration) -> Target {
        Target {
            url: url.parse().unwrap(),
            encoding: Encoding::Structured(Encoding::CLOUDEVENTS_JSON),
            headers: http::HeaderMap::new(),
            timeout,
            http: self.http.clone(),
            tokens: self.tokens.clone(),
            origin: HeaderValue::from_static("events.example.com"),
        }
    }

    /// What comes back for an OPTIONS to `url`, which goes out as it is written where that is possible.
    pub async fn options(&self, url: &str, timeout: Duration) -> Result<Response, SendError> {
        let normal = || url.parse::<url::Url>().unwrap().as_str().parse().unwrap();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = url.parse().unwrap_or_else(|_| normal());
        self.http.send(request, BODY_LIMIT, timeout, &|| true).await
    }

    /// Why no token comes from `url`; None if one does.
    pub async fn token(&self, url: &str, timeout: Duration) -> Option<TokenError> {
        let source = source_at(url, timeout, self.http.clone(), AuthMethod::Basic);
        source.token().await.err().map(|error| error.error)
    }
}

/// A policy that allows these addresses besides the public ones.
pub fn allowing(range: &str) -> Policy {
    Policy::allowing(vec![range.parse().unwrap()])
}

fn reason(error: SendError) -> AttemptReason {
    Outcome::of_error(error).reason
}

/// Nothing forbids a delivery.
pub struct Cleared;

impl Clearance for Cleared {
    fn may_send(&self) -> bool {
        true
    }

    async fn stopping(&self) {
        std::future::pending().await
    }
}
