//! Whether a request went out on a kept connection.

use std::{
    cell::Cell,
    task::{Context, Poll},
};

use tokio::task_local;
use tower::{Layer, Service};

task_local! {
    /// Whether a connection was begun for the exchange that this task is at.
    static BEGUN: Cell<bool>;
}

/// Waits for an exchange. Also returns whether a connection was begun for it: if not, the exchange had a kept one.
pub(super) async fn watched<T>(exchange: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let result = exchange.await;
        (result, BEGUN.with(Cell::get))
    };
    BEGUN.scope(Cell::new(false), watched).await
}

/// Notes each connection that the HTTP client begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotesConnections;

impl<S> Layer<S> for NotesConnections {
    type Service = Noting<S>;

    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

/// A connector that notes when it is called. The HTTP client calls it in the task of the exchange.
#[derive(Clone, Debug)]
pub(super) struct Noting<S>(S);

impl<R, S: Service<R>> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> S::Future {
        let _ = BEGUN.try_with(|begun| begun.set(true));
        self.0.call(target)
    }
}
