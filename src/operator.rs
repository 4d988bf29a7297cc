//! Starts and stops the parts of the operator, in order: build, stand by, run, stop.

mod crds;
mod error;
mod leader_election;
mod process;
mod settings;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use kube::{Client, Config};
use tidings_delivery::egress::load_public_roots;
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
    },
    ownership::Mandate,
    subscribers::{Subscribers, TargetResolver},
};

/// At the end, looks at Subscribers that are under way have so long: the longest `timeoutSeconds` of a test that was sent, and
/// the time to write what came of it.
const LAST_PASSES: Duration = Duration::from_secs(65);

/// The most Secrets and ConfigMaps that looks at Subscribers read at once. Many more looks may be under way, since most of
/// them wait for endpoints.
const CONCURRENT_READS: usize = 64;

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
    process::raise_descriptor_limit(settings.max_in_flight);
    let mut signals = Signals::receive()?;
    let Some(shared) = Shared::lay(&settings, &mut signals).await? else { return Ok(()) };
    let (mut parts, channels) = Parts::build(shared, settings);
    if !parts.stand_by(&mut signals).await? {
        parts.stop().await;
        return Ok(());
    }
    let result = parts.run(channels, &mut signals).await;
    parts.stop().await;
    info!("tidings ends");
    result
}

/// What all parts stand on.
struct Shared {
    /// The namespaces to watch (None: all).
    namespaces: Vec<Option<String>>,
    /// Lists, watches and reads.
    reader: Client,
    /// Writes outcomes and what becomes of Subscribers.
    writer: SingleTry,
    /// Renews the Lease.
    of_lease: SingleTry,
    metrics: Metrics,
    readiness: Readiness,
    /// What works until the end, and ends before only by a bug.
    tasks: JoinSet<()>,
}

impl Shared {
    /// Begins to serve health and metrics, and checks that the API server serves what the operator needs. None: a signal came
    /// before that was known.
    async fn lay(settings: &Settings, signals: &mut Signals) -> Result<Option<Self>, Error> {
        let for_health = listen("--health-addr", settings.health_addr).await?;
        let for_metrics = listen("--admin-addr", settings.admin_addr).await?;
        load_public_roots()?;
        let config = Config::infer().await?;
        let reader = cluster::reader(&config).map_err(Error::Client)?;
        // Renewals wait behind nothing else.
        let of_lease = cluster::single_try(&config).map_err(Error::Client)?;
        let namespaces = settings.namespaces();
        let (metrics, readiness) = (Metrics::default(), Readiness::of_parts(namespaces.len() + 1));
        let mut tasks = JoinSet::new();
        // Before the first request to the API server, so that probes are answered meanwhile.
        tasks.spawn(admin::serve(for_health, AdminEndpoint::Health(readiness.clone())));
        tasks.spawn(admin::serve(for_metrics, AdminEndpoint::Metrics(metrics.clone())));
        let checked = async {
            crds::check(&reader, &namespaces).await?;
            // Outcomes are written again by the writer itself, which knows when not to.
            cluster::writer(&config).await.map_err(Error::Client)
        };
        let writer = tokio::select! {
            writer = checked => writer?,
            () = signals.next() => return Ok(None),
        };
        info!(version = env!("CARGO_PKG_VERSION"), admin = %settings.admin_addr, namespaces = %shown(&namespaces), "tidings starts");
        Ok(Some(Self { namespaces, reader, writer, of_lease, metrics, readiness, tasks }))
    }
}

/// The parts of the operator, from the first that works to the last that ends.
struct Parts {
    shared: Shared,
    settings: Settings,
    leader_election: LeaderElection,
    mandate: Mandate,
    subscribers: Subscribers,
    /// Where the engine reports to the Subscribers' side.
    reports: mpsc::UnboundedSender<Report>,
    /// Whether the operator is to end.
    stopping: watch::Sender<bool>,
}

/// What waits for the engine and the Subscribers' side until they run.
struct Channels {
    updates: mpsc::UnboundedReceiver<LaneUpdate>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Parts {
    /// Makes the parts that a standby has, too: it watches what Subscribers refer to, and knows no Subscriber.
    fn build(mut shared: Shared, settings: Settings) -> (Self, Channels) {
        let leader_election = LeaderElection::begin(settings.lease.as_ref(), &shared.of_lease);
        let stopping = watch::Sender::new(false);
        let (updates_to, updates) = mpsc::unbounded_channel();
        let (reports, reports_from) = mpsc::unbounded_channel();
        let bounded = cluster::bounded(&shared.reader, CONCURRENT_READS);
        let consent = settings.require_secret_consent;
        let resolver = TargetResolver::new(bounded, settings.egress(), settings.origin.clone(), consent);
        let mandate = Mandate::new(leader_election.leadership(), stopping.subscribe());
        let (reader, writer, metrics) = (shared.reader.clone(), shared.writer.clone(), shared.metrics.clone());
        let subscribers = Subscribers::new(reader, writer, resolver, mandate.clone(), metrics, updates_to);
        for namespace in &shared.namespaces {
            shared.tasks.spawn(subscribers.watch_referents(namespace.clone()));
        }
        let channels = Channels { updates, reports: reports_from };
        (Self { shared, settings, leader_election, mandate, subscribers, reports, stopping }, channels)
    }

    /// Stands by until this operator leads (true), or is to end before that (false).
    async fn stand_by(&mut self, signals: &mut Signals) -> Result<bool, Error> {
        if !self.leader_election.has_lease() {
            return Ok(true);
        }
        self.shared.readiness.stands_by(true);
        let gained = self.leader_election.gained(signals.next()).await?;
        self.shared.readiness.stands_by(!gained);
        Ok(gained)
    }

    /// Works as the leader, from lists of this moment, until a signal comes or a part ends that must not; then lets what is
    /// under way end.
    async fn run(&mut self, channels: Channels, signals: &mut Signals) -> Result<(), Error> {
        self.shared.metrics.leads();
        self.shared.tasks.spawn(self.subscribers.receive(channels.reports));
        let engine = self.start_notifications();
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
        let engine = engine.run(Notifications::watch(&reader, &namespaces), channels.updates, listed);
        // Not in a task of its own: see `in_workers`.
        let ((), result) = tokio::join!(engine, self.until_end(passes, signals));
        result
    }

    /// Starts what replays and deletes Notifications, and makes the engine that sends them.
    fn start_notifications(&mut self) -> Engine<Notifications> {
        let Shared { namespaces, reader, writer, metrics, .. } = &self.shared;
        let retention = Retention::new(writer.clone(), metrics.clone(), self.settings.generated_ttl);
        let (finished_count, handled) = (retention.finished_count(), Arc::new(HandledReplays::default()));
        let outcomes = StatusWriter::new(writer.clone(), metrics.clone());
        let source = Notifications::new(outcomes, retention.handle(), handled.clone());
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

    /// Waits for the end, and then for the `passes` at Subscribers that are under way.
    async fn until_end(&mut self, mut passes: JoinSet<()>, signals: &mut Signals) -> Result<(), Error> {
        let result = tokio::select! {
            () = signals.next() => Ok(()),
            _ = self.shared.tasks.join_next() => Err(Error::PartEnded),
            _ = passes.join_next() => Err(Error::PartEnded),
            error = self.leader_election.lost() => Err(error),
        };
        let _ = self.stopping.send(true);
        // A test that was sent is told of, and what a look found is written.
        let last_passes = async { while passes.join_next().await.is_some() {} };
        if timeout(LAST_PASSES, last_passes).await.is_err() {
            warn!("a look at a Subscriber takes too long to wait for");
            passes.shutdown().await;
        }
        result
    }

    /// Returns when the operator is to end.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mandate = self.mandate.clone();
        async move { mandate.stopping().await }
    }

    /// Gives the Lease back, while health is still served, and ends what is left.
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
