//! Scale: what number, size, age and neighbors do to the operator.

mod connections;
mod expiry;
mod hanging;
mod large;
mod metrics;
mod namespaces;
mod pending;
mod retention;
mod subscribers;

use crate::{amounts::Scale, report::Report, stage::Stage};

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
