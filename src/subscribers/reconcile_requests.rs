//! Which Subscribers are to be looked at again, until the loop that looks at them takes note.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidings_queue::SubscriberKey;
use tokio::sync::Notify;

/// Why a Subscriber is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReconcileCause {
    /// Deliveries cannot go on: as soon as that does not make a storm.
    Trouble,
    /// Something that it depends on changed: at once.
    Change,
}

/// However often a Subscriber is marked before it is taken, it is marked once.
#[derive(Debug, Default)]
pub(super) struct ReconcileRequests {
    /// Held for moments, and no other lock is taken meanwhile.
    marked: Mutex<HashMap<SubscriberKey, ReconcileCause>>,
    /// There is something.
    news: Notify,
}

impl ReconcileRequests {
    /// The Subscriber is to be looked at again; the more urgent cause counts.
    pub(super) fn add(&self, key: &SubscriberKey, cause: ReconcileCause) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marked.entry(key.clone()).or_insert(cause);
        *known = cause.max(*known);
        self.news.notify_one();
    }

    /// Waits until there are some, and takes them. Loses none when it is dropped.
    pub(super) async fn taken(&self) -> Vec<(SubscriberKey, ReconcileCause)> {
        loop {
            let marked = std::mem::take(&mut *self.marked.lock().unwrap_or_else(PoisonError::into_inner));
            if !marked.is_empty() {
                return marked.into_iter().collect();
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_marked_is_taken_once_with_the_more_urgent_cause() {
        let (reconcile_requests, key) =
            (ReconcileRequests::default(), SubscriberKey { namespace: "a".into(), name: "s".into() });
        reconcile_requests.add(&key, ReconcileCause::Change);
        reconcile_requests.add(&key, ReconcileCause::Trouble);
        assert_eq!(reconcile_requests.taken().await, [(key.clone(), ReconcileCause::Change)]);
        assert!(reconcile_requests.taken().now_or_never().is_none());
        reconcile_requests.add(&key, ReconcileCause::Trouble);
        assert_eq!(reconcile_requests.taken().await, [(key, ReconcileCause::Trouble)]);
    }
}
