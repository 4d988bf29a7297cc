//! Serves the operator's HTTP endpoints, without TLS and without secrets: `/healthz` and `/readyz` on one address,
//! `/metrics` on another, so that clients of the metrics cannot block the kubelet's probes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderMap, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, VARY},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};
use tracing::debug;

use crate::metrics::{Exposition, Metrics};

/// Maximum number of concurrent connections to one address.
const CONNECTIONS: usize = 64;
/// Time after which a connection without a complete request is closed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Readiness of the operator: ready when all parts are ready, or while the operator is on standby.
#[derive(Clone)]
pub struct Readiness(Arc<(AtomicUsize, AtomicBool)>);

impl Readiness {
    /// Not ready until [`Self::part_is_ready`] has been called `parts` times.
    pub fn of_parts(parts: usize) -> Self {
        Self(Arc::new((AtomicUsize::new(parts), AtomicBool::new(false))))
    }

    /// Records that one more part is ready.
    pub fn part_is_ready(&self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets whether this operator is on standby: another operator leads, and this operator can take over.
    pub fn stands_by(&self, standby: bool) {
        self.0.1.store(standby, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.1.load(Ordering::Relaxed) || self.0.0.load(Ordering::Relaxed) == 0
    }
}

/// What one address serves.
#[derive(Clone)]
pub enum AdminEndpoint {
    /// `/healthz` and `/readyz`.
    Health(Readiness),
    /// `/metrics`.
    Metrics(Metrics),
}

/// Listens on `address`. Fails if the address is in use.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves requests until dropped. Accepts every new connection: if all slots are in use, closes the oldest connection.
/// A request is answered as soon as it is read, so the oldest connection sends no request or reads no response.
pub async fn serve(listener: TcpListener, answers: AdminEndpoint) {
    let (mut connections, mut open) = (JoinSet::new(), VecDeque::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        open.retain(|connection: &AbortHandle| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connections.spawn(converse(stream, answers.clone())));
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, answers: AdminEndpoint) {
    let service = service_fn(|request: Request<Incoming>| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.to(request.uri().path(), request.headers()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection failed");
    }
}

impl AdminEndpoint {
    async fn to(&self, path: &str, headers: &HeaderMap) -> Response<String> {
        let plain = "text/plain; charset=utf-8";
        let (status, content_type, text) = match (self, path) {
            (Self::Health(_), "/healthz") => (StatusCode::OK, plain, "ok\n".to_owned()),
            (Self::Health(readiness), "/readyz") if readiness.is_ready() => (StatusCode::OK, plain, "ok\n".to_owned()),
            (Self::Health(_), "/readyz") => {
                let text = "not ready: still listing Subscribers and Notifications\n".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, plain, text)
            }
            (Self::Metrics(metrics), "/metrics") => {
                let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
                let format = Exposition::negotiated(accept);
                (StatusCode::OK, format.content_type(), metrics.scrape(format).await)
            }
            (Self::Health(_), _) => {
                let text = "this address serves /healthz and /readyz; --admin-addr serves /metrics\n".to_owned();
                (StatusCode::NOT_FOUND, plain, text)
            }
            (Self::Metrics(_), _) => {
                let text = "this address serves /metrics; --health-addr serves /healthz and /readyz\n".to_owned();
                (StatusCode::NOT_FOUND, plain, text)
            }
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        if matches!(self, Self::Metrics(_)) {
            response.headers_mut().insert(VARY, http::HeaderValue::from_static("accept"));
        }
        response
    }
}
