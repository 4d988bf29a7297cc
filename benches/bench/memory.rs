//! Memory: idle, with a backlog for a dead endpoint, with finished Notifications; and the neighbor of that backlog.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::Operator;
use tokio::time::sleep;

use crate::{
    amounts::Scale,
    latency,
    objects::{self, CREATORS, SUBSCRIBERS},
    receiver::now,
    report::{Report, median, percentile, spread},
    say::say,
    stage::{Stage, Tenant},
    throughput::{drained, grown, until_delivered},
    usage,
};

/// The budget for untried events that wait: half of what `--event-memory` sets by default, in MiB.
const EVENT_MEMORY: f64 = 64.0;
/// Runs of the neighbor, alone and beside the backlog.
const NEIGHBOUR_RUNS: usize = 11;
/// All finished Notifications are listed within this.
const PATIENCE: Duration = Duration::from_secs(300);
/// What one batch of creates holds.
pub const BATCH: usize = 5_000;

/// Resident memory of an operator with nothing to do, in MiB.
pub async fn idle(scale: &Scale, report: &mut Report) -> f64 {
    let stage = Stage::start().await;
    let tenant = stage.tenant("idle").await;
    let operator = ready(&tenant, &[]).await;
    say("memory: idle");
    sleep(scale.rest).await;
    let rss = printed_memory(&operator, "idle");
    report.row("memory, idle", memory_of(&operator), "");
    report.at_most("— at rest", rss, 20.0, " MiB");
    operator.terminate().await.unwrap();
    rss
}

/// All that needs a large backlog.
pub async fn measure(scale: &Scale, idle: f64, report: &mut Report) {
    let stage = &Stage::start().await;
    let count = scale.backlog;
    let tenant = stage.tenants("backlog", &["neighbor"]).await;
    send_to(stage, &stage.receiver.dead_webhook()).await;
    let operator = ready(&tenant, &[]).await;
    say("latency of the neighbor, alone");
    let alone = neighbor(stage, &operator, scale, 0).await;
    create(stage, count).await;
    sleep(scale.rest).await;
    let what = format!("{count} pending for a dead endpoint");
    let rss = printed_memory(&operator, &what);
    report.row(&format!("memory, {what}"), memory_of(&operator), "");
    let events = f64::min(EVENT_MEMORY, (count * objects::EVENT_BYTES) as f64 / f64::from(1 << 20));
    report.at_most("— more than idle, the budget for events apart", rss - idle - events, 60.0, " MiB");
    say("latency of the neighbor, beside the backlog");
    let beside = neighbor(stage, &operator, scale, NEIGHBOUR_RUNS).await;
    operator.terminate().await.unwrap();
    for (way, figures) in
        [("a bare watcher's event", [&alone.event, &beside.event]), ("POST", [&alone.post, &beside.post])]
    {
        for (figures, when) in figures.into_iter().zip(["alone".to_owned(), format!("beside {what}")]) {
            let spread = format!("{} ms", spread(figures.clone()));
            report.row(&format!("neighbor's create to {way}, p99, {when}"), spread, "");
        }
    }
    for (percentiles, way) in [(&alone, "alone"), (&beside, "beside")] {
        let pooled = percentile(&percentiles.all, 99);
        report.row(&format!("neighbor's create to POST, p99 of all runs as one, {way}"), format!("{pooled:.2} ms"), "");
    }
    let ratio = |alone: &[f64], beside: &[f64]| median(beside.to_vec()) / median(alone.to_vec());
    let of_event = format!("{:.2}", ratio(&alone.event, &beside.event));
    report.row("neighbor's create to a bare watcher's event, p99, beside ÷ alone", of_event, "");
    let of_post = ratio(&alone.post, &beside.post);
    report.at_most("neighbor's create to POST, p99, beside ÷ alone", of_post, 2.0, "");

    say("the endpoint lives: the backlog is drained");
    send_to(stage, &stage.receiver.webhook("finished")).await;
    let operator = tenant.operator(&[]).await;
    let drain = drained(stage, &operator, "finished", count).await;
    grown(count, &drain, report);
    printed_memory(&operator, "drained");
    operator.terminate().await.unwrap();
    finished(stage, scale, &tenant, idle, report).await;
}

/// The p99s of create to POST and to a bare watcher's event, in milliseconds, one for each run.
#[derive(Default)]
struct Neighbor {
    post: Vec<f64>,
    event: Vec<f64>,
    /// Create to POST in all runs.
    all: Vec<f64>,
}

/// [`NEIGHBOUR_RUNS`] runs, after `first` others: a second in which the whole machine stands still is more than a
/// hundredth of one run.
async fn neighbor(stage: &Stage, operator: &Operator, scale: &Scale, first: usize) -> Neighbor {
    let mut neighbor = Neighbor::default();
    for run in first..first + NEIGHBOUR_RUNS {
        let numbers = run * scale.neighbors..(run + 1) * scale.neighbors;
        let before = stage.collections().await;
        let latency = latency::sample(stage, "neighbor", operator, numbers).await;
        latency.say();
        let collections = stage.collections().await - before;
        say(format!("the API server collected its garbage {collections} times meanwhile"));
        neighbor.post.push(percentile(&latency.post, 99));
        neighbor.event.push(percentile(&latency.event, 99));
        neighbor.all.extend(latency.post);
    }
    neighbor
}

/// With all of the backlog finished.
async fn finished(stage: &Stage, scale: &Scale, tenant: &Tenant, idle: f64, report: &mut Report) {
    for (what, ttl, most) in [("without a TTL", "0", 2.0), ("with a TTL", "86400", 15.0)] {
        let operator = ready(tenant, &["--generated-ttl", ttl]).await;
        until_listed(&operator, scale.backlog + 2 * NEIGHBOUR_RUNS * scale.neighbors).await;
        sleep(scale.rest).await;
        let what = format!("{} finished {what}", scale.backlog);
        let rss = printed_memory(&operator, &what);
        report.row(&format!("memory, {what}"), memory_of(&operator), "");
        report.at_most("— more than idle", rss - idle, most, " MiB");
        operator.terminate().await.unwrap();
    }
    let pending = scale.backlog / 10;
    send_to(stage, &stage.receiver.webhook("start")).await;
    create(stage, pending).await;
    let begun = now();
    let operator = tenant.operator(&[]).await;
    let first = stage.receiver.first("start").await - begun;
    say(format!("the first POST came {:.2} s after the start", first.as_secs_f64()));
    let what = format!("start to first POST, {} finished and {pending} pending", scale.backlog);
    report.row(&what, format!("{:.2} s", first.as_secs_f64()), "");
    until_delivered(&operator, pending).await;
    operator.terminate().await.unwrap();
}

/// Where the Subscribers of the backlog send from now on.
async fn send_to(stage: &Stage, url: &str) {
    for number in 0..SUBSCRIBERS {
        stage.subscriber("backlog", &format!("shop-{number}"), url).await;
    }
}

/// Creates `count` Notifications with generateName.
async fn create(stage: &Stage, count: usize) {
    for batch in (0..count).step_by(BATCH) {
        let numbers = batch..count.min(batch + BATCH);
        let manifests = numbers.map(|number| {
            let mut manifest = objects::manifest(number);
            manifest["metadata"] = json!({"generateName": "n-"});
            manifest
        });
        let (rate, _) = objects::create(&stage.creator, "backlog", manifests.collect(), CREATORS).await;
        say(format!("{} of {count} created, at {rate:.0}/s", batch + BATCH.min(count - batch)));
    }
}

/// Waits until the operator knows of `count` finished Notifications.
async fn until_listed(operator: &Operator, count: usize) {
    let (name, end) = ("tidings_notifications_finished_stored ", Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < end, "it does not list them: {}", operator.logs());
        let metrics = operator.metrics().await.unwrap();
        let listed = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok());
        if listed.is_some_and(|listed| listed >= count) {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Resident memory of an operator, now and at its peak.
pub fn memory_of(operator: &Operator) -> String {
    let pid = operator.process().pid();
    format!("{:.1} MiB, peak {:.1} MiB", usage::rss(pid), usage::peak(pid))
}

/// A started operator, once it is ready.
pub async fn ready(tenant: &Tenant, flags: &[&str]) -> Operator {
    let operator = tenant.operator(flags).await;
    operator.ready(Duration::from_secs(120)).await.unwrap();
    operator
}

/// Prints the resident memory of an operator and returns it, in MiB.
pub fn printed_memory(operator: &Operator, what: &str) -> f64 {
    let pid = operator.process().pid();
    let rss = usage::rss(pid);
    say(format!("{what}: {rss:.1} MiB resident, {:.1} MiB at the peak", usage::peak(pid)));
    rss
}
