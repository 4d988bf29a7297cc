//! What the bench stands on: a control plane, the receiver's process, and namespaces with Subscribers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::Client;
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, chart};

use tidings::cluster as api_server;

use crate::{
    cluster::{config, install_crds},
    objects::{CREATORS, SUBSCRIBERS, create_at},
    receiver::{CLIENT, Receiver},
    usage,
};

/// See the module.
pub struct Stage {
    pub plane: ControlPlane,
    pub receiver: Receiver,
    /// Creates Notifications, as another controller would.
    pub creator: Client,
    /// Watches them, through the operator's own HTTP client for that.
    pub watcher: Client,
}

/// A namespace with its Subscribers, whose events the receiver writes down under the namespace's name.
pub struct Tenant {
    pub namespace: String,
    /// Other namespaces that the same operator watches.
    neighbours: Vec<String>,
    kubeconfig: PathBuf,
    /// The operator's own rights, through the operator's own HTTP client.
    pub client: Client,
}

impl Stage {
    pub async fn start() -> Self {
        let plane = ControlPlane::start().await.unwrap();
        install_crds(&plane).await;
        let creator = client(plane.admin_kubeconfig()).await;
        let watcher = api_server::reader(&config(plane.admin_kubeconfig()).await).unwrap();
        Self { plane, receiver: Receiver::start().await, creator, watcher }
    }

    /// Processor time of the API server and etcd so far.
    pub async fn control_plane_cpu(&self) -> Duration {
        self.plane.pids().await.into_iter().map(usage::cpu).sum()
    }

    /// Lets the API server collect its garbage now, so that no run pays for another's: a collection costs it as much as
    /// hundreds of writes.
    pub async fn collect_garbage(&self) {
        self.plane.kubectl(&["get", "--raw", "/debug/pprof/heap?gc=1"]).await.unwrap().ok().unwrap();
    }

    /// How often it has collected its garbage so far.
    pub async fn collections(&self) -> u32 {
        let heap = self.plane.kubectl(&["get", "--raw", "/debug/pprof/heap?debug=1"]).await.unwrap().ok().unwrap();
        heap.lines().find_map(|line| line.strip_prefix("# NumGC = ")?.parse().ok()).unwrap()
    }

    /// A new namespace with an operator's rights in it and [`SUBSCRIBERS`] Subscribers.
    pub async fn tenant(&self, namespace: &str) -> Tenant {
        self.tenants(namespace, &[]).await
    }

    /// The same, and new namespaces besides it that the operator watches, too.
    pub async fn tenants(&self, namespace: &str, neighbours: &[&str]) -> Tenant {
        let all = [&[namespace], neighbours].concat();
        for namespace in &all {
            self.plane.kubectl(&["create", "namespace", namespace]).await.unwrap().ok().unwrap();
        }
        chart::install(&self.plane, namespace, &all).await.unwrap();
        let token = chart::token(&self.plane, namespace).await.unwrap();
        let kubeconfig = self.plane.kubeconfig_for_token(namespace, &token).unwrap();
        let neighbours = neighbours.iter().map(|name| (*name).to_owned()).collect();
        let client = client(&kubeconfig).await;
        for namespace in &all {
            self.furnish(namespace).await;
        }
        Tenant { namespace: namespace.to_owned(), neighbours, kubeconfig, client }
    }

    async fn furnish(&self, namespace: &str) {
        let ca = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"},
            "data": {"ca.crt": self.receiver.ca_pem()},
        });
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "oauth"},
            "stringData": {"client_id": CLIENT.0, "client_secret": CLIENT.1},
        });
        self.apply(namespace, &ca).await;
        self.apply(namespace, &secret).await;
        for number in 0..SUBSCRIBERS {
            self.subscriber(namespace, &format!("shop-{number}"), &self.receiver.webhook(namespace)).await;
        }
    }

    /// Applies a Subscriber.
    pub async fn subscriber(&self, namespace: &str, name: &str, url: &str) {
        self.apply(namespace, &self.manifest(name, url)).await;
    }

    /// The manifest of a Subscriber with the default limits.
    pub fn manifest(&self, name: &str, url: &str) -> Value {
        let tls = json!({"caRef": {"kind": "ConfigMap", "name": "ca"}});
        json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Subscriber", "metadata": {"name": name},
            "spec": {
                "webhook": {"url": url, "tls": tls},
                "tokenService": {
                    "url": self.receiver.token_url(), "tls": tls, "credentialsSecretRef": {"name": "oauth"},
                },
            },
        })
    }

    /// Creates Subscribers, many at once.
    pub async fn subscribers(&self, namespace: &str, manifests: Vec<Value>) {
        let path = format!("/apis/tidings.dev/v1alpha1/namespaces/{namespace}/subscribers");
        create_at(&self.creator, &path, manifests, CREATORS).await;
    }

    async fn apply(&self, namespace: &str, manifest: &Value) {
        let args = ["-n", namespace, "--server-side", "--force-conflicts"];
        self.plane.admin().apply(&manifest.to_string(), &args).await.unwrap();
    }
}

impl Tenant {
    /// Starts an operator for its namespaces; whether it is ready is for the caller to wait for.
    pub async fn operator(&self, flags: &[&str]) -> Operator {
        let watched = [std::slice::from_ref(&self.namespace), &self.neighbours].concat().join(",");
        let own = ["--watch-namespace", &watched, "--lease-namespace", &self.namespace];
        let own = [&own[..], &["--egress-allow-cidr", "127.0.0.0/8", "--log-level", "warn"]].concat();
        let binary = std::env::var_os("TIDINGS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into());
        Operator::start(binary.as_ref(), &self.kubeconfig, &[&own[..], flags].concat(), &[]).await.unwrap()
    }
}

/// A client that makes many requests at once.
pub async fn client(kubeconfig: &Path) -> Client {
    api_server::writer(&config(kubeconfig).await).await.unwrap()
}
