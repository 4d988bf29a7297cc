//! What can be counted. Labels come from closed sets.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

type LabelSet = [(&'static str, &'static str); 1];

/// All metrics of the operator; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    registry: Registry,
    attempts: Family<LabelSet, Counter>,
    attempt_duration: Histogram,
    finished: Family<LabelSet, Counter>,
    status_writes: Family<LabelSet, Counter>,
    unfinished: Gauge,
    in_flight: Gauge,
    finished_stored: Gauge,
    leading: Gauge,
    namespaces_refused: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let attempts = Family::<LabelSet, Counter>::default();
        registry.register("attempts", "Delivery attempts that ended, by reason", attempts.clone());
        let attempt_duration = Histogram::new(exponential_buckets(0.001, 4.0, 9));
        registry.register_with_unit(
            "attempt_duration",
            "How long delivery attempts took, token included",
            Unit::Seconds,
            attempt_duration.clone(),
        );
        let finished = Family::<LabelSet, Counter>::default();
        registry.register("notifications_finished", "Notifications that got their final phase", finished.clone());
        let status_writes = Family::<LabelSet, Counter>::default();
        registry.register("status_writes", "Writes of Notification statuses, by result", status_writes.clone());
        let unfinished = Gauge::default();
        registry.register("notifications_unfinished", "Notifications neither Delivered nor Failed", unfinished.clone());
        let in_flight = Gauge::default();
        registry.register("attempts_in_flight", "Delivery attempts under way", in_flight.clone());
        let finished_stored = Gauge::default();
        registry.register(
            "notifications_finished_stored",
            "Delivered and Failed Notifications in the API server, counted at the start and every 24 hours; in between the operator adds up what it finishes, replays and deletes itself",
            finished_stored.clone(),
        );
        let leading = Gauge::default();
        registry.register("leading", "Whether this operator leads (1) or stands by (0)", leading.clone());
        let namespaces_refused = Gauge::default();
        registry.register(
            "namespaces_refused",
            "Watched namespaces whose Subscribers the API server refuses to list: nothing is delivered there",
            namespaces_refused.clone(),
        );
        Self(Arc::new(Instruments {
            registry,
            attempts,
            attempt_duration,
            finished,
            status_writes,
            unfinished,
            in_flight,
            finished_stored,
            leading,
            namespaces_refused,
        }))
    }
}

impl Metrics {
    /// An attempt ended for `reason` after `duration`.
    pub fn attempt(&self, reason: &'static str, duration: Duration) {
        self.0.attempts.get_or_create(&[("reason", reason)]).inc();
        self.0.attempt_duration.observe(duration.as_secs_f64());
    }

    /// A Notification got its final phase.
    pub fn finished(&self, phase: &'static str) {
        self.0.finished.get_or_create(&[("phase", phase)]).inc();
    }

    /// This many more finished Notifications are stored than were known.
    pub fn finished_stored_changed(&self, by: i64) {
        self.0.finished_stored.inc_by(by);
    }

    /// A write of a Notification's status ended with `result`.
    pub fn status_write(&self, result: &'static str) {
        self.0.status_writes.get_or_create(&[("result", result)]).inc();
    }

    /// This operator leads from now on.
    pub fn leads(&self) {
        self.0.leading.set(1);
    }

    /// The number of watched namespaces whose Subscribers the API server refuses to list.
    pub fn namespaces_refused(&self, count: usize) {
        self.0.namespaces_refused.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How long the queue is.
    pub fn queue(&self, unfinished: usize, in_flight: usize) {
        self.0.unfinished.set(i64::try_from(unfinished).unwrap_or(i64::MAX));
        self.0.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }

    /// All of it in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}
