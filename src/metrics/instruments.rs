//! What is counted as it happens. Each label has all its values from the start, so that a rate sees the first change.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tidings_api::{AttemptReason, Phase};
use tidings_delivery::egress::{ConnectResult, LookupResult, TokenRequestResult, ValidationResult};

use super::{
    labels::{LeaseRenewal, WatchedKind, WrittenKind},
    sampled::Sampled,
};

/// Buckets for the time until an event is delivered: from a tenth of a second to a day.
const TO_DELIVERY: [f64; 15] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// Buckets for the delay of a watch. Creation times are full seconds.
const OF_WATCH: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// The labels of a series with one label, and with two.
pub(super) type OneLabel = [(&'static str, &'static str); 1];
pub(super) type TwoLabels = [(&'static str, &'static str); 2];

/// All instruments, and the registry that encodes them.
pub(super) struct Instruments {
    pub(super) registry: Registry,
    pub(super) attempts: Family<OneLabel, Counter>,
    pub(super) attempt_duration: Histogram,
    pub(super) finished: Family<OneLabel, Counter>,
    pub(super) time_to_delivery: Histogram,
    pub(super) unfinished: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) bytes_in_flight: Gauge,
    pub(super) finished_stored: Gauge,
    pub(super) token_requests: Family<OneLabel, Counter>,
    pub(super) token_request_duration: Histogram,
    pub(super) validation_requests: Family<OneLabel, Counter>,
    pub(super) lookups: Family<OneLabel, Counter>,
    pub(super) lookup_duration: Histogram,
    pub(super) connects: Family<OneLabel, Counter>,
    pub(super) connect_duration: Histogram,
    pub(super) leading: Gauge,
    pub(super) lease_renewals: Family<OneLabel, Counter>,
    pub(super) lease_takeovers: Counter,
    pub(super) api_writes: Family<TwoLabels, Counter>,
    pub(super) reconcile_duration: Histogram,
    pub(super) watch_restarts: Family<OneLabel, Counter>,
    pub(super) watch_delay: Histogram,
    pub(super) namespaces_refused: Gauge,
}

impl Instruments {
    /// Makes all instruments. `sampled` encodes what is read at a scrape.
    pub(super) fn new(sampled: Sampled) -> Self {
        let of = &mut Registering(Registry::with_prefix("tidings"));
        let [delivered, failed] = [Phase::Delivered, Phase::Failed].map(Phase::as_str);
        let instruments = Self {
            attempts: of.counters(
                "attempts",
                "Delivery attempts that ended, by reason",
                "reason",
                AttemptReason::ALL.iter().map(|reason| reason.as_str()),
            ),
            attempt_duration: of
                .duration("attempt_duration", "Duration of delivery attempts, including token requests"),
            finished: of.counters(
                "notifications_finished",
                "Notifications that were Delivered or Failed, by phase",
                "phase",
                [delivered, failed],
            ),
            time_to_delivery: of.histogram(
                "time_to_delivery",
                "Time from the creation or last replay of a Notification until it was Delivered",
                TO_DELIVERY,
            ),
            unfinished: of.gauge("notifications_unfinished", "Notifications that are neither Delivered nor Failed"),
            in_flight: of.gauge("attempts_in_flight", "Delivery attempts in flight"),
            bytes_in_flight: of.gauge("event_bytes_in_flight", "Bytes of the events in flight"),
            finished_stored: of.gauge(
                "notifications_finished_stored",
                "Delivered and Failed Notifications in the API server, recounted every 24 hours",
            ),
            token_requests: of.counters(
                "token_requests",
                "Token requests that ended, by result",
                "result",
                TokenRequestResult::ALL.iter().map(|result| result.as_str()),
            ),
            token_request_duration: of.duration("token_request_duration", "Duration of token requests"),
            validation_requests: of.counters(
                "validation_requests",
                "Validation requests to webhooks that ended, by result",
                "result",
                ValidationResult::ALL.iter().map(|result| result.as_str()),
            ),
            lookups: of.counters(
                "dns_lookups",
                "Lookups of host names that ended, by result",
                "result",
                LookupResult::ALL.iter().map(|result| result.as_str()),
            ),
            lookup_duration: of.duration("dns_lookup_duration", "Duration of lookups of host names"),
            connects: of.counters(
                "connects",
                "Attempts to connect to webhooks and token services that ended, by result",
                "result",
                ConnectResult::ALL.iter().map(|result| result.as_str()),
            ),
            connect_duration: of
                .duration("connect_duration", "Duration of attempts to connect, with lookup and TLS handshake"),
            leading: of.gauge("leading", "Whether this operator leads (1) or is on standby (0)"),
            lease_renewals: of.counters(
                "lease_renewals",
                "Renewals of the Lease by the leader, by result",
                "result",
                LeaseRenewal::ALL.iter().map(|result| result.as_str()),
            ),
            lease_takeovers: of.counter("lease_takeovers", "How often this operator gained the Lease"),
            api_writes: of.api_writes(),
            reconcile_duration: of.duration("reconcile_duration", "Duration of reconciles of a Subscriber"),
            watch_restarts: of.counters(
                "watch_restarts",
                "Watches and their lists that failed and were started again, by kind",
                "kind",
                WatchedKind::ALL.iter().map(|kind| kind.as_str()),
            ),
            watch_delay: of.histogram(
                "watch_delay",
                "Time from the creation or replay of a Notification until a watch showed it",
                OF_WATCH,
            ),
            namespaces_refused: of.gauge(
                "namespaces_refused",
                "Watched namespaces without delivery because the operator may not list Subscribers",
            ),
            registry: Registry::default(),
        };
        of.build_info();
        of.0.register_collector(Box::new(sampled));
        Self { registry: std::mem::take(&mut of.0), ..instruments }
    }
}

/// Makes instruments and registers them. The library ends each text with a full stop, and each counter with `_total`.
struct Registering(Registry);

impl Registering {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<OneLabel, Counter> {
        let family = Family::<OneLabel, Counter>::default();
        values.into_iter().for_each(|value| drop(family.get_or_create(&[(label, value)])));
        self.0.register(name, help, family.clone());
        family
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: impl IntoIterator<Item = f64>) -> Histogram {
        let histogram = Histogram::new(buckets);
        self.0.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        histogram
    }

    /// From a millisecond to about a minute.
    fn duration(&mut self, name: &str, help: &str) -> Histogram {
        self.histogram(name, help, exponential_buckets(0.001, 4.0, 9))
    }

    fn api_writes(&mut self) -> Family<TwoLabels, Counter> {
        let family = Family::<TwoLabels, Counter>::default();
        for kind in WrittenKind::ALL {
            for result in kind.results() {
                drop(family.get_or_create(&[("kind", kind.as_str()), ("result", result.as_str())]));
            }
        }
        self.0.register("api_writes", "Writes to the API server, by kind of object and result", family.clone());
        family
    }

    fn build_info(&mut self) {
        let family = Family::<OneLabel, Gauge>::default();
        family.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        self.0.register("build_info", "The version of the operator; the value is always 1", family);
    }
}
