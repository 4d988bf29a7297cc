//! Scale: what number, size, age and neighbours do to the operator.

mod connections;
mod expiry;
mod hanging;
mod large;
mod namespaces;
mod pending;
mod retention;
mod subscribers;

use std::time::{Duration, Instant};

use testkit::Operator;
use tokio::time::sleep;

use crate::{Scale, report::Report, stage::Stage};

/// Every row of this part.
pub async fn measure(scale: &Scale, idle: f64, report: &mut Report) {
    let stage = &Stage::start().await;
    large::measure(stage, scale, report).await;
    expiry::measure(stage, scale, report).await;
    hanging::measure(stage, scale, report).await;
    connections::measure(stage, scale, report).await;
    namespaces::measure(stage, scale, report).await;
    retention::measure(scale, report).await;
    subscribers::measure(scale, idle, report).await;
    pending::measure(scale, idle, report).await;
}

/// Waits until `holds` says true, for at most `limit`; returns how long it took, and None after the limit.
async fn until(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    while !holds().await {
        if begun.elapsed() > limit {
            return None;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Some(begun.elapsed())
}

/// The sum of the samples of a metric of the operator, whatever their labels.
async fn metric(operator: &Operator, name: &str) -> f64 {
    let metrics = operator.metrics().await.unwrap_or_default();
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| rest.starts_with('{').then(|| rest.rsplit(' ').next())?)?;
        value.parse::<f64>().ok()
    });
    samples.sum()
}

/// How many Notifications the operator has finished since its start.
async fn finished(operator: &Operator) -> usize {
    metric(operator, "tidings_notifications_finished_total").await as usize
}
