//! Connection reuse: records whether an exchange used an existing connection, and limits concurrent connection attempts
//! to a host.

use std::{
    cell::Cell,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tokio::{sync::Semaphore, task_local};
use tower::{Layer, Service};
use tracing::{Span, field::Empty, info_span};

use super::{
    Observer,
    error::{BoxError, sort},
    observer,
};
use crate::spans;

/// The maximum number of concurrent connection attempts to one host, as many as one Subscriber may have deliveries. A
/// server that never completes a handshake holds no more connections than these.
const CONNECTING: usize = 128;

task_local! {
    static EXCHANGE: Exchange;
}

/// The current exchange of a task.
struct Exchange {
    /// Whether a connection attempt was started for it.
    begun: Cell<bool>,
    /// Limits the concurrent connection attempts to its host.
    connecting: Arc<Semaphore>,
    /// The span that the exchange belongs to.
    span: Option<Span>,
}

/// Makes the limit of concurrent connection attempts to one host.
pub(super) fn connecting() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTING))
}

/// Runs an exchange with the host that `connecting` limits. Also returns whether a connection attempt was started for
/// the exchange; if not, the exchange reused a connection.
pub(super) async fn watched<T>(connecting: Arc<Semaphore>, exchange: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let result = exchange.await;
        (result, EXCHANGE.with(|exchange| exchange.begun.get()))
    };
    EXCHANGE.scope(Exchange { begun: Cell::new(false), connecting, span: spans::current() }, watched).await
}

/// The span of a connection attempt: the wait for a turn, name, TCP and TLS.
fn span(of: &Span) -> Span {
    info_span!(target: spans::TARGET, parent: of, "connect", otel.status_code = Empty)
}

/// Records and limits the connection attempts of the HTTP client.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    observer: Arc<dyn Observer>,
}

impl Connections {
    /// Reports each attempt to connect to `observer`.
    pub(super) fn observed_by(observer: Arc<dyn Observer>) -> Self {
        Self { observer }
    }
}

impl<S> Layer<S> for Connections {
    type Service = Bounded<S>;

    fn layer(&self, connector: S) -> Bounded<S> {
        Bounded { connector, observer: self.observer.clone() }
    }
}

/// A connector that records its calls, and waits while there are too many connection attempts to the host. The HTTP
/// client calls it in the task of the exchange, and may continue in another task.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    connector: S,
    observer: Arc<dyn Observer>,
}

impl<R, S> Service<R> for Bounded<S>
where
    R: Send + 'static,
    S: Service<R, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = EXCHANGE.try_with(|exchange| {
            exchange.begun.set(true);
            (exchange.connecting.clone(), exchange.span.as_ref().map(span))
        });
        // The service that was polled ready is the one to call.
        let clone = self.connector.clone();
        let mut connector = std::mem::replace(&mut self.connector, clone);
        let observer = self.observer.clone();
        Box::pin(async move {
            let connected = async {
                let Ok((connecting, span)) = connecting else { return connector.call(target).await };
                let _turn = connecting.acquire_owned().await.ok();
                let connected = connector.call(target).await;
                if let (Some(span), Err(_)) = (span, &connected) {
                    span.record("otel.status_code", "ERROR");
                }
                connected
            };
            observer::connect(&observer, |error: &BoxError| sort(&**error), connected).await
        })
    }
}
