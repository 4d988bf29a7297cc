//! Notifications that finish and are deleted at once: whether deleting keeps pace.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use serde_json::Value;
use testkit::Operator;
use tokio::time::{interval, sleep};

use super::metrics::{finished, metric, until};
use crate::{
    amounts::Scale,
    memory::ready,
    objects::{self, CREATORS},
    report::Report,
    say::say,
    stage::Stage,
};

/// Notifications created a second.
const RATE: u32 = 400;
/// Bytes of data in an event.
const BYTES: usize = 64;
/// The number of stored objects may grow by this many per second, a twentieth of the rate. More is not noise.
const GROWTH: f64 = 20.0;
/// All that is left is deleted within this.
const LIMIT: Duration = Duration::from_secs(120);

/// What was there at one moment.
struct Seen {
    at: Duration,
    /// Notifications in the API server, finished or not.
    stored: usize,
    /// Notifications that the operator has not finished.
    unfinished: usize,
}

/// Creates at a fixed rate and looks at what is stored meanwhile.
pub async fn measure(scale: &Scale, report: &mut Report) {
    let stage = &Stage::start().await;
    let tenant = stage.tenant("retention").await;
    let operator = ready(&tenant, &[]).await;
    say(format!("retention: {RATE}/s with a TTL of 0 for {} s", scale.retention.as_secs()));
    let begun = Instant::now();
    let creating = create(stage, scale.retention);
    let seen = watch(stage, &operator, scale.retention);
    let ((), seen) = tokio::join!(creating, seen);
    let rate = finished(&operator).await as f64 / begun.elapsed().as_secs_f64();
    let what = format!("TTL 0, {RATE} created a second for {} s", scale.retention.as_secs());
    report.row(&format!("{what}: finished a second"), format!("{rate:.0}/s"), "");
    let most = seen.iter().max_by_key(|seen| seen.stored).unwrap();
    let most = format!("{}, {} of them unfinished", most.stored, most.unfinished);
    report.row(&format!("{what}: stored at once, the most"), most, "");
    report.at_most(&format!("{what}: growth of what is stored"), growth(&seen), GROWTH, "/s");
    let gone = until(LIMIT, async || stored(stage).await == 0).await;
    let gone = gone.map_or_else(|| "not all".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    report.row(&format!("{what}: all deleted, after the last create"), gone, "");
    operator.terminate().await.unwrap();
}

async fn create(stage: &Stage, during: Duration) {
    let count = (RATE * u32::try_from(during.as_secs()).unwrap()) as usize;
    let ticks = stream::unfold(interval(Duration::from_secs(1) / RATE), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    });
    let path = objects::path("retention");
    let bodies = ticks.take(count).enumerate().map(|(number, ())| manifest(number).to_string().into_bytes());
    let created = bodies.map(|body| objects::create_one(&stage.creator, &path, body)).buffer_unordered(CREATORS);
    created.for_each(async |_: Bytes| ()).await;
}

fn manifest(number: usize) -> Value {
    let mut manifest = objects::manifest_of(number, BYTES);
    manifest["spec"]["ttlSecondsAfterFinished"] = 0.into();
    manifest
}

/// Looks once a second.
async fn watch(stage: &Stage, operator: &Operator, during: Duration) -> Vec<Seen> {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while begun.elapsed() < during {
        sleep(Duration::from_secs(1)).await;
        let stored = stored(stage).await;
        let unfinished = metric(operator, "tidings_notifications_unfinished").await as usize;
        seen.push(Seen { at: begun.elapsed(), stored, unfinished });
    }
    seen
}

/// How many Notifications the API server has.
async fn stored(stage: &Stage) -> usize {
    let path = format!("{}?limit=1", objects::path("retention"));
    let list = objects::send(&stage.creator, Request::get(path).body(Vec::new()).unwrap()).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let more = list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
    list["items"].as_array().map_or(0, Vec::len) + usize::try_from(more).unwrap()
}

/// By how many a second what is finished and stored grows, from the middle third of the time to the last.
fn growth(seen: &[Seen]) -> f64 {
    let third = (seen.len() / 3).max(1);
    let mean = |seen: &[Seen]| {
        let finished: usize = seen.iter().map(|seen| seen.stored.saturating_sub(seen.unfinished)).sum();
        let at: f64 = seen.iter().map(|seen| seen.at.as_secs_f64()).sum();
        (finished as f64 / seen.len() as f64, at / seen.len() as f64)
    };
    let (last, middle) = (mean(&seen[seen.len() - third..]), mean(&seen[seen.len() - 2 * third..seen.len() - third]));
    (last.0 - middle.0) / (last.1 - middle.1)
}
