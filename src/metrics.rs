//! The metrics of the operator. Labels have fixed sets of values.

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

/// All metrics of the operator. Clones share the same metrics.
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
            "Duration of delivery attempts, including token requests",
            Unit::Seconds,
            attempt_duration.clone(),
        );
        let finished = Family::<LabelSet, Counter>::default();
        registry.register(
            "notifications_finished",
            "Notifications that were Delivered or Failed, by phase",
            finished.clone(),
        );
        let status_writes = Family::<LabelSet, Counter>::default();
        registry.register("status_writes", "Writes of the status of Notifications, by result", status_writes.clone());
        let unfinished = Gauge::default();
        registry.register(
            "notifications_unfinished",
            "Notifications that are neither Delivered nor Failed",
            unfinished.clone(),
        );
        let in_flight = Gauge::default();
        registry.register("attempts_in_flight", "Delivery attempts in flight", in_flight.clone());
        let finished_stored = Gauge::default();
        registry.register(
            "notifications_finished_stored",
            "Delivered and Failed Notifications in the API server, recounted every 24 hours",
            finished_stored.clone(),
        );
        let leading = Gauge::default();
        registry.register("leading", "Whether this operator leads (1) or is on standby (0)", leading.clone());
        let namespaces_refused = Gauge::default();
        registry.register(
            "namespaces_refused",
            "Watched namespaces without delivery because the operator may not list Subscribers",
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
    /// Counts an attempt that ended with `reason` after `duration`.
    pub fn attempt(&self, reason: &'static str, duration: Duration) {
        self.0.attempts.get_or_create(&[("reason", reason)]).inc();
        self.0.attempt_duration.observe(duration.as_secs_f64());
    }

    /// Counts a Notification that became Delivered or Failed.
    pub fn finished(&self, phase: &'static str) {
        self.0.finished.get_or_create(&[("phase", phase)]).inc();
    }

    /// Changes the number of stored finished Notifications by `by`.
    pub fn finished_stored_changed(&self, by: i64) {
        self.0.finished_stored.inc_by(by);
    }

    /// Counts a write of a Notification's status that ended with `result`.
    pub fn status_write(&self, result: &'static str) {
        self.0.status_writes.get_or_create(&[("result", result)]).inc();
    }

    /// Records that this operator leads.
    pub fn leads(&self) {
        self.0.leading.set(1);
    }

    /// Sets the number of watched namespaces in which the API server refuses to list Subscribers.
    pub fn namespaces_refused(&self, count: usize) {
        self.0.namespaces_refused.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the length of the queue and the number of attempts in flight.
    pub fn queue(&self, unfinished: usize, in_flight: usize) {
        self.0.unfinished.set(i64::try_from(unfinished).unwrap_or(i64::MAX));
        self.0.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}
