//! Many pending Notifications behind a suspended Subscriber: what each takes in memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::metrics::{metric, until};
use crate::{
    amounts::Scale,
    memory::{BATCH, memory_of, printed_memory},
    objects::{self, CREATORS},
    report::Report,
    say::say,
    stage::Stage,
};

/// Bytes of data in an event.
const BYTES: usize = 64;
/// The longest listing.
const LIMIT: Duration = Duration::from_secs(600);

/// Creates them while no operator runs, then starts one.
pub async fn measure(scale: &Scale, idle: f64, report: &mut Report) {
    let (stage, count) = (&Stage::start().await, scale.pending);
    let tenant = stage.tenant("pending").await;
    let mut subscriber = stage.manifest("suspended", &stage.receiver.webhook("pending"));
    subscriber["spec"]["suspend"] = true.into();
    stage.subscribers("pending", vec![subscriber]).await;
    create(stage, count).await;
    let begun = Instant::now();
    let operator = tenant.operator(&[]).await;
    let listed = async || metric(&operator, "tidings_notifications_unfinished").await as usize >= count;
    let listed = until(LIMIT, listed).await.map(|_| format!("{:.1} s", begun.elapsed().as_secs_f64()));
    let what = format!("{count} pending behind a suspension");
    let listed = listed.unwrap_or_else(|| format!("not within {} s", LIMIT.as_secs()));
    report.row(&format!("start with {what}: all listed"), listed, "");
    sleep(scale.rest).await;
    let rss = printed_memory(&operator, &what);
    report.row(&format!("memory, {what}"), memory_of(&operator), "");
    let each = (rss - idle) * 1024.0 * 1024.0 / count as f64;
    let what = format!("— more than idle, for each, kept events of {BYTES} bytes of data among it");
    report.row(&what, format!("{each:.0} bytes"), "");
    operator.terminate().await.unwrap();
}

async fn create(stage: &Stage, count: usize) {
    for batch in (0..count).step_by(BATCH) {
        let end = count.min(batch + BATCH);
        let manifests = (batch..end).map(manifest).collect();
        let (rate, _) = objects::create_at(&stage.creator, &objects::path("pending"), manifests, CREATORS).await;
        say(format!("{end} of {count} created, at {rate:.0}/s"));
    }
}

fn manifest(number: usize) -> Value {
    let mut manifest = objects::manifest_for("suspended", number, BYTES);
    manifest["metadata"] = json!({"generateName": "n-"});
    manifest
}
