//! Twelve namespaces, four of which have all their slots taken by slow webhooks: what a healthy one notices of them.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::metrics::{metric, until};
use crate::{
    amounts::Scale,
    memory::ready,
    objects::{self, CREATORS, SUBSCRIBERS},
    report::{Report, median},
    say::say,
    stage::Stage,
};

/// The first one leads the operator; the healthy one is the last.
const NAMESPACES: [&str; 12] = ["s1", "s2", "s3", "s4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "healthy"];
/// How many of the namespaces, from the first on, are slow.
const SLOW: usize = 4;
/// Notifications for each slow namespace: more than it may have in flight, for as long as it is measured.
const BACKLOG: usize = 600;
/// Deliveries of the healthy one in each run.
const RUN: usize = 200;
const RUNS: usize = 3;
/// The longest run.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of data in an event.
const BYTES: usize = 64;

/// Alone, then beside the slow ones.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    let tenant = stage.tenants(NAMESPACES[0], &NAMESPACES[1..]).await;
    for namespace in &NAMESPACES[..SLOW] {
        let slow = (0..SUBSCRIBERS).map(|number| slow(stage, number)).collect();
        stage.subscribers(namespace, slow).await;
    }
    let operator = ready(&tenant, &[]).await;
    sleep(scale.rest).await;
    let alone = runs(stage, 0).await;
    for namespace in &NAMESPACES[..SLOW] {
        let manifest = |number| objects::manifest_for(&format!("slow-{}", number % SUBSCRIBERS), number, BYTES);
        objects::create(&stage.creator, namespace, (0..BACKLOG).map(manifest).collect(), CREATORS).await;
    }
    let held = metric(&operator, "tidings_attempts_in_flight").await;
    say(format!("the slow namespaces have {held} in flight"));
    let beside = runs(stage, RUNS).await;
    operator.kill().await.unwrap();
    let what = format!("{RUN} deliveries of a healthy one of 12 namespaces");
    report.row(&format!("{what}, alone"), seconds(alone), "");
    let when = format!("beside {SLOW} with slow webhooks");
    report.row(&format!("{what}, {when}"), seconds(beside), "");
    report.row("— in flight for the slow ones", format!("{held}"), "");
    report.row("— beside ÷ alone", format!("{:.2}", beside / alone), "");
}

/// A run ends at its limit, whatever has arrived by then.
fn seconds(time: f64) -> String {
    if time < LIMIT.as_secs_f64() { format!("{time:.2} s") } else { format!("not within {} s", LIMIT.as_secs()) }
}

/// A Subscriber with a slow webhook that has as many in flight as it may.
fn slow(stage: &Stage, number: usize) -> Value {
    let mut manifest = stage.manifest(&format!("slow-{number}"), &stage.receiver.slow_webhook());
    manifest["spec"]["webhook"]["timeoutSeconds"] = 60.into();
    manifest["spec"]["delivery"]["maxInFlight"] = 128.into();
    manifest
}

/// The median of the runs, in seconds, from the first create to the last arrival; `first` runs were before.
async fn runs(stage: &Stage, first: usize) -> f64 {
    let mut times = Vec::new();
    for run in first..first + RUNS {
        let manifests = (run * RUN..(run + 1) * RUN).map(|number| objects::manifest_of(number, BYTES)).collect();
        let begun = Instant::now();
        objects::create(&stage.creator, "healthy", manifests, CREATORS).await;
        until(LIMIT, async || stage.receiver.arrivals("healthy").len() >= (run + 1) * RUN).await;
        times.push(begun.elapsed().as_secs_f64());
    }
    say(format!("{RUN} deliveries of the healthy namespace: {times:.2?} s"));
    median(times)
}
