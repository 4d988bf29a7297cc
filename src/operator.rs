//! Starts and stops the parts of the operator, in order.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::HeaderValue;
use kube::{Api, Client, Config, api::ListParams, core::PartialObjectMeta};
use tidings_api::Subscriber;
use tidings_delivery::{
    egress::{Cidr, ClusterDomain, Dns, Egress, HostPattern, Nat64Prefix, NoRoots, Policy, load_public_roots},
    oauth::TokenCache,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind},
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    admin::{self, Answers, Readiness},
    cluster::{self, call::in_namespace},
    engine::{Notifications, attempt::Attempts},
    metrics::Metrics,
    notifications::{
        record::StatusWriter,
        replay::Replays,
        replayed::HandledReplays,
        retention::Retention,
        wire::{SELECTOR, Unfinished},
    },
    ownership::{Candidate, Leadership},
    subscribers::{Announcer, Subscribers, registry::Registry, resolve::Resolver},
};

/// At the end, looks at Subscribers that are under way have so long: the longest `timeoutSeconds` of a test that was sent, and
/// the time to write what came of it.
const LAST_LOOKS: Duration = Duration::from_secs(65);

/// The most Secrets and ConfigMaps that looks at Subscribers read at once. Many more looks may be under way, since most of
/// them wait for endpoints.
const LOOKS_READ_AT_ONCE: usize = 64;

/// What an administrator decides.
#[derive(Debug)]
pub struct Settings {
    /// The namespaces to watch; none means all.
    pub watch_namespaces: Vec<String>,
    /// Ranges of addresses that may be dialled besides the public ones.
    pub egress_allow_cidrs: Vec<Cidr>,
    /// Hosts that may be dialled wherever their names lead.
    pub egress_allow_hosts: Vec<HostPattern>,
    /// Ranges of addresses that are never dialled.
    pub egress_deny_cidrs: Vec<Cidr>,
    /// The ports that may be dialled; none means all.
    pub egress_allow_ports: Vec<u16>,
    /// Below these prefixes, NAT64 translators of this network put IPv4 addresses.
    pub egress_nat64_prefixes: Vec<Nat64Prefix>,
    /// The DNS domain of the cluster.
    pub cluster_domain: ClusterDomain,
    /// The name servers to ask; none means those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// The value of `WebHook-Request-Origin`.
    pub origin: HeaderValue,
    /// Whether a Secret's values are sent only to hosts that its annotation allows.
    pub require_secret_consent: bool,
    /// The namespace and name of the Lease that the operator has to hold; none: it is alone.
    pub lease: Option<(String, String)>,
    /// Seconds that finished Notifications made with generateName are kept for; 0: for good.
    pub generated_ttl: u32,
    /// Where the metrics are served.
    pub admin_addr: SocketAddr,
    /// Where health and readiness are served.
    pub health_addr: SocketAddr,
    /// Attempts under way at once, over all Subscribers.
    pub max_in_flight: usize,
    /// Bytes of events in memory: half for those that are sent, half for untried ones.
    pub event_bytes: usize,
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
    #[error("the CustomResourceDefinitions of {group} are missing or too old: apply the crds/ of this version ({source})", group = tidings_api::GROUP)]
    Crds {
        /// What the API server said.
        source: kube::Error,
    },
    /// The certificate authorities that an administrator named cannot be read.
    #[error(transparent)]
    Roots(#[from] NoRoots),
    /// An address of the operator's own cannot be used.
    #[error("{flag} {address}: {source}")]
    Address {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A part that works until the end has ended: there is a bug, and its panic is in the log.
    #[error("a part of the operator ended by itself; the log says why")]
    PartEnded,
    /// Another operator took over.
    #[error("{holder} leads now: this operator ends, so that it starts anew and stands by")]
    LeaseLost {
        /// Who leads.
        holder: String,
    },
    /// Signals cannot be received.
    #[error("receiving signals: {0}")]
    Signals(#[source] io::Error),
}

/// Does `work` in one of so many threads, beside the tasks that it spawns: from the main thread, the queue would wake another
/// one for each delivery. A panic of `work` goes on in the caller. An error says that the system lacks what
/// all input and output waits on.
pub fn in_workers<T: Send + 'static>(threads: usize, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    // A JoinError itself is never told: it quotes the panic.
    runtime.block_on(runtime.spawn(work)).or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// Runs the operator until it is told to end (SIGTERM or SIGINT).
pub async fn run(settings: Settings) -> Result<(), Error> {
    raise_descriptor_limit(settings.max_in_flight);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let for_health = listen("--health-addr", settings.health_addr).await?;
    let for_metrics = listen("--admin-addr", settings.admin_addr).await?;
    load_public_roots()?;
    let config = Config::infer().await?;
    let client = cluster::reader(&config).map_err(Error::Client)?;
    // Renewals wait behind nothing else.
    let of_lease = cluster::single_try(&config).map_err(Error::Client)?;
    let namespaces = scopes(settings.watch_namespaces);
    let metrics = Metrics::default();
    let readiness = Readiness::of_parts(namespaces.len() + 1);
    let mut parts = JoinSet::new();
    // Before the first request to the API server, so that probes are answered meanwhile.
    parts.spawn(admin::serve(for_health, Answers::Health(readiness.clone())));
    parts.spawn(admin::serve(for_metrics, Answers::Metrics(metrics.clone())));
    let checked = async {
        check_crds(&client, &namespaces).await?;
        // Outcomes are written again by the writer itself, which knows when not to.
        cluster::writer(&config).await.map_err(Error::Client)
    };
    let writer = tokio::select! {
        writer = checked => writer?,
        () = either(&mut terminated, &mut interrupted) => return Ok(()),
    };
    info!(version = env!("CARGO_PKG_VERSION"), admin = %settings.admin_addr, namespaces = %shown(&namespaces), "tidings starts");
    let candidate = settings.lease.map(|(namespace, name)| Candidate::new(&of_lease, &namespace, &name, identity()));
    let candidate = candidate.map(Arc::new);
    let leadership = candidate.as_ref().map_or_else(Leadership::alone, |candidate| candidate.leadership());
    // In a task of its own: what is in flight at the end, too, ends under the Lease.
    let standing = candidate.clone();
    let mut lost = tokio::spawn(async move {
        match standing {
            Some(candidate) => candidate.run().await,
            None => std::future::pending().await,
        }
    });
    let (stop, stopped) = watch::channel(false);
    let (updates_to, updates) = mpsc::unbounded_channel();
    let (reports_to, reports) = mpsc::unbounded_channel();
    let policy = Policy::allowing(settings.egress_allow_cidrs)
        .allowing_hosts(settings.egress_allow_hosts)
        .denying(settings.egress_deny_cidrs)
        .allowing_ports(settings.egress_allow_ports)
        .translating(settings.egress_nat64_prefixes)
        .in_cluster(settings.cluster_domain.clone());
    let dns = Dns::new(settings.dns_servers, settings.cluster_domain);
    let subscribers = Arc::new(Subscribers {
        client: client.clone(),
        writer: writer.clone(),
        resolver: Resolver {
            client: cluster::bounded(&client, LOOKS_READ_AT_ONCE),
            egress: Egress::with_dns(policy, dns),
            tokens: TokenCache::default(),
            origin: settings.origin,
            require_secret_consent: settings.require_secret_consent,
        },
        registry: Arc::new(Registry::new(updates_to)),
        announcer: Announcer::start(client.clone()),
        vitals: Mutex::default(),
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        stopping: stopped.clone(),
    });
    for namespace in &namespaces {
        parts.spawn(subscribers.clone().watch_referents(namespace.clone()));
    }
    if let Some(candidate) = &candidate {
        readiness.stands_by(true);
        let ends = either(&mut terminated, &mut interrupted);
        if !stand_by(leadership.clone(), &mut lost, ends).await? {
            resign(lost, candidate).await;
            return Ok(());
        }
        readiness.stands_by(false);
    }
    metrics.leads();
    let stopping = stopped.clone();
    let stopped = move || {
        let mut stopped = stopped.clone();
        async move { drop(stopped.wait_for(|stop| *stop).await) }
    };
    let (signals_to, signals) = mpsc::unbounded_channel();
    let retention = Retention::new(writer.clone(), metrics.clone(), settings.generated_ttl);
    let stock = retention.stock();
    let replays = Arc::new(HandledReplays::default());
    let attempts = Attempts {
        writer: StatusWriter::new(writer.clone(), metrics.clone()),
        reports: reports_to,
        signals: signals_to,
        stopping,
        leadership,
        retention: retention.handle(),
        replays: replays.clone(),
    };
    let (max_in_flight, event_bytes) = (settings.max_in_flight, settings.event_bytes);
    let notifications = Notifications::new(attempts, signals, metrics.clone(), &namespaces, max_in_flight, event_bytes);

    let mut looks = JoinSet::new();
    parts.spawn(subscribers.clone().report(reports));
    parts.spawn(retention.run(namespaces.clone(), stopped()));
    for namespace in namespaces.clone() {
        let (writer, metrics, stock) = (writer.clone(), metrics.clone(), stock.clone());
        let replays = Replays::new(client.clone(), writer, metrics, stock, replays.clone());
        parts.spawn(replays.run(namespace, stopped()));
    }
    let ready = readiness.clone();
    looks.spawn(subscribers.clone().run(namespaces.clone(), move || ready.part_is_ready(), stopped()));
    let queue = notifications.run(&client, &namespaces, updates, || readiness.part_is_ready(), stopped());
    let end = async {
        let result = tokio::select! {
            () = either(&mut terminated, &mut interrupted) => Ok(()),
            _ = parts.join_next() => Err(Error::PartEnded),
            _ = looks.join_next() => Err(Error::PartEnded),
            holder = &mut lost => Err(lost_to(holder)),
        };
        let _ = stop.send(true);
        // A test that was sent is told of, and what a look found is written.
        let last_looks = async { while looks.join_next().await.is_some() {} };
        if timeout(LAST_LOOKS, last_looks).await.is_err() {
            warn!("a look at a Subscriber takes too long to wait for");
            looks.shutdown().await;
        }
        result
    };
    let ((), result) = tokio::join!(queue, end);
    if let Some(candidate) = candidate {
        resign(lost, &candidate).await;
    }
    info!("tidings ends");
    result
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    admin::bind(address).await.map_err(|source| Error::Address { flag, address, source })
}

/// Stands by until this operator leads (true) or is to end before (false).
async fn stand_by(
    mut leadership: Leadership,
    lost: &mut JoinHandle<String>,
    ends: impl Future<Output = ()>,
) -> Result<bool, Error> {
    tokio::select! {
        () = leadership.regained() => Ok(true),
        // It returns only after it led.
        holder = lost => Err(lost_to(holder)),
        () = ends => Ok(false),
    }
}

/// Gives the Lease back, after the last renewal.
async fn resign(lost: JoinHandle<String>, candidate: &Candidate) {
    if !lost.is_finished() {
        lost.abort();
        drop(lost.await);
    }
    candidate.release().await;
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn lost_to(holder: Result<String, JoinError>) -> Error {
    holder.map_or(Error::PartEnded, |holder| Error::LeaseLost { holder })
}

/// Names this process among all that want the Lease, those before it in the same Pod included.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "tidings".into());
    format!("{host:.200}_{:016x}", rand::random::<u64>())
}

/// What to watch: the namespaces given, each once, or all (None).
fn scopes(mut namespaces: Vec<String>) -> Vec<Option<String>> {
    namespaces.sort();
    namespaces.dedup();
    if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() }
}

fn shown(namespaces: &[Option<String>]) -> String {
    let names: Option<Vec<_>> = namespaces.iter().map(Option::as_deref).collect();
    names.map_or_else(|| "all".into(), |names| names.join(","))
}

/// Asks for what only the right CustomResourceDefinitions answer: a list by the selectable field. One namespace that
/// answers is enough; where the operator may not list, another one is asked.
async fn check_crds(client: &Client, namespaces: &[Option<String>]) -> Result<(), Error> {
    let mut refused = None;
    for namespace in namespaces {
        let first = ListParams::default().limit(1);
        let notifications: Api<Unfinished> = in_namespace(client, namespace.as_deref());
        let subscribers: Api<PartialObjectMeta<Subscriber>> = in_namespace(client, namespace.as_deref());
        let answered = match served(notifications.list(&first.clone().fields(SELECTOR)).await) {
            Ok(()) => served(subscribers.list(&first).await),
            error => error,
        };
        match answered {
            Err(Error::Api(kube::Error::Api(status))) if status.code == 403 => {
                let namespace = namespace.as_deref().unwrap_or("(all)");
                warn!(
                    namespace,
                    "the operator may not list Subscribers and Notifications in this namespace and does not serve it: grant it the chart's Role there, or remove the namespace from --watch-namespace"
                );
                refused = Some(Error::Api(kube::Error::Api(status)));
            }
            answered => return answered,
        }
    }
    refused.map_or(Ok(()), Err)
}

fn served<T>(listed: Result<T, kube::Error>) -> Result<(), Error> {
    match listed {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => {
            Err(Error::Crds { source: kube::Error::Api(status) })
        }
        Err(error) => Err(Error::Api(error)),
    }
}

/// Allows this process as many file descriptors as the system lets it have; a connection takes one.
fn raise_descriptor_limit(max_in_flight: usize) {
    /// Watches, idle connections, files.
    const BESIDES: u64 = 512;
    let needed = u64::try_from(max_in_flight).unwrap_or(u64::MAX).saturating_add(BESIDES);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => warn!(
            limit,
            needed,
            "the limit of open files is too low for --max-in-flight: raise it (ulimit -Hn), or lower --max-in-flight"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}

fn signal(kind: SignalKind) -> Result<Signal, Error> {
    tokio::signal::unix::signal(kind).map_err(Error::Signals)
}
