//! What an exchange does with connections: whether it had a kept one, and how many are begun to one host at once.

use std::{
    cell::Cell,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tokio::{sync::Semaphore, task_local};
use tower::{Layer, Service};

/// The most connections to one host that are being made at once, as many as one Subscriber may have deliveries. A server that
/// completes no handshake holds no more than these.
const CONNECTING: usize = 128;

task_local! {
    static EXCHANGE: Exchange;
}

/// The exchange that a task is at.
struct Exchange {
    /// Whether a connection was begun for it.
    begun: Cell<bool>,
    /// Bounds the connections to its host that are being made.
    connecting: Arc<Semaphore>,
}

/// Bounds the connections to one host that are being made at once.
pub(super) fn connecting() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTING))
}

/// Waits for an exchange with the host whose bound `connecting` is. Also returns whether a connection was begun for it: if
/// not, the exchange had a kept one.
pub(super) async fn watched<T>(connecting: Arc<Semaphore>, exchange: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let result = exchange.await;
        (result, EXCHANGE.with(|exchange| exchange.begun.get()))
    };
    EXCHANGE.scope(Exchange { begun: Cell::new(false), connecting }, watched).await
}

/// Notes and bounds the connections that the HTTP client begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connections;

impl<S> Layer<S> for Connections {
    type Service = Bounded<S>;

    fn layer(&self, connector: S) -> Bounded<S> {
        Bounded(connector)
    }
}

/// A connector that notes when it is called, and waits while too many connections to the host are being made. The HTTP client
/// calls it in the task of the exchange, and may go on with it in another one.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S>(S);

impl<R, S> Service<R> for Bounded<S>
where
    R: Send + 'static,
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = EXCHANGE.try_with(|exchange| {
            exchange.begun.set(true);
            exchange.connecting.clone()
        });
        // What was polled ready is what is called.
        let clone = self.0.clone();
        let mut connector = std::mem::replace(&mut self.0, clone);
        Box::pin(async move {
            let _turn = match connecting {
                Ok(connecting) => connecting.acquire_owned().await.ok(),
                Err(_) => None,
            };
            connector.call(target).await
        })
    }
}
