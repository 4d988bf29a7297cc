//! Records whether an exchange waits for the proxy, so that an exchange that ends too late names the one at fault.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task_local;

use crate::egress::{ProxyFault, SendError};

task_local! {
    static WAIT: ProxyWait;
}

/// Whether an exchange waits for the proxy.
#[derive(Clone, Debug, Default)]
pub(in crate::egress) struct ProxyWait(Arc<AtomicBool>);

impl ProxyWait {
    /// Returns the error of an exchange that did not end in time.
    pub(in crate::egress) fn late(&self) -> SendError {
        if self.is_at_proxy() { SendError::Proxy(ProxyFault::Timeout) } else { SendError::Timeout }
    }

    fn is_at_proxy(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set_at_proxy(&self, at_proxy: bool) {
        self.0.store(at_proxy, Ordering::Relaxed);
    }

    /// Runs an exchange and notes whether it waits for the proxy. An exchange polls its connection attempt whenever it
    /// is polled itself, unless it uses another connection by then.
    pub(super) async fn watch<T>(&self, exchange: impl Future<Output = T>) -> T {
        let mut exchange = pin!(WAIT.scope(self.clone(), exchange));
        poll_fn(|context| {
            self.set_at_proxy(false);
            exchange.as_mut().poll(context)
        })
        .await
    }
}

/// Waits for the proxy in a connection attempt. An attempt that continues in another task belongs to no exchange.
pub(super) async fn at_proxy<T>(attempt: impl Future<Output = T>) -> T {
    let mut attempt = pin!(attempt);
    poll_fn(|context| {
        let polled = attempt.as_mut().poll(context);
        if polled.is_pending() {
            let _ = WAIT.try_with(|wait| wait.set_at_proxy(true));
        }
        polled
    })
    .await
}

/// Whether the exchange of this task waits for the proxy.
pub(super) fn is_at_proxy() -> bool {
    WAIT.try_with(ProxyWait::is_at_proxy).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use futures::future::{Either, select};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// The error of an exchange that does not end.
    async fn late(exchange: impl Future<Output = ()>) -> SendError {
        let wait = ProxyWait::default();
        timeout(Duration::from_millis(100), wait.watch(exchange)).await.unwrap_err();
        wait.late()
    }

    #[tokio::test]
    async fn an_exchange_that_waits_for_the_proxy_names_the_proxy_and_a_later_one_the_server() {
        assert_eq!(late(at_proxy(pending())).await, SendError::Proxy(ProxyFault::Timeout));
        assert_eq!(late(pending()).await, SendError::Timeout);
        let opened = async {
            at_proxy(sleep(Duration::from_millis(1))).await;
            pending().await
        };
        assert_eq!(late(opened).await, SendError::Timeout);
    }

    #[tokio::test]
    async fn an_attempt_that_continues_in_another_task_is_not_what_the_exchange_waits_for() {
        let reused = async {
            let attempt = Box::pin(at_proxy(pending::<()>()));
            // As the HTTP client does, when a connection becomes idle during the attempt.
            if let Either::Left((attempt, _)) = select(attempt, pin!(sleep(Duration::from_millis(1)))).await {
                return attempt;
            }
            pending().await
        };
        assert_eq!(late(reused).await, SendError::Timeout);
        let moved = async {
            let attempt = Box::pin(at_proxy(pending::<()>()));
            let Either::Right((_, attempt)) = select(attempt, pin!(sleep(Duration::from_millis(1)))).await else {
                return;
            };
            tokio::spawn(attempt);
            pending().await
        };
        assert_eq!(late(moved).await, SendError::Timeout);
    }
}
