//! Reconciles Subscribers.
//!
//! [`watching`] watches Subscribers, and [`referents`] watches the Secrets and ConfigMaps that Subscribers name.
//! [`reconcile_queue`] decides which Subscriber is next, and [`reconcile`] makes one pass over it. A pass checks what
//! the Subscriber's events depend on ([`check`], [`validation`]), sends a test event if an annotation requests one
//! ([`test_event`]), opens or closes the Subscriber's lane in the engine, and writes its findings into the status
//! ([`status`], [`event_publisher`]). [`account_tokens`] gets client assertions from the API server. While a pass takes long, [`progress_statuses`] names its step there.
//!
//! Which part opens and closes a lane: [`reconcile`] decides at the end of a pass whether the Subscriber's events may
//! be sent, or which gate holds them. [`member`] corrects that decision by what has happened since the pass started (a
//! 410, a newer spec). Only [`roster`] sends the `LaneUpdate` to the engine. The roster also closes the lane of a
//! Subscriber that is new, has a new spec or was deleted ([`watched_subscribers`] reports these changes), or whose
//! changed spec a pass starts to check ([`pass`]). It also sends each pause that a pass found or [`reports`] received.
//!
//! Only [`status_store`] writes a Subscriber's status. [`reports`] and [`health_board`] report how its deliveries go.

mod account_tokens;
mod check;
mod client_authentication;
mod consent;
mod event_publisher;
mod headers;
mod health_board;
mod member;
mod object_name;
mod pass;
mod prerequisites;
mod progress;
mod progress_statuses;
mod reconcile;
mod reconcile_queue;
mod reconcile_requests;
mod referents;
mod referrers;
mod reports;
mod resolve;
mod roster;
mod secrets;
mod status;
mod status_cell;
mod status_store;
mod step;
mod stored_subscriber;
mod test_event;
mod times;
mod token_hint;
mod unresolved;
mod validation;
mod watch_config;
mod watched_subscribers;
mod watching;

use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;

pub use self::resolve::TargetResolver;
use self::{
    check::Checker, event_publisher::EventPublisher, progress_statuses::ProgressStatuses, reconcile::Reconciler,
    reports::Reports, roster::Roster, status_store::StatusStore, watching::Watching,
};
use crate::{
    cluster::SingleTry,
    contract::{LaneUpdate, Report},
    metrics::Metrics,
    ownership::Mandate,
};

/// The parts that reconcile Subscribers. Run each of its futures in its own task.
pub struct Subscribers {
    reader: Client,
    metrics: Metrics,
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    reconciler: Arc<Reconciler>,
    progress: Arc<ProgressStatuses>,
}

impl Subscribers {
    /// Watches objects and publishes Events with `reader`, and writes statuses with `writer`. Sends `updates` to the
    /// engine.
    pub fn new(
        reader: Client,
        writer: SingleTry,
        resolver: TargetResolver,
        mandate: Mandate,
        metrics: Metrics,
        updates: mpsc::UnboundedSender<LaneUpdate>,
    ) -> Self {
        let roster = Arc::new(Roster::new(updates));
        let publisher = EventPublisher::start(reader.clone(), metrics.clone());
        let statuses = StatusStore::new(writer, roster.clone(), publisher, mandate.clone(), metrics.clone());
        let statuses = Arc::new(statuses);
        let counted = roster.clone();
        metrics.count_statuses_with(move || counted.count_statuses());
        let origin = resolver.origin();
        let progress = ProgressStatuses::new(roster.clone(), statuses.clone(), mandate.clone(), origin.clone());
        let checker = Checker::new(resolver, mandate.clone(), metrics.clone());
        let reconciler = Arc::new(Reconciler::new(roster.clone(), statuses.clone(), checker, mandate, origin));
        Self { reader, metrics, roster, statuses, reconciler, progress: Arc::new(progress) }
    }

    /// Watches the Secrets and ConfigMaps of one namespace (None: of all namespaces), also while this operator is a
    /// standby.
    pub fn watch_referents(&self, namespace: Option<String>) -> impl Future<Output = ()> + Send + use<> {
        referents::watch_referents(self.reader.clone(), self.roster.clone(), namespace, self.metrics.clone())
    }

    /// Processes the engine's reports until the engine stops.
    pub fn receive(&self, reports: mpsc::UnboundedReceiver<Report>) -> impl Future<Output = ()> + Send + use<> {
        Reports::new(self.roster.clone(), self.statuses.clone()).run(reports)
    }

    /// Reconciles the Subscribers of these namespaces until `shutdown` completes: see [`Watching::run`].
    pub fn run<S: Fn() + Send, E: Future<Output = ()> + Send>(
        &self,
        namespaces: Vec<Option<String>>,
        synced: S,
        shutdown: E,
    ) -> impl Future<Output = ()> + Send + use<S, E> {
        let (roster, reconciler) = (self.roster.clone(), self.reconciler.clone());
        let watching = Watching::new(roster, reconciler, self.progress.clone(), self.metrics.clone());
        watching.run(self.reader.clone(), namespaces, synced, shutdown)
    }
}
