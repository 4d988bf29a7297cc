//! Sets the stage for the tests, the benchmarks, the fault campaign and the demo: a cluster with the
//! CustomResourceDefinitions, a webhook and a token service, and namespaces in which the operator has the permissions
//! that the chart grants.

mod cluster;
mod endpoints;
mod launch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::cluster::Cluster;
pub use self::endpoints::{Elsewhere, Endpoints};
pub use self::launch::Launch;
use crate::chart;
use crate::control_plane::{ControlPlane, Kubectl};
use crate::endpoints::Client;
use crate::error::{Error, Result};

/// A cluster, endpoints and namespaces (see the module). `E` is [`Endpoints`], or [`Elsewhere`] if another process
/// serves the endpoints.
pub struct Stage<E = Endpoints> {
    // Fields are dropped in this order: the cluster last.
    endpoints: E,
    namespaces: Vec<String>,
    rights: Rights,
    cluster: Cluster,
}

/// The permissions of the operator on a stage.
struct Rights {
    kubeconfig: PathBuf,
    /// The token of the chart's ServiceAccount; None with all permissions.
    token: Option<String>,
}

/// The configuration of a stage. The defaults are a new control plane, endpoints in this process without clients, no
/// namespaces, and all permissions.
pub struct StageBuilder<E> {
    cluster: Option<Cluster>,
    logs: Option<PathBuf>,
    namespaces: Vec<String>,
    as_admin: bool,
    bundle: Option<String>,
    credentials: Option<(String, ClientOf)>,
    endpoints: E,
}

/// Returns the client whose credentials a namespace contains.
type ClientOf = Box<dyn Fn(&str) -> Client + Send + Sync>;

impl Stage {
    /// Returns the default configuration.
    #[must_use]
    pub fn builder() -> StageBuilder<Vec<Client>> {
        StageBuilder {
            cluster: None,
            logs: None,
            namespaces: Vec::new(),
            as_admin: false,
            bundle: None,
            credentials: None,
            endpoints: Vec::new(),
        }
    }

    /// The webhook, the token service and their certificate authority.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The same, to stop or replace the endpoints.
    pub fn endpoints_mut(&mut self) -> &mut Endpoints {
        &mut self.endpoints
    }
}

impl<E> StageBuilder<E> {
    /// Uses this cluster.
    #[must_use]
    pub fn on(mut self, cluster: impl Into<Cluster>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// Writes the logs of a new control plane to this folder, where they outlive it.
    #[must_use]
    pub fn logs_in(mut self, folder: &Path) -> Self {
        self.logs = Some(folder.to_owned());
        self
    }

    /// Adds namespaces that the operator watches. They are created if they do not exist. The chart is installed in the
    /// first namespace.
    #[must_use]
    pub fn namespaces(mut self, names: &[&str]) -> Self {
        self.namespaces.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Gives the operator all permissions, and does not install the chart.
    #[must_use]
    pub fn as_admin(mut self) -> Self {
        self.as_admin = true;
        self
    }

    /// Creates a ConfigMap with this name and the certificate of the endpoints' authority in each namespace.
    #[must_use]
    pub fn bundle(mut self, name: &str) -> Self {
        self.bundle = Some(name.to_owned());
        self
    }

    /// Creates a Secret with this name in each namespace, with the id and the secret of the client that `client`
    /// returns for the namespace.
    #[must_use]
    pub fn credentials(mut self, name: &str, client: impl Fn(&str) -> Client + Send + Sync + 'static) -> Self {
        self.credentials = Some((name.to_owned(), Box::new(client)));
        self
    }

    /// Sets the stage after the endpoints were started.
    async fn set_with<T>(self, endpoints: T, ca_pem: &str) -> Result<Stage<T>> {
        let cluster = match self.cluster {
            Some(cluster) => cluster,
            None => ControlPlane::start_logging_to(self.logs.as_deref()).await?.into(),
        };
        cluster.define().await?;
        let (mut objects, mut contents) = (Vec::new(), Vec::new());
        for namespace in &self.namespaces {
            objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
            contents.extend(self.bundle.iter().map(|name| bundle(namespace, name, ca_pem)));
            contents.extend(self.credentials.iter().map(|(name, of)| credentials(namespace, name, &of(namespace))));
        }
        // Namespaces first: the API server refuses objects in a namespace that does not exist.
        objects.append(&mut contents);
        if !objects.is_empty() {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            cluster.kubectl().apply(&list.to_string(), &["--server-side", "--force-conflicts"]).await?;
        }
        let rights = match self.namespaces.first() {
            Some(first) if !self.as_admin => Rights::of_chart(&cluster, first, &self.namespaces).await?,
            _ => Rights { kubeconfig: cluster.kubectl().kubeconfig().to_owned(), token: None },
        };
        Ok(Stage { endpoints, namespaces: self.namespaces, rights, cluster })
    }
}

impl StageBuilder<Vec<Client>> {
    /// Registers a client with the token service.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.endpoints.push(client);
        self
    }

    /// Uses the endpoints of another process, with certificates of this authority.
    #[must_use]
    pub fn endpoints_elsewhere(self, ca_pem: &str) -> StageBuilder<Elsewhere> {
        let Self { cluster, logs, namespaces, as_admin, bundle, credentials, .. } = self;
        let endpoints = Elsewhere::new(ca_pem);
        StageBuilder { cluster, logs, namespaces, as_admin, bundle, credentials, endpoints }
    }

    /// Sets the stage.
    ///
    /// # Errors
    /// When a part cannot be started, or the API server refuses an object.
    pub async fn set(mut self) -> Result<Stage> {
        let endpoints = Endpoints::start(std::mem::take(&mut self.endpoints)).await?;
        let ca_pem = endpoints.authority.ca_pem().to_owned();
        self.set_with(endpoints, &ca_pem).await
    }
}

impl StageBuilder<Elsewhere> {
    /// Sets the stage.
    ///
    /// # Errors
    /// When the control plane cannot be started, or the API server refuses an object.
    pub async fn set(self) -> Result<Stage<Elsewhere>> {
        let ca_pem = self.endpoints.ca_pem().to_owned();
        let endpoints = Elsewhere::new(&ca_pem);
        self.set_with(endpoints, &ca_pem).await
    }
}

impl Rights {
    /// Installs the chart in `first` for an operator that watches `namespaces`, and returns its permissions.
    async fn of_chart(cluster: &Cluster, first: &str, namespaces: &[String]) -> Result<Self> {
        let plane = cluster
            .plane()
            .ok_or_else(|| Error::new("the permissions of the chart require a control plane of the kit"))?;
        let watched: Vec<_> = namespaces.iter().map(String::as_str).collect();
        chart::install(plane, first, &watched).await?;
        let token = chart::token(plane, first).await?;
        Ok(Self { kubeconfig: plane.kubeconfig_for_token(first, &token)?, token: Some(token) })
    }
}

impl<E> Stage<E> {
    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The control plane.
    ///
    /// # Panics
    /// When the cluster is a user's cluster.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        self.cluster.plane().expect("the cluster of this stage is a control plane of the kit")
    }

    /// kubectl with all permissions.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// The namespaces that the operator watches; the chart is in the first.
    #[must_use]
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// A kubeconfig with the operator's permissions.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.rights.kubeconfig
    }

    /// Writes a kubeconfig with the operator's permissions for a proxy in front of the API server, at this address and
    /// with a certificate of the authority in this file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig_through(&self, name: &str, address: SocketAddr, ca_file: &Path) -> Result<PathBuf> {
        self.plane().kubeconfig_through(name, address, ca_file, self.rights.token.as_deref())
    }

    /// An operator for the namespaces of the stage, or for all namespaces if the stage has none.
    #[must_use]
    pub fn operator(&self, binary: &Path) -> Launch {
        let launch = Launch::new(binary, self.kubeconfig());
        match &self.namespaces[..] {
            [] => launch,
            namespaces => launch.args(&["--watch-namespace", &namespaces.join(",")]),
        }
    }

    /// Applies a manifest to a namespace.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, namespace: &str, manifest: &Value) -> Result<()> {
        let args = ["-n", namespace, "--server-side", "--force-conflicts"];
        self.kubectl().apply(&manifest.to_string(), &args).await.map(drop)
    }
}

fn bundle(namespace: &str, name: &str, ca_pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
        "data": {"ca.crt": ca_pem},
    })
}

fn credentials(namespace: &str, name: &str, client: &Client) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
        "stringData": {"client_id": client.id, "client_secret": client.secret()},
    })
}
