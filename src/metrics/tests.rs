use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use tidings_api::{ConditionStatus, SubscriberReason};
use tidings_queue::{Circuit, Gate};

use super::*;

fn key(name: &str) -> SubscriberKey {
    SubscriberKey { namespace: "a".into(), name: name.into() }
}

fn lane(name: &str, pending: usize) -> LaneReading {
    LaneReading {
        of: key(name),
        is_known: true,
        pending,
        in_flight: 0,
        oldest: None,
        gate: None,
        circuit: None,
        is_paused: false,
    }
}

/// Answers each scrape with these lanes.
fn answer(metrics: &Metrics, lanes: Vec<LaneReading>) {
    let mut wanted = metrics.lanes_wanted();
    tokio::spawn(async move {
        while let Some(answer) = wanted.recv().await {
            answer.send(lanes.clone()).unwrap();
        }
    });
}

/// The samples of a metric, without its name.
fn samples<'t>(text: &'t str, metric: &str) -> Vec<&'t str> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(metric));
    samples.filter(|rest| rest.starts_with(['{', ' '])).collect()
}

#[tokio::test]
async fn waiting_circuits_pauses_and_the_oldest_are_read_from_the_lanes() {
    let metrics = Metrics::new(Some(10));
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    answer(
        &metrics,
        vec![
            LaneReading { gate: Some(Gate::Suspended), in_flight: 1, oldest: at(20), ..lane("suspended", 4) },
            LaneReading { gate: Some(Gate::Suspended), is_paused: true, oldest: at(10), ..lane("both", 2) },
            LaneReading { is_known: false, gate: Some(Gate::SubscriberNotFound), ..lane("missing", 7) },
            LaneReading { gate: Some(Gate::CircuitOpen), circuit: Some(Circuit::HalfOpen), ..lane("ill", 1) },
            LaneReading { oldest: at(30), ..lane("well", 100) },
        ],
    );
    let text = metrics.scrape(Exposition::Text).await;
    let waiting = samples(&text, "tidings_notifications_waiting");
    assert_eq!(waiting.len(), Gate::ALL.len());
    for expected in ["{gate=\"Suspended\"} 5", "{gate=\"SubscriberNotFound\"} 7", "{gate=\"CircuitOpen\"} 1"] {
        assert!(waiting.contains(&expected), "{expected}: {waiting:?}");
    }
    assert_eq!(waiting.iter().filter(|sample| sample.ends_with(" 0")).count(), Gate::ALL.len() - 3);
    assert_eq!(samples(&text, "tidings_oldest_unfinished_timestamp_seconds"), [" 30"], "not suspended");
    let circuits = ["{state=\"open\"} 0", "{state=\"half_open\"} 1", "{state=\"rejects_all\"} 0"];
    assert_eq!(samples(&text, "tidings_circuits"), circuits);
    assert_eq!(samples(&text, "tidings_subscribers_paused"), [" 1"]);
}

#[tokio::test]
async fn subscribers_are_counted_by_their_status_with_reasons_of_a_closed_set() {
    let metrics = Metrics::new(Some(2));
    metrics.count_statuses_with(|| {
        let mut tally = StatusTally::default();
        let ready = |reason| Some((ConditionStatus::True, reason));
        tally.add(&key("new"), None, None);
        tally.add(&key("a"), ready(SubscriberReason::Operational.as_str()), None);
        tally.add(&key("b"), ready(SubscriberReason::Operational.as_str()), None);
        tally.add(&key("c"), ready("of a later version"), None);
        for name in ["d", "e", "f"] {
            tally.add(&key(name), Some((ConditionStatus::False, "TokenRejected")), Some("TokenRejected"));
        }
        tally
    });
    ["e", "a", "d", "f"].iter().for_each(|name| metrics.add_subscriber(&key(name)));
    let text = metrics.scrape(Exposition::Text).await;
    let expected: BTreeSet<_> = [
        "{ready=\"unknown\",reason=\"Progressing\"} 1",
        "{ready=\"true\",reason=\"Operational\"} 2",
        "{ready=\"true\",reason=\"Other\"} 1",
        "{ready=\"false\",reason=\"TokenRejected\"} 3",
    ]
    .into();
    assert_eq!(samples(&text, "tidings_subscribers").into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(samples(&text, "tidings_subscribers_stalled"), [" 3"]);
    let stalled = [
        "{namespace=\"a\",subscriber=\"e\",reason=\"TokenRejected\"} 1",
        "{namespace=\"\",subscriber=\"overflow\",reason=\"TokenRejected\"} 2",
    ];
    assert_eq!(samples(&text, "tidings_subscriber_stalled"), stalled);
}

#[tokio::test]
async fn series_of_subscribers_are_capped_stable_and_vanish_with_the_subscriber() {
    let metrics = Metrics::new(Some(2));
    let names: Vec<_> = (0..100).map(|n| format!("s{n:02}")).collect();
    names.iter().for_each(|name| metrics.add_subscriber(&key(name)));
    let at = Some(UNIX_EPOCH + Duration::from_secs(50));
    let of = |name: &String| LaneReading { oldest: at, circuit: Some(Circuit::Open), ..lane(name, 3) };
    answer(&metrics, names.iter().map(of).collect());
    for name in &names {
        metrics.attempt(&key(name), AttemptReason::ServerError, AttemptOutcome::Retried, Duration::ZERO);
        let webhook_certificate = at;
        metrics.subscriber_expires(&key(name), ExpiryTimes { webhook_certificate, ..ExpiryTimes::default() });
    }
    let text = metrics.scrape(Exposition::Text).await;
    let pending = samples(&text, "tidings_subscriber_pending");
    let expected = [
        "{namespace=\"a\",subscriber=\"s00\"} 3",
        "{namespace=\"a\",subscriber=\"s01\"} 3",
        "{namespace=\"\",subscriber=\"overflow\"} 294",
    ];
    assert_eq!(pending, expected);
    let attempts = samples(&text, "tidings_subscriber_attempts_total");
    assert_eq!(attempts.len(), 3 * AttemptOutcome::ALL.len());
    assert!(attempts.contains(&"{namespace=\"\",subscriber=\"overflow\",outcome=\"retried\"} 98"), "{attempts:?}");
    let overflow = |metric: &str| samples(&text, metric).into_iter().filter(|of| of.contains("overflow")).collect();
    let shown: [Vec<_>; 3] = [
        overflow("tidings_subscriber_circuit"),
        overflow("tidings_subscriber_oldest_pending_timestamp_seconds"),
        overflow("tidings_subscriber_certificate_expiry_timestamp_seconds"),
    ];
    let [circuit, oldest, certificate] = shown;
    assert_eq!(circuit, ["{namespace=\"\",subscriber=\"overflow\",state=\"open\"} 98"]);
    assert_eq!(oldest, ["{namespace=\"\",subscriber=\"overflow\"} 50"]);
    assert_eq!(certificate, ["{namespace=\"\",subscriber=\"overflow\",use=\"webhook\"} 50"]);
    metrics.remove_subscriber(&key("s00"));
    let text = metrics.encode(Exposition::Text);
    assert!(!text.contains("s00") && text.contains("s01") && text.contains("s02") && !text.contains("s03"));
    let names: BTreeSet<_> =
        text.lines().filter_map(|line| line.split_once("subscriber=\"")?.1.split_once('"')).map(|of| of.0).collect();
    assert_eq!(names, ["overflow", "s01", "s02"].into());
}

#[tokio::test]
async fn without_metrics_of_subscribers_no_metric_has_the_name_of_one() {
    let metrics = Metrics::new(None);
    metrics.add_subscriber(&key("secret-shop"));
    answer(&metrics, vec![lane("secret-shop", 3)]);
    metrics.attempt(&key("secret-shop"), AttemptReason::Timeout, AttemptOutcome::Retried, Duration::ZERO);
    let text = metrics.scrape(Exposition::Text).await;
    assert!(!text.contains("tidings_subscriber_") && !text.contains("secret-shop"));
    assert!(text.contains("tidings_attempts_total{reason=\"Timeout\"} 1"));
}

#[tokio::test]
async fn a_scrape_shows_what_was_read_last_while_the_engine_does_not_answer() {
    let metrics = Metrics::new(Some(1));
    answer(&metrics, vec![LaneReading { gate: Some(Gate::Paused), ..lane("a", 4) }]);
    let paused = "tidings_notifications_waiting{gate=\"Paused\"} 4";
    assert!(metrics.scrape(Exposition::Text).await.contains(paused));
    // The engine takes no request.
    let _wanted = metrics.lanes_wanted();
    metrics.0.sample.lock().unwrap().taken = None;
    assert!(metrics.scrape(Exposition::Text).await.contains(paused));
}

#[test]
fn each_kind_of_write_has_each_of_its_results_from_the_start() {
    let text = Metrics::default().encode(Exposition::Text);
    let writes = samples(&text, "tidings_api_writes_total");
    for kind in WrittenKind::ALL {
        for result in kind.results() {
            let sample = format!("{{kind=\"{}\",result=\"{}\"}} 0", kind.as_str(), result.as_str());
            assert!(writes.contains(&sample.as_str()), "{sample}");
        }
    }
    let all: usize = WrittenKind::ALL.iter().map(|kind| kind.results().len()).sum();
    assert_eq!(writes.len(), all);
}

#[test]
fn the_start_of_the_process_is_a_time_before_now() {
    let text = Metrics::default().encode(Exposition::Text);
    let [started] = samples(&text, "process_start_time_seconds")[..] else { panic!("{text}") };
    let started: f64 = started.trim().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(started > 1_600_000_000.0 && started <= now + 1.0, "{started} {now}");
    for metric in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
    {
        assert!(samples(&text, metric)[0].trim().parse::<f64>().unwrap() >= 0.0, "{metric}");
    }
}
