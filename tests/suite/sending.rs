//! Sends the three kinds of request that the operator sends to an address from a Subscriber.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use testkit::{Authority, Client, ForwardProxy, TokenService};
use tidings_api::AttemptReason;
use tidings_delivery::{
    egress::{self, Egress, Policy, Proxy, ProxySettings, Response, SendError, Trust},
    event::{CheckedEvent, Defaults, Encoding},
    oauth::{AuthMethod, TokenError, TokenSource},
    webhook::{
        Clearance, Delivery, NoValidationResponse, Outcome, ResponseRules, Target, TokenDoubt, request_validation,
    },
};

use crate::token_sources::{source_at, source_of, trusting};

/// The longest wait, unless a test sets another.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The limit of a response body where a test reads the body, in bytes.
pub const BODY_LIMIT: usize = 16 * 1024;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The delivery of an event.
    Post,
    /// The validation request.
    Options,
    /// The token request.
    Token,
}

/// All kinds of request.
pub const WAYS: [Way; 3] = [Way::Post, Way::Options, Way::Token];

/// A client, and the token service that its deliveries need.
pub struct Sender {
    pub http: Arc<egress::Client>,
    tokens: Arc<TokenSource>,
    _service: TokenService,
    /// The proxy of all requests except those for the deliveries' tokens.
    pub proxy: Option<ForwardProxy>,
}

impl Sender {
    /// Creates a sender with the client `http`.
    pub async fn over(http: Arc<egress::Client>) -> Self {
        let authority = Authority::new();
        let service = TokenService::start(&authority).await.unwrap();
        service.register(Client::new("id", "secret"));
        let way = Egress::new(allowing("127.0.0.1")).client("test", &trusting(&authority)).unwrap();
        let tokens = source_of(&service, way, AuthMethod::Basic);
        Self { http, tokens, _service: service, proxy: None }
    }

    /// Creates a sender with this egress policy and this trust.
    pub async fn new(policy: Policy, trust: &Trust) -> Self {
        Self::over(Egress::new(policy).client("test", trust).unwrap()).await
    }

    /// Creates a sender that connects directly, and one that sends all requests through a proxy.
    pub async fn both(policy: Policy, trust: &Trust) -> [Self; 2] {
        let proxy = ForwardProxy::start(None).await.unwrap();
        let settings = ProxySettings { url: proxy.url(), ..ProxySettings::default() };
        let egress = Egress::new(policy.clone()).through(Proxy::configured(settings).unwrap().unwrap());
        let proxied = Self::over(egress.client("test", trust).unwrap()).await;
        [Self::new(policy, trust).await, Self { proxy: Some(proxy), ..proxied }]
    }

    /// Checks that all connections to a server, as many as this, went through the proxy if there is one.
    pub fn assert_proxied(&self, connections: usize) {
        if let Some(proxy) = &self.proxy {
            assert_eq!(proxy.connections(), connections, "connections through the proxy");
        }
    }

    /// Sends a request of this kind to `url`. Returns the error if no response arrived.
    pub async fn answer(&self, way: Way, url: &str) -> Result<(), AttemptReason> {
        match way {
            Way::Post => match self.post(url, PATIENCE).await {
                Outcome { status: None, reason, .. } => Err(reason),
                Outcome { .. } => Ok(()),
            },
            Way::Options => match request_validation(&self.target(url, PATIENCE), None).await {
                Err(NoValidationResponse::Failed(error)) => Err(reason(&error)),
                _ => Ok(()),
            },
            Way::Token => match self.token(url, PATIENCE).await {
                Some(TokenError::Unreachable(error)) => Err(reason(&error)),
                _ => Ok(()),
            },
        }
    }

    /// Sends a request of this kind to `url`. Returns the message for people about the missing response; empty if there is
    /// one.
    pub async fn message(&self, way: Way, url: &str) -> String {
        match way {
            Way::Post => self.post(url, PATIENCE).await.message,
            Way::Options => match request_validation(&self.target(url, PATIENCE), None).await {
                Err(error) => error.to_string(),
                Ok(_) => String::new(),
            },
            Way::Token => self.token(url, PATIENCE).await.map(|error| error.to_string()).unwrap_or_default(),
        }
    }

    /// Delivers an event to `url` and returns the outcome.
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
            rules: ResponseRules::default(),
            token_doubt: TokenDoubt::default(),
            signer: None,
            origin: HeaderValue::from_static("events.example.com"),
        }
    }

    /// Sends OPTIONS to `url` and returns the response. The URL is sent as written if it is a valid URI.
    pub async fn options(&self, url: &str, timeout: Duration) -> Result<Response, SendError> {
        let normal = || url.parse::<url::Url>().unwrap().as_str().parse().unwrap();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = url.parse().unwrap_or_else(|_| normal());
        self.http.send(request, BODY_LIMIT, timeout, &|| true).await
    }

    /// Requests a token from `url`. Returns the error, or None if the token service issued a token.
    pub async fn token(&self, url: &str, timeout: Duration) -> Option<TokenError> {
        let source = source_at(url, timeout, self.http.clone(), AuthMethod::Basic);
        source.token().await.err().map(|error| error.error)
    }
}

/// A policy that allows these addresses in addition to the public addresses.
pub fn allowing(range: &str) -> Policy {
    Policy::allowing(vec![range.parse().unwrap()])
}

fn reason(error: &SendError) -> AttemptReason {
    Outcome::of_error(error).reason
}

/// A clearance that permits every delivery.
pub struct Cleared;

impl Clearance for Cleared {
    fn may_send(&self) -> bool {
        true
    }

    async fn stopping(&self) {
        std::future::pending().await
    }
}
