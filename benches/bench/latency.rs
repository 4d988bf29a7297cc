//! From the request that creates a Notification to its POST, beside what a bare watcher sees of the same objects.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::Client;
use testkit::Operator;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    amounts::Scale,
    bare, objects,
    receiver::now,
    report::{Report, percentile},
    say::say,
    stage::{Stage, client},
};

/// Creates a second.
const RATE: u32 = 20;
/// Large events beside them: bytes of data, and how many a second.
const LARGE_BYTES: usize = 256 << 10;
const LARGE_RATE: u32 = 10;
/// The first ones open connections and are not counted.
const WARM_UP: usize = 40;

/// Times from create, in milliseconds.
pub struct Latency {
    /// To the POST's arrival.
    pub post: Vec<f64>,
    /// To the event of a bare watcher.
    pub event: Vec<f64>,
}

impl Latency {
    pub fn say(&self) {
        let Self { post, event } = self;
        let p =
            |samples: &[f64]| format!("p50 {:.2} ms, p99 {:.2} ms", percentile(samples, 50), percentile(samples, 99));
        say(format!("create to POST: {}; create to a bare watcher's event: {}", p(post), p(event)));
    }

    /// Prints this percentile of both latencies, and returns them: to the event, to the POST.
    fn print(&self, percent: usize, when: &str, report: &mut Report) -> [f64; 2] {
        [("a bare watcher's event", &self.event), ("POST", &self.post)].map(|(way, samples)| {
            let time = percentile(samples, percent);
            report.row(&format!("create to {way}, p{percent}{when}"), format!("{time:.2} ms"), "");
            time
        })
    }
}

/// Measures an operator with nothing else to do.
pub async fn measure(scale: &Scale, report: &mut Report) {
    let stage = Stage::start().await;
    let tenant = stage.tenants("latency", &["large"]).await;
    let operator = tenant.operator(&[]).await;
    operator.ready(Duration::from_secs(30)).await.unwrap();
    say(format!("latency: {} at {RATE}/s", scale.samples));
    let end = scale.samples + WARM_UP;
    let latency = sample(&stage, &tenant.namespace, &operator, 0..end).await;
    latency.say();
    for p in [50, 99] {
        let [event, post] = latency.print(p, "", report);
        report.at_most(&format!("create to POST ÷ create to event, p{p}"), post / event, 1.5, "");
    }
    let what = format!("beside {LARGE_RATE} events a second of {} KiB in another namespace", LARGE_BYTES >> 10);
    say(format!("latency {what}"));
    // Through a connection of its own.
    let large = tokio::spawn(create_large(client(stage.plane().admin_kubeconfig()).await));
    let latency = sample(&stage, &tenant.namespace, &operator, end..end + scale.neighbors).await;
    large.abort();
    latency.say();
    assert!(stage.receiver.arrivals("large").len() > scale.neighbors / 4, "the large events are delivered");
    latency.print(99, &format!(", {what}"), report);
    operator.terminate().await.unwrap();
}

/// Creates large events, for as long as it runs.
async fn create_large(client: Client) {
    let (path, mut ticks) = (objects::path("large"), interval(Duration::from_secs(1) / LARGE_RATE));
    for number in 0.. {
        ticks.tick().await;
        objects::create_one(&client, &path, objects::manifest_of(number, LARGE_BYTES).to_string().into_bytes()).await;
    }
}

/// Creates those of these numbers in a namespace at [`RATE`] and waits for their POSTs.
pub async fn sample(stage: &Stage, namespace: &str, operator: &Operator, numbers: Range<usize>) -> Latency {
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let noted = seen.clone();
    let watcher = tokio::spawn(bare::watch(stage.watcher.clone(), namespace.to_owned(), move |name, at| {
        noted.lock().unwrap().entry(name).or_insert(at);
    }));
    sleep(Duration::from_millis(500)).await;
    let path = objects::path(namespace);
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut creating = JoinSet::new();
    for number in numbers.clone() {
        ticks.tick().await;
        let body = objects::manifest(number).to_string().into_bytes();
        let (client, path) = (stage.creator.clone(), path.clone());
        creating.spawn(async move {
            let at = now();
            objects::create_one(&client, &path, body).await;
            (format!("n-{number}"), at)
        });
    }
    let mut created = creating.join_all().await;
    created.sort_by_key(|(_, at)| *at);
    let mut arrived = HashMap::new();
    while created.iter().any(|(name, _)| !arrived.contains_key(name)) {
        assert!(operator.process().exit_code().is_none(), "the operator ended");
        sleep(Duration::from_millis(200)).await;
        let arrivals = stage.receiver.arrivals(namespace).into_iter();
        arrived = arrivals.map(|arrival| (arrival.id, arrival.at)).collect();
    }
    watcher.abort();
    let seen = seen.lock().unwrap();
    let since =
        |at: &Duration, created: &Duration| at.checked_sub(*created).expect("the clock was set").as_secs_f64() * 1e3;
    let counted = || created.iter().skip(WARM_UP);
    Latency {
        post: counted().map(|(name, at)| since(&arrived[name], at)).collect(),
        event: counted().map(|(name, at)| since(&seen[name], at)).collect(),
    }
}
