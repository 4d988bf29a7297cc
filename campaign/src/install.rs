//! What a campaign puts into its cluster.

use std::sync::Arc;

use serde_json::json;
use testkit::{Result, Stage};

use crate::client::ApiClient;
use crate::credentials::{HANGING_PATH, TOKEN_PATH};
use crate::webhooks::WEBHOOKS;
use crate::{many, spaces};

/// Waits until the operators' rights hold, and applies the Subscribers, for a webhook and a token service at these
/// URLs.
pub(crate) async fn install(scene: &Stage, client: &Arc<ApiClient>, webhook: &str, token: &str) -> Result<()> {
    // The API server learns of new rights a moment later.
    let account = format!("--as=system:serviceaccount:{}:tidings", spaces::CORE);
    for namespace in spaces::ALL {
        let may = ["auth", "can-i", "list", "notifications.tidings.dev", "-n", namespace, &account];
        while !scene.kubectl().run(&may).await?.success {}
    }
    let subscribers = WEBHOOKS.iter().map(|entry| {
        let path = if entry.namespace == spaces::HANGING { HANGING_PATH } else { TOKEN_PATH };
        let mut subscriber = entry.subscriber(webhook, &format!("{token}{path}"));
        subscriber["metadata"]["namespace"] = entry.namespace.into();
        subscriber
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": subscribers.collect::<Vec<_>>()});
    scene.kubectl().apply(&list.to_string(), &["--server-side"]).await?;
    many::create(client, webhook, &format!("{token}{TOKEN_PATH}")).await;
    Ok(())
}
