//! The fixture of an end-to-end test: a namespace, a receiver, a token service, and the operator as a separate process
//! under the chart's Role.

use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use http::Method;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testkit::{
    ApiProxy, Client, ControlPlane, Identity, Operator, Stage, chart,
    endpoints::Received,
    stage::{Endpoints, Launch},
};
use tidings_api::Notification;
use tokio::time::{Instant, sleep};

use crate::cluster::{cluster, config, unique};

/// The client ID and client secret of `World::secret`.
pub const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-test");
/// The longest wait of a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The fixture of an end-to-end test. It dereferences to its endpoints: the receiver, the token service and their
/// certificate authority.
pub struct World {
    pub plane: &'static ControlPlane,
    pub namespace: String,
    stage: Stage,
}

impl Deref for World {
    type Target = Endpoints;

    fn deref(&self) -> &Endpoints {
        self.stage.endpoints()
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Endpoints {
        self.stage.endpoints_mut()
    }
}

impl World {
    /// Creates everything except the operator on the shared control plane. [`World::operator`] starts the operator.
    pub async fn new(name: &str) -> Self {
        Self::on(cluster().await, name).await
    }

    /// Like [`World::new`], with its own control plane, for a test that stops the API server or changes the whole
    /// cluster.
    pub async fn alone(name: &str) -> Self {
        Self::on(Box::leak(Box::new(ControlPlane::start().await.unwrap())), name).await
    }

    /// Like [`World::new`], on the control plane `plane`.
    pub async fn on(plane: &'static ControlPlane, name: &str) -> Self {
        let namespace = unique(name);
        let client = Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]);
        let stage = Stage::builder().on(plane).namespaces(&[&namespace]).client(client).bundle("test-ca");
        Self { plane, namespace, stage: stage.set().await.unwrap() }
    }

    /// Starts an operator for the namespace and waits until it is ready.
    pub async fn operator(&self) -> Operator {
        self.launch().to_loopback().ready(PATIENCE).await.unwrap()
    }

    /// Starts an operator for the namespace that reaches the API server through `proxy`, and waits until it is ready.
    pub async fn operator_through(&self, proxy: &ApiProxy) -> Operator {
        self.start_through(proxy, &[]).await
    }

    /// Like [`World::operator_through`], with additional flags.
    pub async fn start_through(&self, proxy: &ApiProxy, flags: &[&str]) -> Operator {
        let name = format!("{}-through-{}", self.namespace, proxy.address().port());
        let through = self.stage.kubeconfig_through(&name, proxy.address(), proxy.ca_file()).unwrap();
        self.launch().to_loopback().args(flags).kubeconfig(&through).ready(PATIENCE).await.unwrap()
    }

    /// Starts one of several operators, which elect their leader with a Lease.
    pub async fn replica(&self) -> Operator {
        self.launch().to_loopback().lease_in(&self.namespace).ready(PATIENCE).await.unwrap()
    }

    /// Starts an operator for the namespace with additional flags.
    pub async fn start(&self, flags: &[&str]) -> Operator {
        self.launch().args(flags).start().await.unwrap()
    }

    /// The configuration of an operator for the namespace.
    pub fn launch(&self) -> Launch {
        self.stage.operator(binary())
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &Value) {
        self.stage.apply(&self.namespace, manifest).await.unwrap();
    }

    /// Runs kubectl in the namespace.
    pub async fn kubectl(&self, args: &[&str]) -> testkit::control_plane::Output {
        self.plane.kubectl(&[&["-n", &self.namespace], args].concat()).await.unwrap()
    }

    /// Applies the Secret `acme-oauth` with this client secret.
    pub async fn secret(&self, client_secret: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-oauth"},
            "stringData": {"client_id": CLIENT.0, "client_secret": client_secret},
        }))
        .await;
    }

    /// Applies a Subscriber whose webhook is the receiver's path of the same name; `change` may alter its spec.
    pub async fn subscriber(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let tls = json!({"caRef": {"kind": "ConfigMap", "name": "test-ca"}});
        let mut subscriber = json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": name},
            "spec": {
                "webhook": {"url": self.receiver.url(&path(name)), "tls": tls},
                "tokenService": {
                    "url": self.tokens.url(), "tls": tls, "scopes": ["events.write"],
                    "credentialsSecretRef": {"name": "acme-oauth"},
                },
            },
        });
        change(&mut subscriber["spec"]);
        self.apply(&subscriber).await;
    }

    /// Applies a Notification with `event` for `subscriber`.
    pub async fn notification(&self, name: &str, subscriber: &str, event: Value) {
        self.apply(&notification(name, subscriber, event)).await;
    }

    /// Applies `count` Notifications `{prefix}-{n}` with one kubectl apply; each event has the Notification's name as
    /// its id.
    pub async fn notifications(&self, prefix: &str, subscriber: &str, count: usize) {
        let items: Vec<_> = (0..count)
            .map(|n| format!("{prefix}-{n}"))
            .map(|name| {
                notification(&name, subscriber, json!({"id": name, "source": "/test", "type": "test", "data": {}}))
            })
            .collect();
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
    }

    /// Creates `count` Notifications as a controller would: concurrently, through the API.
    pub async fn create(&self, prefix: &str, subscriber: &str, count: usize) {
        let config = config(self.plane.admin_kubeconfig()).await;
        let api = Api::<Notification>::namespaced(kube::Client::try_from(config).unwrap(), &self.namespace);
        let make = |n| {
            let name = format!("{prefix}-{n}");
            let event = json!({"id": name, "source": "/test", "type": "test", "data": {}});
            let object: Notification = serde_json::from_value(notification(&name, subscriber, event)).unwrap();
            let api = api.clone();
            async move { api.create(&PostParams::default(), &object).await.unwrap() }
        };
        futures::stream::iter((0..count).map(make)).buffer_unordered(32).for_each(async |_| ()).await;
    }

    /// Reads one object.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "-o", "json"]).await.ok().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Lists all objects of a kind.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "-o", "json"]).await.ok().unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Waits until `wanted` is true of an object, and returns the object.
    pub async fn until(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let object = self.get(kind, name).await;
            if wanted(&object) {
                return object;
            }
            assert!(Instant::now() < end, "{kind} {name} is not as expected after {PATIENCE:?}: {object:#}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a Subscriber's Ready condition has this reason.
    pub async fn until_reason(&self, subscriber: &str, reason: &str) -> Value {
        self.until("subscriber", subscriber, |s| condition(s, "Ready")["reason"] == reason).await
    }

    /// Waits until a Notification is in this phase.
    pub async fn until_phase(&self, notification: &str, phase: &str) -> Value {
        self.until("notification", notification, |n| n["status"]["phase"] == phase).await
    }

    /// Waits until `count` Notifications of the namespace are Delivered.
    pub async fn until_delivered(&self, count: usize) {
        let end = Instant::now() + 2 * PATIENCE;
        loop {
            let all = self.list("notifications").await;
            let delivered = all.iter().filter(|n| n["status"]["phase"] == "Delivered").count();
            if delivered == count {
                return;
            }
            assert!(Instant::now() < end, "{delivered} of {count} delivered");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

impl World {
    /// The POSTs that arrived at a path.
    pub fn posts(&self, path: &str) -> Vec<Received> {
        self.requests(path, &Method::POST)
    }

    /// The validation requests (OPTIONS) that arrived at a path.
    pub fn options(&self, path: &str) -> Vec<Received> {
        self.requests(path, &Method::OPTIONS)
    }

    fn requests(&self, path: &str, method: &Method) -> Vec<Received> {
        let mut requests = self.receiver.requests_for(path);
        requests.retain(|request| request.method == method);
        requests
    }
}

/// The path at the receiver of a Subscriber's webhook.
pub fn path(subscriber: &str) -> String {
    format!("/{subscriber}")
}

/// An object's condition of this type, or null.
pub fn condition(object: &Value, type_: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == type_).unwrap_or_default()
}

/// The path of the operator's executable.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidings"))
}

/// A kubeconfig with a token of the chart's ServiceAccount, from a TokenRequest.
pub async fn operator_kubeconfig(plane: &ControlPlane, namespace: &str) -> PathBuf {
    plane.kubeconfig_for_token(namespace, &chart::token(plane, namespace).await.unwrap()).unwrap()
}

/// A Secret as `kubectl create secret tls` makes it.
pub fn tls_secret(name: &str, identity: &Identity) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "stringData": {"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem},
    })
}

fn notification(name: &str, subscriber: &str, event: Value) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name},
        "spec": {"subscriberRef": {"name": subscriber}, "event": event},
    })
}
