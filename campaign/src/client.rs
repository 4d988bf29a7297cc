//! The other clients of the API server, which go to it directly: what it says to them is true.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use testkit::control_plane::ADMIN_TOKEN;
use testkit::proxies::Upstream;
use testkit::{ControlPlane, Error, Result};
use tokio::time::{sleep, timeout};

use crate::spaces::CORE;

const LIMIT: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(300);

/// A client with all rights.
pub(crate) struct ApiClient(Upstream);

/// How a patch is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Merge,
    Json,
}

impl ApiClient {
    pub(crate) fn new(plane: &ControlPlane) -> Result<Self> {
        Ok(Self(Upstream::new(plane.address(), plane.ca_file())?))
    }

    pub(crate) async fn create(&self, namespace: &str, kind: &str, object: &Value) -> Result<u16> {
        Ok(self.send(Method::POST, &of_kind(namespace, kind), "application/json", object).await?.0)
    }

    /// `part` is empty, or `/status`.
    pub(crate) async fn patch(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        part: &str,
        form: Form,
        patch: &Value,
    ) -> Result<u16> {
        let content_type = match form {
            Form::Merge => "application/merge-patch+json",
            Form::Json => "application/json-patch+json",
        };
        let path = format!("{}/{name}{part}", of_kind(namespace, kind));
        Ok(self.send(Method::PATCH, &path, content_type, patch).await?.0)
    }

    /// Puts a new value into a Secret.
    pub(crate) async fn write_secret(&self, name: &str, key: &str, value: &str) -> Result<u16> {
        let path = format!("/api/v1/namespaces/{CORE}/secrets/{name}");
        let patch = json!({"stringData": {key: value}});
        Ok(self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await?.0)
    }

    pub(crate) async fn delete(&self, namespace: &str, kind: &str, name: &str) -> Result<u16> {
        let path = format!("{}/{name}", of_kind(namespace, kind));
        Ok(self.send(Method::DELETE, &path, "application/json", &Value::Null).await?.0)
    }

    /// All objects of a kind in a namespace are deleted.
    pub(crate) async fn delete_all(&self, namespace: &str, kind: &str) -> Result<u16> {
        Ok(self.send(Method::DELETE, &of_kind(namespace, kind), "application/json", &Value::Null).await?.0)
    }

    /// All objects of a kind, in all namespaces.
    pub(crate) async fn list(&self, kind: &str) -> Result<Vec<Value>> {
        match self.send(Method::GET, &format!("{OURS}/{kind}"), "application/json", &Value::Null).await? {
            (200, mut list) => match list["items"].take() {
                Value::Array(items) => Ok(items),
                _ => Ok(Vec::new()),
            },
            (code, answer) => Err(Error::new(format!("listing {kind}: {code} {answer}"))),
        }
    }

    /// Waits until the API server is ready: it knows everybody's rights.
    pub(crate) async fn ready(&self) {
        until(&[200], || async { Ok(self.send(Method::GET, "/readyz", "text/plain", &Value::Null).await?.0) }).await;
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Result<(u16, Value)> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "kubernetes")
            .header(AUTHORIZATION, format!("Bearer {ADMIN_TOKEN}"))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| Error::new(error.to_string()))?;
        let exchange = async {
            let answer = self.0.send(request).await?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.map_err(|error| Error::new(error.to_string()))?;
            Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
        };
        timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(Error::new(format!("no answer within {LIMIT:?}"))))
    }
}

/// Does it again until the API server answers with one of these codes, which it returns.
pub(crate) async fn until<F>(codes: &[u16], mut call: impl FnMut() -> F) -> u16
where
    F: Future<Output = Result<u16>>,
{
    loop {
        match call().await {
            Ok(code) if codes.contains(&code) => return code,
            _ => sleep(AGAIN).await,
        }
    }
}

const OURS: &str = "/apis/tidings.dev/v1alpha1";

/// Where objects of a kind are: `notifications` and `subscribers` are ours, others of RBAC.
fn of_kind(namespace: &str, kind: &str) -> String {
    let group = match kind {
        "roles" | "rolebindings" => "/apis/rbac.authorization.k8s.io/v1",
        _ => OURS,
    };
    format!("{group}/namespaces/{namespace}/{kind}")
}
