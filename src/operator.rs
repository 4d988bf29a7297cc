//! Starts and stops the parts of the operator in order: build, stand by, run, stop.

mod crds;
mod error;
mod leader_election;
mod permissions;
mod process;
mod settings;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use kube::{Client, Config};
use tidings_delivery::egress::{Egress, load_public_roots};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

pub use self::{error::Error, settings::Settings};
use self::{leader_election::LeaderElection, process::Signals};
use crate::{
    admin::{self, AdminEndpoint, Readiness},
    cluster::{self, SingleTry},
    contract::{LaneUpdate, Report},
    engine::{Engine, Surroundings},
    metrics::Metrics,
    notifications::{
        record::StatusWriter, replay::Replays, replayed::HandledReplays, retention::Retention, source::Notifications,
        unrecorded::Unrecorded,
    },
    ownership::Mandate,
    subscribers::{Subscribers, TargetResolver},
};

/// How long the operator waits for reconciles in progress when it stops: the longest `timeoutSeconds` of a test event
/// that was sent, plus the time to write its result.
const LAST_PASSES: Duration = Duration::from_secs(65);

/// How many Secrets and ConfigMaps reconciles read concurrently. Many more reconciles may be in progress, since most of
/// them wait for endpoints.
const CONCURRENT_READS: usize = 64;

/// Runs `work` in one of `threads` worker threads, next to the tasks that it spawns: from the main thread, the queue
/// would wake another thread for each delivery. A panic of `work` continues in the caller.
///
/// # Errors
/// When the system cannot provide an event loop for input and output.
pub fn in_workers<T: Send + 'static>(threads: usize, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    // The JoinError itself is never shown: it quotes the panic.
    runtime.block_on(runtime.spawn(work)).or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// Runs the operator until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> Result<(), Error> {
    process::raise_descriptor_limit(settings.max_in_flight);
    let mut signals = Signals::receive()?;
    load_public_roots()?;
    let egress = settings.egress()?;
    let Some(shared) = Shared::prepare(&settings, &mut signals).await? else { return Ok(()) };
    let (mut parts, channels) = Parts::build(shared, settings, egress);
    if !parts.stand_by(&mut signals).await? {
        parts.stop().await;
        return Ok(());
    }
    let result = parts.run(channels, &mut signals).await;
    parts.stop().await;
    info!("stopped");
    result
}

/// Checks that the API server serves the CustomResourceDefinitions, and that this account may do what the operator does in
/// these namespaces (none: in all) and, if there is one, with the Lease in this namespace and of this name.
pub async fn check(watch_namespaces: Vec<String>, lease: Option<(String, String)>) -> Result<(), Error> {
    let config = Config::infer().await?;
    let reader = cluster::reader(&config).map_err(Error::Client)?;
    let namespaces = settings::watched(&watch_namespaces);
    let lease = lease.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    // First, because without the right to list, nothing shows what the API server serves.
    permissions::check(&reader, &namespaces, lease).await?;
    crds::check(&reader, &namespaces).await
}

/// What all parts share.
struct Shared {
    /// The namespaces to watch (None: all).
    namespaces: Vec<Option<String>>,
    /// Lists, watches and reads.
    reader: Client,
    /// Writes the statuses of Notifications and Subscribers.
    writer: SingleTry,
    /// Renews the Lease.
    of_lease: SingleTry,
    metrics: Metrics,
    readiness: Readiness,
    /// Tasks that run until the operator stops. A task that ends earlier has a bug.
    tasks: JoinSet<()>,
}

impl Shared {
    /// Starts to serve health and metrics, and checks that the API server serves what the operator needs. Returns None
    /// if a signal came first.
    async fn prepare(settings: &Settings, signals: &mut Signals) -> Result<Option<Self>, Error> {
        let for_health = listen("--health-addr", settings.health_addr).await?;
        let for_metrics = listen("--admin-addr", settings.admin_addr).await?;
        let config = Config::infer().await?;
        let reader = cluster::reader(&config).map_err(Error::Client)?;
        // Renewals of the Lease never wait for other requests.
        let of_lease = cluster::single_try(&config).map_err(Error::Client)?;
        let namespaces = settings::watched(&settings.watch_namespaces);
        let (metrics, readiness) =
            (Metrics::new(settings.subscriber_metrics), Readiness::of_parts(namespaces.len() + 1));
        let mut tasks = JoinSet::new();
        // Starts before the first request to the API server, so that the kubelet's probes get a response.
        tasks.spawn(admin::serve(for_health, AdminEndpoint::Health(readiness.clone())));
        tasks.spawn(admin::serve(for_metrics, AdminEndpoint::Metrics(metrics.clone())));
        let checked = async {
            crds::check(&reader, &namespaces).await?;
            // The writer itself retries writes: it knows when it must not.
            cluster::writer(&config).await.map_err(Error::Client)
        };
        let writer = tokio::select! {
            writer = checked => writer?,
            () = signals.next() => return Ok(None),
        };
        info!(version = env!("CARGO_PKG_VERSION"), admin = %settings.admin_addr, namespaces = %shown(&namespaces), "starting");
        Ok(Some(Self { namespaces, reader, writer, of_lease, metrics, readiness, tasks }))
    }
}

/// The parts of the operator, in the order in which they start.
struct Parts {
    shared: Shared,
    settings: Settings,
    leader_election: LeaderElection,
    mandate: Mandate,
    subscribers: Subscribers,
    /// Where the engine sends its reports to `subscribers`.
    reports: mpsc::UnboundedSender<Report>,
    /// Whether the operator is stopping.
    stopping: watch::Sender<bool>,
}

/// The channels between the engine and `subscribers`, until both run.
struct Channels {
    updates: mpsc::UnboundedReceiver<LaneUpdate>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Parts {
    /// Builds the parts that a standby needs too: a standby watches Secrets and ConfigMaps, and no Subscribers.
    fn build(mut shared: Shared, settings: Settings, egress: Egress) -> (Self, Channels) {
        let leader_election = LeaderElection::begin(settings.lease.as_ref(), &shared.of_lease, &shared.metrics);
        let stopping = watch::Sender::new(false);
        let (updates_to, updates) = mpsc::unbounded_channel();
        let (reports, reports_from) = mpsc::unbounded_channel();
        let bounded = cluster::bounded(&shared.reader, CONCURRENT_READS);
        let consent = settings.require_secret_consent;
        let (writer, egress) = (shared.writer.clone(), egress.observed_by(Arc::new(shared.metrics.clone())));
        let resolver = TargetResolver::new(bounded, writer, egress, settings.origin.clone(), consent);
        let mandate = Mandate::new(leader_election.leadership(), stopping.subscribe());
        let (reader, writer, metrics) = (shared.reader.clone(), shared.writer.clone(), shared.metrics.clone());
        let subscribers = Subscribers::new(reader, writer, resolver, mandate.clone(), metrics, updates_to);
        for namespace in &shared.namespaces {
            shared.tasks.spawn(subscribers.watch_referents(namespace.clone()));
        }
        let channels = Channels { updates, reports: reports_from };
        (Self { shared, settings, leader_election, mandate, subscribers, reports, stopping }, channels)
    }

    /// Stands by until this operator leads (true), or must stop before that (false).
    async fn stand_by(&mut self, signals: &mut Signals) -> Result<bool, Error> {
        if !self.leader_election.has_lease() {
            return Ok(true);
        }
        self.shared.readiness.stands_by(true);
        let gained = self.leader_election.gained(signals.next()).await?;
        self.shared.readiness.stands_by(!gained);
        Ok(gained)
    }

    /// Works as the leader, from fresh lists, until a signal comes or a part ends that must not. Then waits for the
    /// work in progress.
    async fn run(&mut self, channels: Channels, signals: &mut Signals) -> Result<(), Error> {
        self.shared.metrics.leading(true);
        self.shared.tasks.spawn(self.subscribers.receive(channels.reports));
        let unrecorded = Arc::new(Unrecorded::new(self.shared.writer.clone().into(), self.shared.metrics.clone()));
        let engine = self.start_notifications(&unrecorded);
        let (reader, namespaces) = (self.shared.reader.clone(), self.shared.namespaces.clone());
        let (of_engine, of_passes) = (self.shared.readiness.clone(), self.shared.readiness.clone());
        let mut passes = JoinSet::new();
        let synced = move || of_passes.part_is_ready();
        passes.spawn(self.subscribers.run(namespaces.clone(), synced, self.stopped()));
        let mandate = self.mandate.clone();
        let listed = || {
            mandate.leadership().all_are_listed();
            of_engine.part_is_ready();
        };
        let seen = Notifications::watch(&reader, &namespaces, &unrecorded, &self.shared.metrics);
        let engine = engine.run(seen, channels.updates, listed);
        // Not in a separate task: see `in_workers`.
        let ((), result) = tokio::join!(engine, self.until_end(passes, signals));
        result
    }

    /// Starts the tasks that replay and delete Notifications, and makes the engine that sends them.
    fn start_notifications(&mut self, unrecorded: &Arc<Unrecorded>) -> Engine<Notifications> {
        let Shared { namespaces, reader, writer, metrics, .. } = &self.shared;
        let retention = Retention::new(writer.clone(), metrics.clone(), self.settings.generated_ttl);
        let (finished_count, handled) = (retention.finished_count(), Arc::new(HandledReplays::default()));
        let outcomes = StatusWriter::new(writer.clone(), metrics.clone());
        let source = Notifications::new(outcomes, retention.handle(), handled.clone(), unrecorded.clone());
        let surroundings = Surroundings::new(self.mandate.clone(), self.reports.clone(), metrics.clone());
        let engine = Engine::new(source, &self.settings.bounds(), namespaces, surroundings);
        let replays =
            || Replays::new(reader.clone(), writer.clone(), metrics.clone(), finished_count.clone(), handled.clone());
        let replays: Vec<_> = namespaces.iter().map(|of| replays().run(of.clone(), self.stopped())).collect();
        let retention = retention.run(namespaces.clone(), self.stopped());
        self.shared.tasks.spawn(retention);
        for replays in replays {
            self.shared.tasks.spawn(replays);
        }
        engine
    }

    /// Waits until the operator stops, and then for the `passes` over Subscribers in progress.
    async fn until_end(&mut self, mut passes: JoinSet<()>, signals: &mut Signals) -> Result<(), Error> {
        let result = tokio::select! {
            () = signals.next() => Ok(()),
            _ = self.shared.tasks.join_next() => Err(Error::PartEnded),
            _ = passes.join_next() => Err(Error::PartEnded),
            error = self.leader_election.lost() => Err(error),
        };
        let _ = self.stopping.send(true);
        // The result of a test event that was sent is written, and so is what a pass found.
        let last_passes = async { while passes.join_next().await.is_some() {} };
        if timeout(LAST_PASSES, last_passes).await.is_err() {
            warn!("stopped waiting for a reconcile of a Subscriber");
            passes.shutdown().await;
        }
        result
    }

    /// Returns when the operator must stop.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mandate = self.mandate.clone();
        async move { mandate.stopping().await }
    }

    /// Releases the Lease while health is still served, and stops the remaining tasks.
    async fn stop(self) {
        let Self { shared, leader_election, .. } = self;
        leader_election.resign().await;
        drop(shared);
    }
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    admin::bind(address).await.map_err(|source| Error::Address { flag, address, source })
}

fn shown(namespaces: &[Option<String>]) -> String {
    let names: Option<Vec<_>> = namespaces.iter().map(Option::as_deref).collect();
    names.map_or_else(|| "all".into(), |names| names.join(","))
}
