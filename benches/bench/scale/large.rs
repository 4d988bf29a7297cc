//! Large events at webhooks that never answer: the peak of memory.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::Operator;
use tokio::time::sleep;

use super::metrics::metric;
use crate::{
    amounts::Scale,
    memory::{memory_of, printed_memory, ready},
    objects,
    report::Report,
    say::say,
    stage::{Stage, Tenant},
    usage,
};

/// Bytes of data in an event.
const BYTES: usize = 1 << 20;
/// How many concurrent requests create the objects.
const CREATORS: usize = 8;
/// The goal for the peak, in MiB: half of the chart's limit.
const PEAK: f64 = 256.0;
const NAMESPACES: [&str; 2] = ["large-one", "large-two"];

/// Creates them beside an operator, then starts another.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    let tenant = stage.tenants(NAMESPACES[0], &NAMESPACES[1..]).await;
    for namespace in NAMESPACES {
        stage.subscribers(namespace, vec![hanging(stage)]).await;
    }
    let operator = ready(&tenant, &[]).await;
    for namespace in NAMESPACES {
        let manifests = (0..scale.large).map(|number| objects::manifest_for("hanging", number, BYTES)).collect();
        let (rate, _) = objects::create_at(&stage.creator, &objects::path(namespace), manifests, CREATORS).await;
        say(format!("{} events of 1 MiB created, at {rate:.0}/s", scale.large));
    }
    let most = most_in_flight(&operator, scale.rest).await;
    let what = format!("2 × {} events of 1 MiB at webhooks that hang", scale.large);
    printed_memory(&operator, &what);
    report.row(&format!("memory, {what}"), memory_of(&operator), "");
    report.row("— in flight at once, the most", format!("{most} of {}", NAMESPACES.len() * scale.large), "");
    report.at_most("— peak", usage::peak(operator.process().pid()), PEAK, " MiB");
    operator.kill().await.unwrap();
    next_start(&tenant, scale, &what, report).await;
}

/// With all of them waiting when the operator starts.
async fn next_start(tenant: &Tenant, scale: &Scale, what: &str, report: &mut Report) {
    let operator = tenant.operator(&[]).await;
    // The Lease of the operator that was killed runs out first.
    operator.ready(Duration::from_secs(60)).await.unwrap();
    let most = most_in_flight(&operator, scale.rest + Duration::from_secs(20)).await;
    printed_memory(&operator, &format!("{what}, after another start"));
    let all = NAMESPACES.len() * scale.large;
    report.row("— in flight at once after another start, the most", format!("{most} of {all}"), "");
    report.at_most("— peak after another start", usage::peak(operator.process().pid()), PEAK, " MiB");
    operator.kill().await.unwrap();
}

/// Looks once a second for so long. A peak without attempts in flight would say nothing.
async fn most_in_flight(operator: &Operator, during: Duration) -> usize {
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < during {
        sleep(Duration::from_secs(1)).await;
        most = most.max(metric(operator, "tidings_attempts_in_flight").await as usize);
    }
    most
}

/// A Subscriber that has as many in flight as the API allows, and waits for an answer for as long.
fn hanging(stage: &Stage) -> Value {
    let mut manifest = stage.manifest("hanging", &stage.receiver.dead_webhook());
    manifest["spec"]["webhook"]["timeoutSeconds"] = 60.into();
    manifest["spec"]["delivery"]["maxInFlight"] = 128.into();
    manifest
}
