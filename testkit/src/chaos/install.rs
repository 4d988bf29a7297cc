//! What a campaign puts into its cluster.

use serde_json::json;

use super::stage::NAMESPACE;
use super::webhooks::WEBHOOKS;
use crate::chart;
use crate::control_plane::ControlPlane;
use crate::error::Result;
use crate::pki::Authority;
use crate::tcp_proxy::TcpProxy;

/// The operators' client at the token service: its id, and its first secret.
pub(crate) const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-campaign");
/// The Secret that holds both.
pub(crate) const SECRET: &str = "acme-oauth";

/// Applies the definitions, the chart's Role, what the Subscribers need, and the Subscribers. Returns a token with the
/// operator's rights.
pub(crate) async fn install(
    plane: &ControlPlane,
    authority: &Authority,
    webhook: &TcpProxy,
    token: &TcpProxy,
) -> Result<String> {
    chart::install_crds(plane).await?;
    plane.kubectl(&["create", "namespace", NAMESPACE]).await?.ok()?;
    chart::install(plane, NAMESPACE, &[NAMESPACE]).await?;
    // The API server hears of new rights a moment later.
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:tidings");
    let may = ["auth", "can-i", "list", "notifications.tidings.dev", "-n", NAMESPACE, &account];
    while !plane.kubectl(&may).await?.success {}
    let webhook = format!("https://{}", webhook.address());
    let token = format!("https://{}/oauth2/token", token.address());
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-ca"},
            "data": {"ca.crt": authority.ca_pem()}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
            "stringData": {"client_id": CLIENT.0, "client_secret": CLIENT.1}}),
    ];
    items.extend(WEBHOOKS.iter().map(|subscriber| subscriber.subscriber(&webhook, &token)));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    plane.admin().apply(&list.to_string(), &["-n", NAMESPACE, "--server-side"]).await?;
    chart::token(plane, NAMESPACE).await
}
