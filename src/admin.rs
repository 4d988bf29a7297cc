//! The operator's own HTTP endpoint: `/healthz`, `/readyz`, `/metrics`. Plain HTTP, no secrets, meant for the cluster.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::debug;

use crate::metrics::Metrics;

/// More connections than this wait.
const CONNECTIONS: usize = 64;
/// A connection that asks for nothing this long is closed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Says ready once as many parts as expected have said so, and while it stands by.
#[derive(Clone)]
pub struct Readiness(Arc<(AtomicUsize, AtomicBool)>);

impl Readiness {
    /// Not ready until [`Self::part_is_ready`] was called this often.
    pub fn of_parts(parts: usize) -> Self {
        Self(Arc::new((AtomicUsize::new(parts), AtomicBool::new(false))))
    }

    /// One more part is ready.
    pub fn part_is_ready(&self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Another operator leads, and this one is ready to follow it; or not any more.
    pub fn stands_by(&self, standby: bool) {
        self.0.1.store(standby, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.1.load(Ordering::Relaxed) || self.0.0.load(Ordering::Relaxed) == 0
    }
}

/// Listens on `address`; fails if it is taken.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until dropped.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Metrics) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (readiness, metrics) = (readiness.clone(), metrics.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &readiness, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%error, "serving a connection");
            }
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, readiness: &Readiness, metrics: &Metrics) -> Response<String> {
    let (status, text) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if readiness.is_ready() => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: still listing Subscribers and Notifications\n".to_owned())
        }
        "/metrics" => (StatusCode::OK, metrics.encode()),
        _ => (StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let content_type = if request.uri().path() == "/metrics" {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
