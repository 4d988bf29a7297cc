//! The operators' rights to a namespace, which others take away and give back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::client::until;
use crate::record::{Window, close};
use crate::spaces::{BARRED, CORE, DOOMED};
use crate::stage::Stage;

/// What the chart calls its Role and its RoleBinding in each namespace.
const NAME: &str = "tidings";

/// Takes the rights to one namespace away, and gives them back after `time`.
pub(crate) async fn bar(stage: &Stage, time: Duration) {
    opened(stage, BARRED);
    delete(stage, BARRED, "rolebindings").await;
    sleep(time).await;
    give_back(stage).await;
}

/// Gives back what [`bar`] took away.
pub(crate) async fn give_back(stage: &Stage) {
    let subject = json!({"kind": "ServiceAccount", "name": NAME, "namespace": CORE});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}, "subjects": [subject],
    });
    until(&[201, 409], || stage.client.create(BARRED, "rolebindings", &binding)).await;
    if let Some(windows) = stage.record.lock().unwrap().barred.get_mut(BARRED) {
        close(windows);
    }
}

/// Deletes all that is in one namespace, the operators' rights first. There is no controller that would delete the
/// namespace itself; what clients create in it later goes at the end ([`sweep`]).
pub(crate) async fn doom(stage: &Arc<Stage>) {
    if stage.record.lock().unwrap().barred.contains_key(DOOMED) {
        return;
    }
    opened(stage, DOOMED);
    delete(stage, DOOMED, "rolebindings").await;
    delete(stage, DOOMED, "roles").await;
    sweep(stage).await;
}

/// Deletes what is in a namespace that was deleted.
pub(crate) async fn sweep(stage: &Stage) {
    if stage.record.lock().unwrap().barred.contains_key(DOOMED) {
        for kind in ["notifications", "subscribers"] {
            until(&[200], || stage.client.delete_all(DOOMED, kind)).await;
        }
    }
}

async fn delete(stage: &Stage, namespace: &str, kind: &str) {
    until(&[200, 404], || stage.client.delete(namespace, kind, NAME)).await;
}

fn opened(stage: &Stage, namespace: &str) {
    let mut record = stage.record.lock().unwrap();
    record.barred.entry(namespace.to_owned()).or_default().push(Window::open());
}
