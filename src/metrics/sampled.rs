//! Metrics whose values are read at a scrape: from the lanes of the queue, and from the statuses of Subscribers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use tidings_api::{ConditionStatus, SubscriberReason};
use tidings_queue::{Circuit, Gate, LaneReading, SubscriberKey};

use super::{
    labels::AttemptOutcome,
    subscriber_series::{ExpiryTimes, SeriesValues, SubscriberSeries, earliest, oldest_unheld},
};

/// The name of the Subscriber, in no namespace, whose series add up the rest.
const OVERFLOW: &str = "overflow";

/// What was read at the last scrape.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// When it was read.
    pub(super) taken: Option<Instant>,
    pub(super) lanes: Vec<LaneReading>,
    pub(super) statuses: StatusTally,
}

/// The number of Subscribers by what their status says.
#[derive(Debug, Default)]
pub struct StatusTally {
    ready: BTreeMap<(&'static str, &'static str), u64>,
    /// The Subscribers that are Stalled, and why.
    stalled: Vec<(SubscriberKey, &'static str)>,
}

impl StatusTally {
    /// Counts a Subscriber by the status and the reason of its condition Ready (None: it has none yet). `stalled` is the
    /// reason of its condition Stalled, if that is True.
    pub fn add(&mut self, of: &SubscriberKey, ready: Option<(ConditionStatus, &str)>, stalled: Option<&str>) {
        let (status, reason) = ready.unwrap_or((ConditionStatus::Unknown, SubscriberReason::Progressing.as_str()));
        let status = match status {
            ConditionStatus::True => "true",
            ConditionStatus::False => "false",
            ConditionStatus::Unknown => "unknown",
        };
        *self.ready.entry((status, known(reason))).or_default() += 1;
        self.stalled.extend(stalled.map(|reason| (of.clone(), known(reason))));
    }
}

/// Returns the reason if this version knows it. Another version of the operator may have written another one.
fn known(reason: &str) -> &'static str {
    let mut known = SubscriberReason::ALL.iter().map(|known| known.as_str());
    known.find(|known| *known == reason).unwrap_or("Other")
}

/// Encodes the sample.
pub(super) struct Sampled {
    pub(super) sample: Arc<Mutex<Sample>>,
    /// None: there are no series for each Subscriber.
    pub(super) series: Option<Arc<SubscriberSeries>>,
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampled").finish_non_exhaustive()
    }
}

/// The labels and the value of one series.
type Series<'a, V> = (Vec<(&'static str, &'a str)>, V);

impl Collector for Sampled {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = Families(encoder);
        of_queue(&mut families, &sample.lanes)?;
        of_statuses(&mut families, &sample.statuses)?;
        match &self.series {
            Some(series) => of_subscribers(&mut families, &sample, series),
            None => Ok(()),
        }
    }
}

fn of_queue(families: &mut Families<'_>, lanes: &[LaneReading]) -> Result<(), fmt::Error> {
    let waiting = |gate: Gate| {
        let held = lanes.iter().filter(move |lane| lane.gate == Some(gate));
        held.map(|lane| lane.pending.saturating_sub(lane.in_flight)).sum::<usize>()
    };
    let help = "Unfinished Notifications that wait because a gate holds their Subscriber, by gate.";
    let gates = Gate::ALL.iter().map(|gate| (vec![("gate", gate.as_str())], waiting(*gate)));
    families.gauges("notifications_waiting", help, None, gates)?;
    let oldest = lanes.iter().fold(None, |oldest, lane| earliest(oldest, oldest_unheld(lane)));
    let help = "When the oldest unfinished Notification that is not suspended was created, or last replayed.";
    families.gauge("oldest_unfinished_timestamp", help, Some(&Unit::Seconds), oldest.map(timestamp))?;
    let known = || lanes.iter().filter(|lane| lane.is_known);
    let in_state = |state: Circuit| known().filter(|lane| lane.circuit == Some(state)).count();
    let help = "Subscribers whose circuit is not closed, by state.";
    let states = Circuit::ALL.iter().map(|state| (vec![("state", state.as_str())], in_state(*state)));
    families.gauges("circuits", help, None, states)?;
    let help = "Subscribers whose webhook requested a pause that has not ended.";
    families.gauge("subscribers_paused", help, None, Some(known().filter(|lane| lane.is_paused).count()))
}

fn of_statuses(families: &mut Families<'_>, statuses: &StatusTally) -> Result<(), fmt::Error> {
    let help = "Subscribers, by status and reason of their condition Ready.";
    let ready = statuses.ready.iter().map(|((ready, reason), count)| {
        let labels = vec![("ready", *ready), ("reason", *reason)];
        (labels, *count)
    });
    families.gauges("subscribers", help, None, ready)?;
    let help = "Subscribers that need the intervention of a user: their condition Stalled is True.";
    families.gauge("subscribers_stalled", help, None, Some(statuses.stalled.len()))
}

fn of_subscribers(families: &mut Families<'_>, sample: &Sample, series: &SubscriberSeries) -> Result<(), fmt::Error> {
    let (own, rest) = series.values(&sample.lanes, &sample.statuses.stalled);
    let named = own.iter().map(|(of, values)| (&*of.namespace, &*of.name, values));
    let all: Vec<_> = named.chain(rest.as_ref().map(|rest| ("", OVERFLOW, rest))).collect();
    let labels = |(namespace, subscriber, _): &(_, _, &SeriesValues)| -> Vec<(&'static str, &str)> {
        vec![("namespace", *namespace), ("subscriber", *subscriber)]
    };
    let with = |of, label, value| [labels(of), vec![(label, value)]].concat();
    let help = "Unfinished Notifications of the Subscriber.";
    families.gauges("subscriber_pending", help, None, all.iter().map(|of| (labels(of), of.2.pending)))?;
    let help =
        "When the oldest unfinished Notification of a Subscriber that is not suspended was created, or last replayed.";
    let oldest = all.iter().filter_map(|of| Some((labels(of), timestamp(of.2.oldest?))));
    families.gauges("subscriber_oldest_pending_timestamp", help, Some(&Unit::Seconds), oldest)?;
    let help = "Delivery attempts of the Subscriber that ended, by what they mean for their event.";
    let attempts = all.iter().flat_map(|of| {
        let counts = AttemptOutcome::ALL.iter().zip(of.2.attempts);
        counts.map(move |(outcome, count)| (with(of, "outcome", outcome.as_str()), count))
    });
    families.counters("subscriber_attempts", help, attempts)?;
    let help = "1 while the Subscriber's circuit is in this state. A closed circuit has no series.";
    let circuits = all.iter().flat_map(|of| {
        let counts = Circuit::ALL.iter().zip(of.2.circuits).filter(|(_, count)| *count > 0);
        counts.map(move |(state, count)| (with(of, "state", state.as_str()), count))
    });
    families.gauges("subscriber_circuit", help, None, circuits)?;
    let help = "1 while the Subscriber needs the intervention of a user: its condition Stalled is True.";
    let stalled = all.iter().flat_map(|of| {
        let reasons = of.2.stalled.iter();
        reasons.map(move |(reason, count)| (with(of, "reason", *reason), *count))
    });
    families.gauges("subscriber_stalled", help, None, stalled)?;
    let help = "When the Subscriber's client certificate expires, by the endpoint that it is for.";
    let certificates = all.iter().flat_map(|of| {
        let ExpiryTimes { webhook_certificate, token_service_certificate, .. } = of.2.expiries;
        let both = [("webhook", webhook_certificate), ("token_service", token_service_certificate)];
        both.into_iter().filter_map(move |(use_, at)| Some((with(of, "use", use_), timestamp(at?))))
    });
    families.gauges("subscriber_certificate_expiry_timestamp", help, Some(&Unit::Seconds), certificates)?;
    let help = "When the Subscriber's credentials expire, by the annotation tidings.dev/expires of their Secret.";
    let credentials = all.iter().filter_map(|of| Some((labels(of), timestamp(of.2.expiries.credentials?))));
    families.gauges("subscriber_credentials_expiry_timestamp", help, Some(&Unit::Seconds), credentials)
}

/// Returns a time in seconds since 1970.
fn timestamp(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Encodes families of series.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    /// A gauge without labels, if it has a value.
    fn gauge<V>(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: Option<V>) -> Result<(), fmt::Error>
    where
        ConstGauge<V>: EncodeMetric,
    {
        let family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| ConstGauge::new(value).encode(family))
    }

    fn gauges<'a, V>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = Series<'a, V>>,
    ) -> Result<(), fmt::Error>
    where
        ConstGauge<V>: EncodeMetric,
    {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        series.into_iter().try_for_each(|(labels, value)| encode(&mut family, &labels, &ConstGauge::new(value)))
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = Series<'a, u64>>,
    ) -> Result<(), fmt::Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        series.into_iter().try_for_each(|(labels, value)| encode(&mut family, &labels, &ConstCounter::new(value)))
    }
}

fn encode(
    family: &mut MetricEncoder<'_>,
    labels: &Vec<(&'static str, &str)>,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(family.encode_family(labels)?)
}
