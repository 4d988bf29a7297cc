//! What a campaign puts into its cluster.

use std::sync::Arc;

use serde_json::{Value, json};
use testkit::{Authority, ControlPlane, Result, chart};

use crate::client::ApiClient;
use crate::credentials::{CLIENT, HANGING_PATH, OTHER_CLIENT, SECRET, TOKEN_PATH};
use crate::webhooks::WEBHOOKS;
use crate::{many, spaces};

/// Applies the definitions, the chart's Roles, what the Subscribers need, and the Subscribers. Returns a token with the
/// operator's rights.
pub(crate) async fn install(
    plane: &ControlPlane,
    authority: &Authority,
    client: &Arc<ApiClient>,
    webhook: &str,
    token: &str,
) -> Result<String> {
    chart::install_crds(plane).await?;
    let kind = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    apply(plane, spaces::ALL.iter().map(|namespace| kind("Namespace", namespace)).collect()).await?;
    chart::install(plane, spaces::CORE, &spaces::ALL).await?;
    // The API server hears of new rights a moment later.
    let account = format!("--as=system:serviceaccount:{}:tidings", spaces::CORE);
    for namespace in spaces::ALL {
        let may = ["auth", "can-i", "list", "notifications.tidings.dev", "-n", namespace, &account];
        while !plane.kubectl(&may).await?.success {}
    }
    let placed = |namespace: &str, mut object: Value| {
        object["metadata"]["namespace"] = namespace.into();
        object
    };
    let mut items = Vec::new();
    for namespace in spaces::ALL {
        let (id, secret) = if namespace == spaces::CORE { CLIENT } else { OTHER_CLIENT };
        let (mut bundle, mut credentials) = (kind("ConfigMap", "test-ca"), kind("Secret", SECRET));
        bundle["data"] = json!({"ca.crt": authority.ca_pem()});
        credentials["stringData"] = json!({"client_id": id, "client_secret": secret});
        items.extend([placed(namespace, bundle), placed(namespace, credentials)]);
    }
    items.extend(WEBHOOKS.iter().map(|subscriber| {
        let path = if subscriber.namespace == spaces::HANGING { HANGING_PATH } else { TOKEN_PATH };
        placed(subscriber.namespace, subscriber.subscriber(webhook, &format!("{token}{path}")))
    }));
    apply(plane, items).await?;
    many::create(client, webhook, &format!("{token}{TOKEN_PATH}")).await;
    chart::token(plane, spaces::CORE).await
}

async fn apply(plane: &ControlPlane, items: Vec<Value>) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    plane.admin().apply(&list.to_string(), &["--server-side"]).await.map(drop)
}
