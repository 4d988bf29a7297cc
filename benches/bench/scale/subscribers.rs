//! Many Subscribers: memory, time to ready, and the processor time of an operator that has nothing to do.

use std::{
    collections::HashSet,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::Value;
use tidings_api::{ConditionStatus, ConditionType, Subscriber};
use tokio::time::{sleep, timeout};

use super::metrics::until;
use crate::{
    amounts::Scale,
    memory::{memory_of, printed_memory},
    objects::{self, CREATORS},
    report::Report,
    say::say,
    stage::{Stage, Tenant},
    usage,
};

/// The longest start.
const LIMIT: Duration = Duration::from_secs(600);
/// Subscribers that are sent an event after a start, spread over all.
const SAMPLE: usize = 200;
/// Bytes of data in an event.
const BYTES: usize = 64;

/// The first start, the rest after it, and one more start.
pub async fn measure(scale: &Scale, idle: f64, report: &mut Report) {
    let (stage, count) = (&Stage::start().await, scale.subscribers);
    let tenant = &stage.tenant("many").await;
    let manifests = (0..count).map(|number| with_own_token(stage, number)).collect();
    stage.subscribers("many", manifests).await;
    say(format!("{count} Subscribers created"));
    first_start(stage, tenant, scale, idle, report).await;
    next_start(stage, tenant, count, report).await;
}

/// The manifest of a Subscriber that has a token of its own.
fn with_own_token(stage: &Stage, number: usize) -> Value {
    let mut manifest = stage.manifest(&format!("many-{number}"), &stage.receiver.webhook("many"));
    manifest["spec"]["tokenService"]["audience"] = format!("many-{number}").into();
    manifest
}

async fn first_start(stage: &Stage, tenant: &Tenant, scale: &Scale, idle: f64, report: &mut Report) {
    let count = scale.subscribers;
    let watching = tokio::spawn(until_ready(stage.watcher.clone(), count));
    let (begun, api_cpu) = (Instant::now(), stage.control_plane_cpu().await);
    let operator = tenant.operator(&[]).await;
    let pid = operator.process().pid();
    operator.ready(LIMIT).await.unwrap();
    let to_ready = begun.elapsed();
    let all = timeout(LIMIT, watching).await.ok().map(|_| begun.elapsed());
    let (api_cpu, cpu) = (stage.control_plane_cpu().await - api_cpu, usage::cpu(pid));
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let what = format!("first start with {count} Subscribers");
    report.row(&format!("{what}: /readyz"), seconds(to_ready), "");
    let all = all.map_or_else(|| format!("not within {} s", LIMIT.as_secs()), seconds);
    report.row(&format!("{what}: all Ready, each with a token and a status of its own"), all, "");
    let share = format!("{}, {}", seconds(api_cpu), seconds(cpu));
    report.row(&format!("{what}: CPU until then of API server and etcd, of the operator"), share, "");
    sleep(scale.rest).await;
    let rss = printed_memory(&operator, &format!("{count} Subscribers"));
    report.row(&format!("memory, {count} Subscribers"), memory_of(&operator), "");
    let each = (rss - idle) * 1024.0 / count as f64;
    report.row("— more than idle, for each", format!("{each:.1} KiB"), "");
    let cpu = usage::cpu(pid);
    sleep(scale.rest).await;
    let share = (usage::cpu(pid) - cpu).as_secs_f64() / scale.rest.as_secs_f64() * 100.0;
    let what = format!("CPU of the operator at rest with {count} Subscribers");
    report.row(&what, format!("{share:.1} % of a core"), "");
    operator.terminate().await.unwrap();
}

/// Starts an operator for Subscribers that are Ready and measures when it delivers to all of a sample of them.
async fn next_start(stage: &Stage, tenant: &Tenant, count: usize, report: &mut Report) {
    let sample = SAMPLE.min(count);
    let name = |number: usize| format!("many-{}", number * count / sample);
    let manifests = (0..sample).map(|number| objects::manifest_for(&name(number), number, BYTES)).collect();
    objects::create(&stage.creator, "many", manifests, CREATORS).await;
    let begun = Instant::now();
    let operator = tenant.operator(&[]).await;
    let delivered = until(LIMIT, async || stage.receiver.arrivals("many").len() >= sample).await;
    let delivered = delivered.map_or_else(
        || format!("{} within {} s", stage.receiver.arrivals("many").len(), LIMIT.as_secs()),
        |_| format!("{:.1} s", begun.elapsed().as_secs_f64()),
    );
    report.row(&format!("next start with {count} Subscribers: {sample} of them sent an event"), delivered, "");
    operator.terminate().await.unwrap();
}

/// Waits until `count` Subscribers of the namespace are Ready.
async fn until_ready(client: Client, count: usize) {
    let mut events = pin!(watcher(Api::<Subscriber>::namespaced(client, "many"), watcher::Config::default()));
    let mut ready = HashSet::new();
    while ready.len() < count {
        let Some(event) = events.next().await else { return };
        if let Ok(Event::Apply(subscriber) | Event::InitApply(subscriber)) = event
            && is_ready(&subscriber)
        {
            ready.insert(subscriber.metadata.name);
        }
    }
}

/// Whether the Subscriber has the condition Ready.
pub fn is_ready(subscriber: &Subscriber) -> bool {
    let condition = subscriber.status.as_ref().and_then(|status| status.condition(ConditionType::Ready));
    condition.is_some_and(|condition| condition.status == ConditionStatus::True)
}
