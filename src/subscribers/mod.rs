//! Watches Subscribers and all that they name ([`watching`], [`referents`]) and reconciles each in its turn ([`reconcile_queue`],
//! [`reconcile`]): checks what its events depend on ([`check`], [`validation`]), sends a test event if an annotation requests
//! one ([`test_event`]), opens or closes it for the engine, and writes what was found into the status
//! ([`status`], [`publish`]).
//!
//! Who opens and closes: [`reconcile`] decides at the end of a pass whether the Subscriber's events may be sent, or which gate holds
//! them, and [`member`] corrects that by what has happened since the pass began (a 410, a newer spec). [`roster`] alone sends the
//! `LaneUpdate` to the engine. Besides, the roster closes a Subscriber that is new, that has a new spec, that was deleted
//! ([`watched_subscribers`] reports these) or whose changed spec a pass begins to check ([`pass`]), and sends each pause, which a pass found or
//! [`reports`] received.
//!
//! [`status_store`] is the one road into a Subscriber's status; [`reports`] and [`health_board`] say how its deliveries go.

mod check;
mod consent;
mod event_publisher;
mod health_board;
mod initial_status;
mod member;
mod pass;
mod prerequisites;
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
    check::Checker, event_publisher::EventPublisher, initial_status::InitialStatuses, reconcile::Reconciler,
    reports::Reports, roster::Roster, status_store::StatusStore, watching::Watching,
};
use crate::{
    cluster::SingleTry,
    contract::{LaneUpdate, Report},
    metrics::Metrics,
    ownership::Mandate,
};

/// The parts that keep up with Subscribers. Each of its futures is a task of its own.
pub struct Subscribers {
    reader: Client,
    metrics: Metrics,
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    reconciler: Arc<Reconciler>,
    initial_statuses: Arc<InitialStatuses>,
}

impl Subscribers {
    /// Watches and publishes Events by `reader`, and writes statuses by `writer`. Sends its updates to the engine.
    pub fn new(
        reader: Client,
        writer: SingleTry,
        resolver: TargetResolver,
        mandate: Mandate,
        metrics: Metrics,
        updates: mpsc::UnboundedSender<LaneUpdate>,
    ) -> Self {
        let roster = Arc::new(Roster::new(updates));
        let publisher = EventPublisher::start(reader.clone());
        let statuses = Arc::new(StatusStore::new(writer, roster.clone(), publisher, mandate.clone()));
        let origin = resolver.origin();
        let initial_statuses = Arc::new(InitialStatuses::new(roster.clone(), statuses.clone(), origin.clone()));
        let checker = Checker::new(resolver, mandate.clone());
        let reconciler = Arc::new(Reconciler::new(roster.clone(), statuses.clone(), checker, mandate, origin));
        Self { reader, metrics, roster, statuses, reconciler, initial_statuses }
    }

    /// Watches the Secrets and ConfigMaps of one namespace (None: of all), also while this operator stands by.
    pub fn watch_referents(&self, namespace: Option<String>) -> impl Future<Output = ()> + Send + use<> {
        referents::watch_referents(self.reader.clone(), self.roster.clone(), namespace)
    }

    /// Takes in what the engine reports, until the engine ends.
    pub fn receive(&self, reports: mpsc::UnboundedReceiver<Report>) -> impl Future<Output = ()> + Send + use<> {
        Reports::new(self.roster.clone(), self.statuses.clone()).run(reports)
    }

    /// Reconciles the Subscribers of these namespaces until `shutdown`: see [`Watching::run`].
    pub fn run<S: Fn() + Send, E: Future<Output = ()> + Send>(
        &self,
        namespaces: Vec<Option<String>>,
        synced: S,
        shutdown: E,
    ) -> impl Future<Output = ()> + Send + use<S, E> {
        let (roster, reconciler) = (self.roster.clone(), self.reconciler.clone());
        let watching = Watching::new(roster, reconciler, self.initial_statuses.clone(), self.metrics.clone());
        watching.run(self.reader.clone(), namespaces, synced, shutdown)
    }
}
