//! A new healthy Subscriber beside many in another namespace whose token service hangs.

use std::time::Duration;

use kube::Api;
use serde_json::Value;
use tidings_api::Subscriber;
use tokio::time::sleep;

use super::{metrics::until, subscribers::is_ready};
use crate::{amounts::Scale, memory::ready, report::Report, say::say, stage::Stage};

/// The goal, in seconds.
const GOAL: f64 = 5.0;
/// Not measured beyond this.
const LIMIT: Duration = Duration::from_secs(180);

/// From the create to Ready.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    let tenant = stage.tenants("hanging", &["beside"]).await;
    let manifests = (0..scale.hanging).map(|number| manifest(stage, number)).collect();
    stage.subscribers("hanging", manifests).await;
    let operator = ready(&tenant, &[]).await;
    // Until as many wait for their token service as the operator lets wait.
    sleep(Duration::from_secs(3)).await;
    say(format!("a healthy Subscriber beside {} that hang", scale.hanging));
    stage.subscribers("beside", vec![stage.manifest("healthy", &stage.receiver.webhook("beside"))]).await;
    let api = Api::<Subscriber>::namespaced(stage.creator.clone(), "beside");
    let time = until(LIMIT, async || is_ready(&api.get("healthy").await.unwrap())).await;
    let what =
        format!("a new Subscriber Ready, beside {} of another namespace with a hanging token service", scale.hanging);
    report.within(&what, time, LIMIT, GOAL);
    operator.kill().await.unwrap();
}

/// Each of them requests its own token.
fn manifest(stage: &Stage, number: usize) -> Value {
    let mut manifest = stage.manifest(&format!("hanging-{number}"), &stage.receiver.webhook("hanging"));
    manifest["spec"]["tokenService"]["url"] = stage.receiver.hanging_token_url().into();
    manifest["spec"]["tokenService"]["audience"] = format!("hanging-{number}").into();
    manifest
}
