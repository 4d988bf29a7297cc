//! The metrics of the operator. Labels have fixed sets of values, except the names of Subscribers, whose number is
//! limited.
//!
//! [`instruments`] are counted as things happen. [`sampled`] values are read at a scrape: the lanes of the queue and the
//! statuses of Subscribers. [`subscriber_series`] decides which Subscribers have series of their own. [`exposition`]
//! encodes all of them, with those of the [`process`].

mod exposition;
mod instruments;
mod labels;
mod process;
mod sampled;
mod subscriber_series;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tidings_api::{AttemptReason, Phase};
use tidings_delivery::egress::{ConnectResult, LookupResult, Observer, TokenRequestResult, ValidationResult};
use tidings_queue::{LaneReading, SubscriberKey};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

pub use self::{
    exposition::Exposition,
    labels::{AttemptOutcome, LeaseRenewal, WatchedKind, WriteResult, WrittenKind},
    sampled::StatusTally,
    subscriber_series::ExpiryTimes,
};
use self::{
    instruments::Instruments,
    sampled::{Sample, Sampled},
    subscriber_series::SubscriberSeries,
};

/// How long a scrape waits for the engine. After that, it shows what the engine showed last.
const PATIENCE: Duration = Duration::from_secs(1);
/// A sample is used by all scrapes of this time, so that many scrapes cost the engine little.
const SAMPLE_AGE: Duration = Duration::from_millis(250);

/// A request for what the lanes hold. It is answered soon, or dropped.
pub type LanesWanted = oneshot::Sender<Vec<LaneReading>>;

/// Counts Subscribers by what their status says.
type CountStatuses = Box<dyn Fn() -> StatusTally + Send + Sync>;

/// All metrics of the operator. Clones share the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<MetricsState>);

struct MetricsState {
    instruments: Instruments,
    process: Registry,
    sample: Arc<Mutex<Sample>>,
    /// None: there are no series for each Subscriber.
    series: Option<Arc<SubscriberSeries>>,
    sources: Mutex<ScrapeSources>,
    /// Held during a scrape: one scrape at a time reads the lanes.
    scraping: tokio::sync::Mutex<()>,
}

/// Where a scrape reads from. Each is missing until its part of the operator has started.
#[derive(Default)]
struct ScrapeSources {
    lanes: Option<mpsc::Sender<LanesWanted>>,
    statuses: Option<CountStatuses>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Metrics {
    /// Makes the metrics, with series for at most `subscribers` Subscribers (None: no series for each Subscriber).
    pub fn new(subscribers: Option<usize>) -> Self {
        let sample = Arc::<Mutex<Sample>>::default();
        let series = subscribers.map(|limit| Arc::new(SubscriberSeries::new(limit)));
        let instruments = Instruments::new(Sampled { sample: sample.clone(), series: series.clone() });
        let (sources, scraping) = Default::default();
        Self(Arc::new(MetricsState { instruments, process: process::registry(), sample, series, sources, scraping }))
    }

    /// Counts an attempt for a Subscriber that ended with `reason` after `duration`.
    pub fn attempt(&self, of: &SubscriberKey, reason: AttemptReason, outcome: AttemptOutcome, duration: Duration) {
        let instruments = self.instruments();
        instruments.attempts.get_or_create(&[("reason", reason.as_str())]).inc();
        instruments.attempt_duration.observe(duration.as_secs_f64());
        self.series(|series| series.count(of, outcome));
    }

    /// Counts a Notification that became Delivered or Failed.
    pub fn finished(&self, phase: Phase) {
        self.instruments().finished.get_or_create(&[("phase", phase.as_str())]).inc();
    }

    /// Records how long after its creation or last replay a Notification was Delivered.
    pub fn delivered_after(&self, time: Duration) {
        self.instruments().time_to_delivery.observe(time.as_secs_f64());
    }

    /// Changes the number of stored finished Notifications by `by`.
    pub fn finished_stored_changed(&self, by: i64) {
        self.instruments().finished_stored.inc_by(by);
    }

    /// Counts a write to the API server.
    pub fn api_write(&self, kind: WrittenKind, result: WriteResult) {
        debug_assert!(kind.results().contains(&result), "{kind:?} {result:?}");
        let labels = [("kind", kind.as_str()), ("result", result.as_str())];
        self.instruments().api_writes.get_or_create(&labels).inc();
    }

    /// Records whether this operator leads.
    pub fn leading(&self, leads: bool) {
        self.instruments().leading.set(leads.into());
    }

    /// Counts that this operator gained the Lease.
    pub fn lease_taken(&self) {
        self.instruments().lease_takeovers.inc();
    }

    /// Counts an attempt of the leader to renew the Lease.
    pub fn lease_renewal(&self, result: LeaseRenewal) {
        self.instruments().lease_renewals.get_or_create(&[("result", result.as_str())]).inc();
    }

    /// Sets the number of watched namespaces in which the API server refuses to list Subscribers.
    pub fn namespaces_refused(&self, count: usize) {
        self.instruments().namespaces_refused.set(number(count));
    }

    /// Sets the length of the queue, and the number and bytes of the events in flight.
    pub fn queue(&self, unfinished: usize, in_flight: usize, bytes_in_flight: usize) {
        let instruments = self.instruments();
        instruments.unfinished.set(number(unfinished));
        instruments.in_flight.set(number(in_flight));
        instruments.bytes_in_flight.set(number(bytes_in_flight));
    }

    /// Records how long a reconcile of a Subscriber took.
    pub fn reconciled(&self, duration: Duration) {
        self.instruments().reconcile_duration.observe(duration.as_secs_f64());
    }

    /// Counts a watch, or its list, that failed and is started again.
    pub fn watch_restarted(&self, kind: WatchedKind) {
        self.instruments().watch_restarts.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// Records how long after its creation or last replay a watch showed a Notification.
    pub fn shown_after(&self, delay: Duration) {
        self.instruments().watch_delay.observe(delay.as_secs_f64());
    }

    /// Records that a Subscriber exists.
    pub fn add_subscriber(&self, of: &SubscriberKey) {
        self.series(|series| series.add(of));
    }

    /// Records that a Subscriber no longer exists: its series end.
    pub fn remove_subscriber(&self, of: &SubscriberKey) {
        self.series(|series| series.remove(of));
    }

    /// Records when what a Subscriber uses expires.
    pub fn subscriber_expires(&self, of: &SubscriberKey, expiries: ExpiryTimes) {
        self.series(|series| series.expire(of, expiries));
    }

    /// Returns the requests for what the lanes hold, which the owner of the lanes must answer.
    pub fn lanes_wanted(&self) -> mpsc::Receiver<LanesWanted> {
        let (wanted, requests) = mpsc::channel(1);
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).lanes = Some(wanted);
        requests
    }

    /// Calls `count` at each scrape. `count` only computes.
    pub fn count_statuses_with(&self, count: impl Fn() -> StatusTally + Send + Sync + 'static) {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).statuses = Some(Box::new(count));
    }

    /// Reads what is read at a scrape, and encodes all metrics.
    pub async fn scrape(&self, format: Exposition) -> String {
        let _turn = self.0.scraping.lock().await;
        self.sample().await;
        self.encode(format)
    }

    /// Encodes all metrics, with what the last scrape read.
    pub fn encode(&self, format: Exposition) -> String {
        format.encode(&[&self.0.instruments.registry, &self.0.process])
    }

    async fn sample(&self) {
        let is_fresh = |sample: &Sample| sample.taken.is_some_and(|taken| taken.elapsed() < SAMPLE_AGE);
        if is_fresh(&self.0.sample.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let wanted = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).lanes.clone();
        let lanes = match wanted {
            Some(wanted) => read(&wanted).await,
            None => None,
        };
        let sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses = sources.statuses.as_ref().map(|count| count());
        drop(sources);
        let mut sample = self.0.sample.lock().unwrap_or_else(PoisonError::into_inner);
        sample.taken = Some(Instant::now());
        sample.lanes = lanes.unwrap_or_else(|| std::mem::take(&mut sample.lanes));
        sample.statuses = statuses.unwrap_or_default();
    }

    fn instruments(&self) -> &Instruments {
        &self.0.instruments
    }

    fn series(&self, change: impl FnOnce(&SubscriberSeries)) {
        if let Some(series) = &self.0.series {
            change(series);
        }
    }
}

/// Asks the owner of the lanes for what they hold. Returns None if there is no answer in time.
async fn read(lanes: &mpsc::Sender<LanesWanted>) -> Option<Vec<LaneReading>> {
    let (answer, answered) = oneshot::channel();
    // If the last request was not taken yet, the engine is late.
    lanes.try_send(answer).ok()?;
    timeout(PATIENCE, answered).await.ok()?.ok()
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Observer for Metrics {
    fn name_looked_up(&self, result: LookupResult, took: Duration) {
        self.instruments().lookups.get_or_create(&[("result", result.as_str())]).inc();
        self.instruments().lookup_duration.observe(took.as_secs_f64());
    }

    fn connected(&self, result: ConnectResult, took: Duration) {
        self.instruments().connects.get_or_create(&[("result", result.as_str())]).inc();
        self.instruments().connect_duration.observe(took.as_secs_f64());
    }

    fn token_requested(&self, result: TokenRequestResult, took: Duration) {
        self.instruments().token_requests.get_or_create(&[("result", result.as_str())]).inc();
        self.instruments().token_request_duration.observe(took.as_secs_f64());
    }

    fn validation_requested(&self, result: ValidationResult) {
        self.instruments().validation_requests.get_or_create(&[("result", result.as_str())]).inc();
    }
}
