//! Counts the stored finished Notifications: listings count them, and this process adds its own changes since.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::metrics::Metrics;

/// The counts behind the gauge; clones share them.
#[derive(Clone)]
pub struct FinishedCount(Arc<Counts>);

struct Counts {
    metrics: Metrics,
    /// By namespace. The correction by a listing of all namespaces is under the empty name.
    counts: Mutex<HashMap<Box<str>, i64>>,
}

impl FinishedCount {
    /// Makes a count that shows its sum in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Counts { metrics, counts: Mutex::default() }))
    }

    /// Records that this process finished (+1), deleted or replayed (-1) a Notification in this namespace.
    pub fn changed(&self, namespace: &str, by: i64) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(namespace) {
            Some(count) => *count += by,
            None => drop(counts.insert(namespace.into(), by)),
        }
        self.0.metrics.finished_stored_changed(by);
    }

    /// Returns the count in one namespace, or (None) in all.
    pub fn of(&self, scope: Option<&str>) -> i64 {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        scope.map_or_else(|| counts.values().sum(), |namespace| counts.get(namespace).copied().unwrap_or_default())
    }

    /// Records that a listing of the scope has shown `listed` Notifications, where the count was `before` when the
    /// listing began. Changes during the listing are in the count already.
    pub fn counted(&self, scope: Option<&str>, before: i64, listed: i64) {
        self.changed(scope.unwrap_or_default(), listed - before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Exposition;

    fn shown(metrics: &Metrics) -> String {
        let text = metrics.encode(Exposition::Text);
        text.lines().find_map(|line| line.strip_prefix("tidings_notifications_finished_stored ")).unwrap().to_owned()
    }

    #[test]
    fn each_listing_corrects_its_own_scope_and_keeps_what_changed_meanwhile() {
        let metrics = Metrics::default();
        let finished_count = FinishedCount::new(metrics.clone());
        finished_count.changed("a", 3);
        finished_count.changed("b", 1);
        let before = finished_count.of(Some("a"));
        finished_count.changed("a", -1);
        finished_count.changed("b", 1);
        finished_count.counted(Some("a"), before, 10);
        assert_eq!((finished_count.of(Some("a")), finished_count.of(Some("b")), finished_count.of(None)), (9, 2, 11));
        assert_eq!(shown(&metrics), "11");
        finished_count.counted(None, finished_count.of(None), 5);
        assert_eq!((finished_count.of(None), shown(&metrics).as_str()), (5, "5"));
    }
}
