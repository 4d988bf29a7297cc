//! Which Subscribers are to be looked at again, until the loop that looks at them takes note.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidings_queue::SubscriberKey;
use tokio::sync::Notify;

/// Why a Subscriber is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Deliveries cannot go on: as soon as that does not make a storm.
    Trouble,
    /// Something that it depends on changed: at once.
    Change,
}

/// However often a Subscriber is marked before it is taken, it is marked once.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Held for moments, and no other lock is taken meanwhile.
    marked: Mutex<HashMap<SubscriberKey, Cause>>,
    /// There is something.
    news: Notify,
}

impl Marks {
    /// The Subscriber is to be looked at again; the more urgent cause counts.
    pub(super) fn add(&self, key: &SubscriberKey, cause: Cause) {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marked.entry(key.clone()).or_insert(cause);
        *known = cause.max(*known);
        self.news.notify_one();
    }

    /// Waits until there are some, and takes them. Loses none when it is dropped.
    pub(super) async fn taken(&self) -> Vec<(SubscriberKey, Cause)> {
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
        let (marks, key) = (Marks::default(), SubscriberKey { namespace: "a".into(), name: "s".into() });
        marks.add(&key, Cause::Change);
        marks.add(&key, Cause::Trouble);
        assert_eq!(marks.taken().await, [(key.clone(), Cause::Change)]);
        assert!(marks.taken().now_or_never().is_none());
        marks.add(&key, Cause::Trouble);
        assert_eq!(marks.taken().await, [(key, Cause::Trouble)]);
    }
}
