//! Waiting for something, and reading it from the operator's metrics.

use std::time::{Duration, Instant};

use testkit::Operator;
use tokio::time::sleep;

/// Waits until `holds` says true, for at most `limit`; returns how long it took, and None after the limit.
pub async fn until(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Option<Duration> {
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
pub async fn metric(operator: &Operator, name: &str) -> f64 {
    let metrics = operator.metrics().await.unwrap_or_default();
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| rest.starts_with('{').then(|| rest.rsplit(' ').next())?)?;
        value.parse::<f64>().ok()
    });
    samples.sum()
}

/// How many Notifications the operator has finished since its start.
pub async fn finished(operator: &Operator) -> usize {
    metric(operator, "tidings_notifications_finished_total").await as usize
}
