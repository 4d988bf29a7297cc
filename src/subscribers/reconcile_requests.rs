//! Keeps which Subscribers are to be reconciled again, until the reconcile loop takes them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidings_queue::SubscriberKey;
use tokio::sync::Notify;

/// Why a Subscriber is to be reconciled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReconcileCause {
    /// Deliveries are blocked. Passes for this cause are spaced, to avoid a storm of passes.
    Trouble,
    /// The Subscriber, or something that it depends on, changed. The pass runs as soon as its turn comes.
    Change,
}

/// The marked Subscribers. A Subscriber that is marked several times before it is taken is marked once.
#[derive(Debug, Default)]
pub(super) struct ReconcileRequests {
    /// Held briefly; no other lock is acquired while it is held.
    marked: Mutex<HashMap<SubscriberKey, ReconcileCause>>,
    /// Notified when a Subscriber is marked.
    added: Notify,
}

impl ReconcileRequests {
    /// Marks the Subscriber to be reconciled again. The more urgent cause wins.
    pub(super) fn add(&self, key: &SubscriberKey, cause: ReconcileCause) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marked.entry(key.clone()).or_insert(cause);
        *known = cause.max(*known);
        self.added.notify_one();
    }

    /// Waits until Subscribers are marked, and takes them. Cancel safe: no mark is lost when the future is dropped.
    pub(super) async fn taken(&self) -> Vec<(SubscriberKey, ReconcileCause)> {
        loop {
            let marked = std::mem::take(&mut *self.marked.lock().unwrap_or_else(PoisonError::into_inner));
            if !marked.is_empty() {
                return marked.into_iter().collect();
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_marked_is_taken_once_with_the_more_urgent_cause() {
        let (requests, key) = (ReconcileRequests::default(), SubscriberKey { namespace: "a".into(), name: "s".into() });
        requests.add(&key, ReconcileCause::Change);
        requests.add(&key, ReconcileCause::Trouble);
        assert_eq!(requests.taken().await, [(key.clone(), ReconcileCause::Change)]);
        assert!(requests.taken().now_or_never().is_none());
        requests.add(&key, ReconcileCause::Trouble);
        assert_eq!(requests.taken().await, [(key, ReconcileCause::Trouble)]);
    }
}
