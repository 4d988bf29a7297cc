//! Runs a webhook.

use std::collections::HashMap;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;

use crate::endpoints::exchange::{Answer, Reply, Request};
use crate::endpoints::https::{Endpoint, HttpsServer};
use crate::endpoints::script::{Behaviour, Scripts};
use crate::endpoints::token_book::TokenBook;
use crate::error::{Error, Result};
use crate::pki::Authority;

/// Whether a bearer token is valid.
type Check = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Chooses the behavior for a POST.
type Choice = Box<dyn Fn(&Request) -> Behaviour + Send + Sync>;

/// A webhook receiver over HTTPS. Tests that share a receiver use different paths. Dropping it closes its port.
pub struct Receiver(HttpsServer<Webhook>);

/// A request to the receiver, and the status of its answer.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it arrived.
    pub arrived: Instant,
    /// The same as a wall-clock time.
    pub arrived_at: SystemTime,
    /// The client's end of the connection: equal for two requests over the same connection.
    pub peer: SocketAddr,
    /// POST, OPTIONS…
    pub method: Method,
    /// The path without its query.
    pub path: String,
    /// The query, after the `?`.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The status of the answer, set when the answer is passed to the connection; None before that (delay, hang,
    /// reset).
    pub answered: Option<u16>,
}

struct Webhook {
    check: Check,
    scripts: Scripts,
    choices: Mutex<HashMap<String, Choice>>,
    handshakes: Scripts,
    log: Mutex<Log>,
    arrivals: watch::Sender<usize>,
}

#[derive(Default)]
struct Log {
    requests: Vec<Received>,
    counts: HashMap<(Method, String), usize>,
}

impl Received {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        bearer(&self.headers)
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the event was sent in binary mode, with its attributes in `ce-` headers.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.headers.contains_key("ce-specversion")
    }

    /// The id of the event, in either mode.
    #[must_use]
    pub fn event_id(&self) -> Option<String> {
        match self.header("ce-id") {
            Some(id) => Some(percent_decode_str(id).decode_utf8_lossy().into_owned()),
            None => Some(self.json()?.get("id")?.as_str()?.to_owned()),
        }
    }
}

impl Receiver {
    /// Starts a receiver with a certificate of this authority. It accepts the tokens in this book.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(authority: &Authority, tokens: &TokenBook) -> Result<Self> {
        Self::start_with(authority.server_config(&[]), tokens).await
    }

    /// The same with another TLS configuration, for example one that requires client certificates.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start_with(tls: Arc<ServerConfig>, tokens: &TokenBook) -> Result<Self> {
        let tokens = tokens.clone();
        Self::serve(tls, Box::new(move |token| Box::pin(ready(tokens.check(&token).is_some())))).await
    }

    /// Starts a receiver that accepts the tokens that `check` accepts. `check` is called for each POST.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start_with_check<F>(
        authority: &Authority,
        check: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self::serve(authority.server_config(&[]), Box::new(move |token| Box::pin(check(token)))).await
    }

    async fn serve(tls: Arc<ServerConfig>, check: Check) -> Result<Self> {
        let (scripts, handshakes) = (Scripts::default(), Scripts::default());
        let (log, arrivals) = (Mutex::default(), watch::Sender::new(0));
        let webhook = Webhook { check, scripts, choices: Mutex::default(), handshakes, log, arrivals };
        Ok(Self(HttpsServer::start(Arc::new(webhook), tls).await?))
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The URL of a path, which starts with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.0.address())
    }

    /// Answers the next `count` POSTs to `path` that have a valid token with `behaviour` instead of 204.
    pub fn answer_next(&self, path: &str, count: usize, behaviour: &Behaviour) {
        self.webhook().scripts.next(path, count, behaviour);
    }

    /// Answers all POSTs to `path` that have a valid token with `behaviour`, until [`Receiver::behave`].
    pub fn answer_always(&self, path: &str, behaviour: Behaviour) {
        self.webhook().scripts.always(path, behaviour);
    }

    /// Answers each POST to `path` that has a valid token with the behavior that `choose` returns, unless another
    /// behavior is planned for it.
    pub fn answer_by(&self, path: &str, choose: impl Fn(&Request) -> Behaviour + Send + Sync + 'static) {
        self.webhook().choices.lock().unwrap().insert(path.to_owned(), Box::new(choose));
    }

    /// Answers the next `count` validation requests (OPTIONS) to `path` with `behaviour`, instead of a 204 without
    /// `WebHook-Allowed-Origin`.
    pub fn answer_next_options(&self, path: &str, count: usize, behaviour: &Behaviour) {
        self.webhook().handshakes.next(path, count, behaviour);
    }

    /// Answers all validation requests (OPTIONS) to `path` with `behaviour`, until [`Receiver::behave`].
    pub fn answer_options(&self, path: &str, behaviour: Behaviour) {
        self.webhook().handshakes.always(path, behaviour);
    }

    /// Removes the planned behaviors of `path`: POSTs are answered with 204 again, and OPTIONS with a 204 without
    /// `WebHook-Allowed-Origin`.
    pub fn behave(&self, path: &str) {
        self.webhook().scripts.forget(path);
        self.webhook().choices.lock().unwrap().remove(path);
        self.webhook().handshakes.forget(path);
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.webhook().log.lock().unwrap().requests.clone()
    }

    /// Every request to `path` so far.
    #[must_use]
    pub fn requests_for(&self, path: &str) -> Vec<Received> {
        let log = self.webhook().log.lock().unwrap();
        log.requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Waits until `count` POSTs have arrived at `path`, whatever their answer, and returns all requests to `path`.
    ///
    /// # Errors
    /// When there are fewer after `limit`. The error lists all requests, including those to other paths.
    pub async fn wait_for(&self, path: &str, count: usize, limit: Duration) -> Result<Vec<Received>> {
        self.wait_for_method(Method::POST, path, count, limit).await
    }

    /// Waits until `count` OPTIONS have arrived at `path`, whatever their answer, and returns all requests to `path`.
    ///
    /// # Errors
    /// As [`Receiver::wait_for`].
    pub async fn wait_for_options(&self, path: &str, count: usize, limit: Duration) -> Result<Vec<Received>> {
        self.wait_for_method(Method::OPTIONS, path, count, limit).await
    }

    async fn wait_for_method(
        &self,
        method: Method,
        path: &str,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<Received>> {
        let webhook = self.webhook();
        let wanted = (method, path.to_owned());
        let arrived = || webhook.log.lock().unwrap().counts.get(&wanted).copied().unwrap_or_default();
        let mut arrivals = webhook.arrivals.subscribe();
        if timeout(limit, arrivals.wait_for(|_| arrived() >= count)).await.is_ok() {
            return Ok(self.requests_for(path));
        }
        let all = self.requests();
        let list = all.iter().map(|r| format!("  {} {} {:?} {:?}\n", r.method, r.path, r.event_id(), r.answered));
        let (list, arrived, method): (String, _, _) = (list.collect(), arrived(), &wanted.0);
        let what = format!("{arrived} of {count} {method} to {path} after {limit:?}; all requests:\n{list}");
        Err(Error::new(what))
    }

    /// Stops listening: connections are refused until [`Receiver::resume`].
    pub fn stop(&mut self) {
        self.0.stop();
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When another program has taken the port.
    pub async fn resume(&mut self) -> Result<()> {
        self.0.resume().await
    }

    fn webhook(&self) -> &Webhook {
        self.0.endpoint()
    }
}

impl Endpoint for Webhook {
    async fn answer(&self, request: Request) -> Answer {
        let behaviour = self.behaviour(&request).await;
        let number = self.record(request, behaviour.immediate_status());
        behaviour.perform(|status| self.log.lock().unwrap().requests[number].answered = status).await
    }
}

impl Webhook {
    async fn behaviour(&self, request: &Request) -> Behaviour {
        match request.method {
            Method::POST if !self.is_authorized(request).await => {
                Behaviour::reply(Reply::status(401).header("www-authenticate", r#"Bearer error="invalid_token""#))
            }
            Method::POST => {
                let planned = self.scripts.take(&request.path).or_else(|| self.choose(request));
                planned.unwrap_or_else(|| Behaviour::status(204))
            }
            Method::OPTIONS => self.handshakes.take(&request.path).unwrap_or_else(|| {
                // Neither allowed nor refused.
                Behaviour::reply(Reply::status(204).header("allow", "OPTIONS, POST"))
            }),
            _ => Behaviour::reply(Reply::status(405).header("allow", "OPTIONS, POST")),
        }
    }

    fn choose(&self, request: &Request) -> Option<Behaviour> {
        let choices = self.choices.lock().unwrap();
        choices.get(&request.path).map(|choose| choose(request))
    }

    async fn is_authorized(&self, request: &Request) -> bool {
        match bearer(&request.headers) {
            Some(token) => (self.check)(token.to_owned()).await,
            None => false,
        }
    }

    fn record(&self, request: Request, answered: Option<u16>) -> usize {
        let Request { arrived, arrived_at, peer, method, path, query, headers, body, .. } = request;
        let mut log = self.log.lock().unwrap();
        *log.counts.entry((method.clone(), path.clone())).or_default() += 1;
        log.requests.push(Received { arrived, arrived_at, peer, method, path, query, headers, body, answered });
        let count = log.requests.len();
        drop(log);
        self.arrivals.send_replace(count);
        count - 1
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
