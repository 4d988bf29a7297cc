//! Expiry over a restart: what has expired is not sent, and what has not is not said to have.

use std::time::Duration;

use http::Request;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tidings_api::{Notification, Phase};
use tokio::time::sleep;

use super::metrics::{finished, metric, until};
use crate::{
    amounts::Scale,
    memory::ready,
    objects::{self, CREATORS},
    report::Report,
    say::say,
    stage::Stage,
};

/// Notifications of a Subscriber whose expiry is a week.
const OLD: usize = 40;
/// Their age.
const AGE: SignedDuration = SignedDuration::from_hours(48);
/// All are finished within this.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of data in an event.
const BYTES: usize = 64;

/// Both rows.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    expired(stage, scale.expired, report).await;
    week(stage, scale, report).await;
}

/// Notifications that expire while no operator runs.
async fn expired(stage: &Stage, count: usize, report: &mut Report) {
    let tenant = stage.tenant("expired").await;
    ready(&tenant, &[]).await.terminate().await.unwrap();
    let manifest = |number| {
        let mut manifest = objects::manifest_of(number, BYTES);
        manifest["spec"]["expireAfterSeconds"] = 1.into();
        manifest
    };
    objects::create(&stage.creator, "expired", (0..count).map(manifest).collect(), CREATORS).await;
    sleep(Duration::from_secs(3)).await;
    let operator = tenant.operator(&[]).await;
    let all = until(LIMIT, async || finished(&operator).await >= count).await;
    let (ended, sent) = (finished(&operator).await, stage.receiver.arrivals("expired").len());
    say(format!("{ended} of {count} expired ones finished, within {} s", all.unwrap_or(LIMIT).as_secs() + 1));
    let what = "expired while no operator ran, and sent after the start";
    // Of Notifications that still wait, nothing is known.
    match all {
        Some(_) => report.none_of(what, sent, count),
        None => report.missed(what, &format!("{sent} of {count}, and {ended} finished"), "0"),
    }
    operator.terminate().await.unwrap();
}

/// Notifications two days old, tried once, of a Subscriber that keeps them for a week and whose token service hangs.
async fn week(stage: &Stage, scale: &Scale, report: &mut Report) {
    let tenant = stage.tenant("week").await;
    let mut subscriber = stage.manifest("week", &stage.receiver.webhook("week"));
    subscriber["spec"]["tokenService"]["url"] = stage.receiver.hanging_token_url().into();
    subscriber["spec"]["delivery"]["expireAfterSeconds"] = 604_800.into();
    stage.subscribers("week", vec![subscriber]).await;
    let manifests = (0..OLD).map(|number| objects::manifest_for("week", number, BYTES)).collect();
    objects::create(&stage.creator, "week", manifests, CREATORS).await;
    let replayed = (Timestamp::now() - AGE).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {"phase": "Pending", "reason": "Retrying", "attempts": 1, "replayTime": replayed}});
    for number in 0..OLD {
        patch(stage, number, &status).await;
    }
    let operator = ready(&tenant, &[]).await;
    sleep(scale.rest).await;
    let api = Api::<Notification>::namespaced(stage.creator.clone(), "week");
    let list = api.list(&ListParams::default()).await.unwrap();
    let failed = |one: &&Notification| one.status.as_ref().is_some_and(|status| status.phase == Phase::Failed);
    let failed = list.items.iter().filter(failed).count();
    let what = "two days old, to expire after a week, and Failed after a start";
    match metric(&operator, "tidings_notifications_unfinished").await as usize + failed {
        known if known >= OLD => report.none_of(what, failed, OLD),
        known => report.missed(what, &format!("{failed} of {OLD}, and {known} listed"), "0"),
    }
    operator.terminate().await.unwrap();
}

async fn patch(stage: &Stage, number: usize, status: &Value) {
    let path = format!("{}/n-{number}/status", objects::path("week"));
    let patch = Request::patch(path).header("content-type", "application/merge-patch+json");
    objects::send(&stage.creator, patch.body(status.to_string().into_bytes()).unwrap()).await;
}
