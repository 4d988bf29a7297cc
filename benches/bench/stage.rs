//! What the bench stands on: a control plane, the receiver's process, and namespaces with Subscribers.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, stage::Elsewhere};

use crate::{
    api_server,
    objects::{CREATORS, SUBSCRIBERS, create_at},
    receiver::{Receiver, oauth_client},
    usage,
};

/// The endpoints are in the receiver's process.
type Scene = testkit::Stage<Elsewhere>;

/// See the module.
pub struct Stage {
    scene: Scene,
    pub receiver: Receiver,
    /// Creates Notifications, as another controller would.
    pub creator: Client,
    /// Watches them, over HTTP/1.1 as the operator does.
    pub watcher: Client,
}

/// A namespace with its Subscribers, whose events the receiver writes down under the namespace's name.
pub struct Tenant {
    pub namespace: String,
    scene: Scene,
    /// The operator's own rights, over HTTP/2 as the operator writes.
    pub client: Client,
}

impl Stage {
    pub async fn start() -> Self {
        let receiver = Receiver::start().await;
        let scene = testkit::Stage::builder().endpoints_elsewhere(receiver.ca_pem()).set().await.unwrap();
        let creator = client(scene.plane().admin_kubeconfig()).await;
        let watcher = Client::try_from(config(scene.plane().admin_kubeconfig()).await).unwrap();
        Self { scene, receiver, creator, watcher }
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        self.scene.plane()
    }

    /// Processor time of the API server and etcd so far.
    pub async fn control_plane_cpu(&self) -> Duration {
        self.plane().pids().await.into_iter().map(usage::cpu).sum()
    }

    /// Lets the API server collect its garbage now, so that no run pays for another's: a collection costs it as much as
    /// hundreds of writes.
    pub async fn collect_garbage(&self) {
        self.plane().kubectl(&["get", "--raw", "/debug/pprof/heap?gc=1"]).await.unwrap().ok().unwrap();
    }

    /// How often it has collected its garbage so far.
    pub async fn collections(&self) -> u32 {
        let heap = self.plane().kubectl(&["get", "--raw", "/debug/pprof/heap?debug=1"]).await.unwrap().ok().unwrap();
        heap.lines().find_map(|line| line.strip_prefix("# NumGC = ")?.parse().ok()).unwrap()
    }

    /// A new namespace with an operator's rights in it and [`SUBSCRIBERS`] Subscribers.
    pub async fn tenant(&self, namespace: &str) -> Tenant {
        self.tenants(namespace, &[]).await
    }

    /// The same, and new namespaces besides it that the operator watches, too.
    pub async fn tenants(&self, namespace: &str, neighbors: &[&str]) -> Tenant {
        let scene = testkit::Stage::builder().on(self.scene.cluster()).namespaces(&[namespace]).namespaces(neighbors);
        let scene = scene.bundle("ca").credentials("oauth", |_| oauth_client());
        let scene = scene.endpoints_elsewhere(self.receiver.ca_pem()).set().await.unwrap();
        for namespace in scene.namespaces() {
            for number in 0..SUBSCRIBERS {
                self.subscriber(namespace, &format!("shop-{number}"), &self.receiver.webhook(namespace)).await;
            }
        }
        let client = client(scene.kubeconfig()).await;
        Tenant { namespace: namespace.to_owned(), scene, client }
    }

    /// Applies a Subscriber.
    pub async fn subscriber(&self, namespace: &str, name: &str, url: &str) {
        self.scene.apply(namespace, &self.manifest(name, url)).await.unwrap();
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
}

impl Tenant {
    /// Starts an operator for its namespaces; whether it is ready is for the caller to wait for.
    pub async fn operator(&self, flags: &[&str]) -> Operator {
        let binary = std::env::var_os("TIDINGS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into());
        let launch = self.scene.operator(binary.as_ref()).lease_in(&self.namespace).to_loopback();
        launch.args(&["--log-level", "warn"]).args(flags).start().await.unwrap()
    }
}

async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client that makes many requests at once.
pub async fn client(kubeconfig: &Path) -> Client {
    api_server::http2(&config(kubeconfig).await)
}
