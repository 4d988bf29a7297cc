//! Runs an HTTP proxy in front of the API server that can refuse, lose, break off and delay single requests.

mod body;
mod log;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use self::body::{Answered, Broken, Passed};
pub use self::log::Late;
use self::log::Log;
use crate::background::Background;
use crate::control_plane::ControlPlane;
use crate::error::{Error, Result};
use crate::pki::Authority;
use crate::proxies::upstream::Upstream;

/// The parts of a request to the API server that decide its treatment.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET, PATCH…
    pub method: Method,
    /// The path without its query.
    pub path: String,
    /// The query, after the `?`; empty if there is none.
    pub query: String,
}

/// How the proxy treats a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Passes on the request and its response, chunk by chunk.
    Pass,
    /// Answers with a `Status` with this code. The request does not reach the API server.
    Answer(u16),
    /// Passes on the request, and ends the connection without a response.
    LoseAnswer,
    /// Ends the response and the connection in the middle of the body, after at most this many bytes.
    BreakOff(usize),
    /// Answers a watch with an ERROR event: its resourceVersion is too old (410 `Expired`).
    Expire,
    /// Passes on the request after this time, if the client still waits.
    Slow(Duration),
    /// Passes on the request after this time, whether or not the client still waits.
    Late(Duration),
}

impl Treatment {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "passed",
            Self::Answer(_) => "refused",
            Self::LoseAnswer => "response lost",
            Self::BreakOff(_) => "broken off",
            Self::Expire => "watch expired",
            Self::Slow(_) => "slow",
            Self::Late(_) => "late",
        }
    }
}

impl Call {
    /// Whether it is a watch.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|field| matches!(field, "watch=true" | "watch=1"))
    }

    /// Whether it lists a resource, for example `notifications`.
    #[must_use]
    pub fn is_list_of(&self, resource: &str) -> bool {
        self.method == Method::GET && !self.is_watch() && self.path.ends_with(&format!("/{resource}"))
    }

    /// Whether it writes the status of an object of a resource, for example `notifications`.
    #[must_use]
    pub fn is_status_write_to(&self, resource: &str) -> bool {
        self.method == Method::PATCH && self.path.ends_with("/status") && self.path.contains(&format!("/{resource}/"))
    }

    fn of(head: &Parts) -> Self {
        let query = head.uri.query().unwrap_or_default().to_owned();
        Self { method: head.method.clone(), path: head.uri.path().to_owned(), query }
    }
}

/// An HTTPS proxy on a loopback port, over HTTP/1.1 and HTTP/2. Dropping it closes its port and all connections.
pub struct ApiProxy {
    address: SocketAddr,
    ca_file: PathBuf,
    shared: Arc<Shared>,
    _running: Background,
}

type Rule = Box<dyn Fn(&Call) -> Treatment + Send + Sync>;

struct Shared {
    upstream: Upstream,
    rule: Mutex<Option<Rule>>,
    log: Log,
}

impl ApiProxy {
    /// Starts a proxy in front of the API server of `plane`, with its own certificate. At first, it passes on all
    /// requests.
    ///
    /// # Errors
    /// When there is no free port, or the folder of the control plane cannot be written to.
    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        let authority = Authority::new();
        let tls = TlsAcceptor::from(authority.server_config_for_http2());
        let upstream = Upstream::new(plane.address(), plane.ca_file())?;
        let shared = Arc::new(Shared { upstream, rule: Mutex::default(), log: Log::default() });
        let serving = Arc::clone(&shared);
        let serve = move |stream, _| serve(stream, Arc::clone(&serving), tls.clone());
        let (running, address) = Background::listen((Ipv4Addr::LOCALHOST, 0).into(), serve).await?;
        let ca_file = plane.folder().join(format!("proxy-{}.crt", address.port()));
        std::fs::write(&ca_file, authority.ca_pem())?;
        Ok(Self { address, ca_file, shared, _running: running })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the CA that issued the proxy's certificate, which is valid for every port of `127.0.0.1`.
    #[must_use]
    pub fn ca_file(&self) -> &PathBuf {
        &self.ca_file
    }

    /// From now on, `rule` chooses the treatment of each request, until [`ApiProxy::pass`]. It is called when the
    /// request is complete.
    pub fn treat(&self, rule: impl Fn(&Call) -> Treatment + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Applies this treatment to the next `count` requests for which `wanted` returns true; passes on all other
    /// requests.
    pub fn treat_next(
        &self,
        count: usize,
        treatment: Treatment,
        wanted: impl Fn(&Call) -> bool + Send + Sync + 'static,
    ) {
        let left = Mutex::new(count);
        self.treat(move |call| {
            let mut left = left.lock().unwrap();
            if *left == 0 || !wanted(call) {
                return Treatment::Pass;
            }
            *left -= 1;
            treatment
        });
    }

    /// From now on, passes on all requests.
    pub fn pass(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }

    /// The number of requests so far, by treatment.
    #[must_use]
    pub fn treated(&self) -> BTreeMap<&'static str, usize> {
        self.shared.log.treated.lock().unwrap().clone()
    }

    /// The number of requests that are being held ([`Treatment::Late`]).
    #[must_use]
    pub fn held(&self) -> usize {
        *self.shared.log.held.lock().unwrap()
    }

    /// The requests that were held and have reached the API server ([`Treatment::Late`]).
    #[must_use]
    pub fn late(&self) -> Vec<Late> {
        self.shared.log.late.lock().unwrap().clone()
    }

    /// The requests that the API server forbade (403), as method and path, and when.
    #[must_use]
    pub fn forbidden(&self) -> Vec<(Timestamp, String)> {
        self.shared.log.forbidden.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, tls: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    // The client reports a handshake that fails.
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(request).await }
    });
    // The client reports how a connection ends.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    /// Treats a request. An error ends the connection (with HTTP/2, the stream) without a response.
    async fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> Result<http::Response<Answered>, Broken> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.map_err(Broken::from)?.to_bytes();
        let call = Call::of(&head);
        let treatment = self.rule.lock().unwrap().as_ref().map_or(Treatment::Pass, |rule| rule(&call));
        *self.log.treated.lock().unwrap().entry(treatment.name()).or_default() += 1;
        for_http1(&mut head);
        let request = http::Request::from_parts(head, Full::new(body));
        match treatment {
            Treatment::Pass => self.pass_on(request, usize::MAX).await,
            Treatment::Slow(time) => {
                sleep(time).await;
                self.pass_on(request, usize::MAX).await
            }
            Treatment::BreakOff(limit) => self.pass_on(request, limit).await,
            Treatment::Answer(code) => Ok(refusal(code)),
            Treatment::Expire => Ok(expired()),
            Treatment::LoseAnswer => {
                let answer = self.send(request).await?;
                answer.into_body().collect().await.map_err(Broken::from)?;
                Err(Broken::from(Error::new("lost")))
            }
            Treatment::Late(time) => {
                *self.log.held.lock().unwrap() += 1;
                // A separate task, which continues when the client has gone away.
                let late = tokio::spawn(async move {
                    let from = Timestamp::now();
                    sleep(time).await;
                    let to = Timestamp::now();
                    let answer = self.pass_on(request, usize::MAX).await;
                    self.log.went_on(from, to, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
                    answer
                });
                late.await.map_err(Broken::from)?
            }
        }
    }

    async fn send(&self, request: crate::proxies::upstream::Request) -> Result<http::Response<Incoming>, Broken> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = self.upstream.send(request).await.map_err(Broken::from)?;
        if answer.status() == StatusCode::FORBIDDEN {
            self.log.forbidden(&method, &path);
        }
        Ok(answer)
    }

    async fn pass_on(
        &self,
        request: crate::proxies::upstream::Request,
        limit: usize,
    ) -> Result<http::Response<Answered>, Broken> {
        let (mut head, body) = self.send(request).await?.into_parts();
        head.headers.remove(http::header::CONNECTION);
        head.headers.remove(http::header::TRANSFER_ENCODING);
        Ok(http::Response::from_parts(head, Passed::new(body, limit).boxed()))
    }
}

/// Converts a request to HTTP/1.1: there, the host is a header and the URI is a path; in HTTP/2, the host is part of
/// the URI.
fn for_http1(head: &mut Parts) {
    let host = head.uri.authority().and_then(|host| host.as_str().parse().ok());
    if let Some(host) = host {
        head.headers.entry(http::header::HOST).or_insert(host);
    }
    head.uri = head.uri.path_and_query().and_then(|path| path.as_str().parse().ok()).unwrap_or_default();
    head.version = http::Version::HTTP_11;
}

/// A refusal in the format of the API server.
fn refusal(code: u16) -> http::Response<Answered> {
    let reason = match code {
        // As a proxy, or an API server that does not serve the definition, answers.
        404 => return reply(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the proxy", "reason": reason, "code": code});
    reply(StatusCode::from_u16(code).unwrap(), status.to_string())
}

fn expired() -> http::Response<Answered> {
    let event = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410}});
    reply(StatusCode::OK, format!("{event}\n"))
}

fn reply(status: StatusCode, body: String) -> http::Response<Answered> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed();
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
