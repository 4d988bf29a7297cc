//! Starts and stops the parts of the operator, in order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use kube::{Api, Client, Config, api::ListParams};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::info;

use crate::{
    admin::{self, Readiness},
    controller::{Attempts, Notifications, Registry, Resolver, SELECTOR, StatusWriter, Subscribers, Unfinished},
    dispatch::Backoff,
    egress::{Cidr, Egress, Policy},
    metrics::Metrics,
    oauth::TokenCache,
};

/// Attempts under way at once, over all Subscribers.
const MAX_IN_FLIGHT: usize = 1024;
/// Bytes of untried events kept in memory.
const EVENT_BYTES: usize = 64 << 20;
/// The waits between attempts.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(3600) };

/// What an administrator decides.
#[derive(Debug)]
pub struct Settings {
    /// The namespaces to watch; none means all.
    pub watch_namespaces: Vec<String>,
    /// Ranges of addresses that may be dialled besides the public ones.
    pub egress_allow_cidrs: Vec<Cidr>,
    /// The value of `WebHook-Request-Origin`.
    pub origin: HeaderValue,
    /// Where the admin endpoint listens.
    pub admin_addr: SocketAddr,
}

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster is configured.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run inside a cluster ({0})")]
    Config(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("the Kubernetes client: {0}")]
    Client(#[source] kube::Error),
    /// The API server refuses what the operator needs.
    #[error("the API server: {0}")]
    Api(#[source] kube::Error),
    /// The CustomResourceDefinitions are missing or too old.
    #[error("the CustomResourceDefinitions of {group} are missing or too old: apply the crds/ of this version ({source})", group = crate::api::GROUP)]
    Crds {
        /// What the API server said.
        source: kube::Error,
    },
    /// The admin address cannot be used.
    #[error("--admin-addr {address}: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A part that works until the end has ended: there is a bug, and its panic is in the log.
    #[error("a part of the operator ended by itself; the log says why")]
    PartEnded,
    /// Signals cannot be received.
    #[error("receiving signals: {0}")]
    Signals(#[source] io::Error),
}

/// Runs the operator until it is told to end (SIGTERM or SIGINT).
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut terminated = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupted = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let listener = admin::bind(settings.admin_addr)
        .await
        .map_err(|source| Error::Admin { address: settings.admin_addr, source })?;
    let mut config = Config::infer().await?;
    let client = Client::try_from(config.clone()).map_err(Error::Client)?;
    // Outcomes are written again by the writer itself, which knows when not to.
    config.default_retry = false;
    let writer = Client::try_from(config).map_err(Error::Client)?;
    let namespaces = scopes(settings.watch_namespaces);
    check_crds(&client, &namespaces).await?;

    let metrics = Metrics::default();
    let readiness = Readiness::of_parts(namespaces.len() + 1);
    let (stop, stopped) = watch::channel(false);
    let stopped = move || {
        let mut stopped = stopped.clone();
        async move { drop(stopped.wait_for(|stop| *stop).await) }
    };
    let (changes, gates) = mpsc::unbounded_channel();
    let registry = Arc::new(Registry::new(changes));
    let subscribers = Arc::new(Subscribers {
        client: client.clone(),
        resolver: Resolver {
            client: client.clone(),
            egress: Egress::new(Policy::allowing(settings.egress_allow_cidrs)),
            tokens: TokenCache::default(),
            origin: settings.origin,
        },
        registry: registry.clone(),
    });
    let attempts = Attempts { writer: StatusWriter { client: writer, metrics: metrics.clone() }, backoff: BACKOFF };
    let notifications = Notifications::new(attempts, registry, metrics.clone(), MAX_IN_FLIGHT, EVENT_BYTES);

    info!(version = env!("CARGO_PKG_VERSION"), admin = %settings.admin_addr, ?namespaces, "tidings starts");
    let mut parts = JoinSet::new();
    parts.spawn(admin::serve(listener, readiness.clone(), metrics));
    for namespace in namespaces.clone() {
        let readiness = readiness.clone();
        parts.spawn(subscribers.clone().run(namespace, move || readiness.part_is_ready(), stopped()));
    }
    let queue = notifications.run(&client, &namespaces, gates, || readiness.part_is_ready(), stopped());
    let end = async {
        let result = tokio::select! {
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
            _ = parts.join_next() => Err(Error::PartEnded),
        };
        let _ = stop.send(true);
        result
    };
    let ((), result) = tokio::join!(queue, end);
    info!("tidings ends");
    result
}

/// What to watch: the namespaces given, each once, or all (None).
fn scopes(mut namespaces: Vec<String>) -> Vec<Option<String>> {
    namespaces.sort();
    namespaces.dedup();
    if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() }
}

/// Asks for what only the right CustomResourceDefinitions answer: a list by the selectable field.
async fn check_crds(client: &Client, namespaces: &[Option<String>]) -> Result<(), Error> {
    for namespace in namespaces {
        let api: Api<Unfinished> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        match api.list(&ListParams::default().fields(SELECTOR).limit(1)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => {
                return Err(Error::Crds { source: kube::Error::Api(status) });
            }
            Err(error) => return Err(Error::Api(error)),
        }
    }
    Ok(())
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    tokio::signal::unix::signal(kind).map_err(Error::Signals)
}
