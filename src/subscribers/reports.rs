//! Processes the engine's reports, and writes what they say about a Subscriber into its status.

use std::{collections::HashSet, sync::Arc, time::Instant};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{AttemptReason, LastFailure, SubscriberReason as Reason};
use tidings_queue::{SpecVersion, SubscriberKey};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tracing::debug;

use super::{
    health_board::{HealthBoard, SubscriberHealth},
    reconcile_requests::ReconcileCause,
    roster::Roster,
    status::{Finding, Findings},
    status_store::StatusStore,
    times::full_seconds,
};
use crate::{
    cluster::call::plain,
    contract::{LANES_EVERY, Report},
};

/// The maximum number of concurrent status writes for delivery health. A slow API server slows these writes down.
const WRITING: usize = 32;

/// The receiver of the engine's reports.
pub(super) struct Reports {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    health_board: HealthBoard,
    /// Writes of pauses and 410s. The outcomes of attempts wait for them.
    storing: JoinSet<()>,
    /// Writes of delivery health.
    writing: JoinSet<()>,
}

impl Reports {
    pub(super) fn new(roster: Arc<Roster>, statuses: Arc<StatusStore>) -> Self {
        Self {
            roster,
            statuses,
            health_board: HealthBoard::default(),
            storing: JoinSet::new(),
            writing: JoinSet::new(),
        }
    }

    /// Processes `reports` until the engine stops. A report takes effect immediately. Its write runs in its own task,
    /// so that a Subscriber whose status cannot be written delays no other Subscriber.
    pub(super) async fn run(mut self, mut reports: mpsc::UnboundedReceiver<Report>) {
        let mut ticks = tokio::time::interval(LANES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => self.receive(report),
                    None => return,
                },
                Some(stored) = self.storing.join_next() => {
                    // After a panic, the write that an outcome waits for is missing: the outcome must not be written.
                    if let Err(error) = stored && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                Some(_) = self.writing.join_next() => {}
                _ = ticks.tick() => self.write_due(),
            }
        }
    }

    fn receive(&mut self, report: Report) {
        match report {
            Report::Attempted { of, version, failure } => self.attempted(&of, &version.uid, failure),
            Report::Paused { of, version, until, wait, stored } => {
                self.roster.pause(&of, &version, until, wait);
                let statuses = self.statuses.clone();
                self.storing.spawn(async move { store(&statuses, &of, &version, stored).await });
            }
            Report::Gone { of, version, stored } => {
                self.note_gone(&of, &version);
                let (statuses, roster) = (self.statuses.clone(), self.roster.clone());
                self.storing.spawn(async move {
                    store(&statuses, &of, &version, stored).await;
                    roster.mark(&of, ReconcileCause::Change);
                });
            }
            Report::Reconcile { of, why } => {
                debug!(namespace = %of.namespace, subscriber = %of.name, reason = ?why, "deliveries are blocked; reconciling the Subscriber");
                self.roster.mark(&of, ReconcileCause::Trouble);
            }
            Report::Lanes(lanes) => self.health_board.count(lanes),
        }
    }

    /// Records an attempt for the Subscriber with this uid. `failure` is None if the attempt delivered.
    fn attempted(&mut self, key: &SubscriberKey, uid: &str, failure: Option<(AttemptReason, Option<u16>)>) {
        let at = full_seconds(Timestamp::now());
        let failure = failure.map(|(reason, status_code)| LastFailure {
            time: Time(at),
            status_code,
            reason: reason.to_string(),
        });
        self.health_board.attempted(key, uid, at, failure);
    }

    /// Records that the webhook of this version answered 410.
    fn note_gone(&self, key: &SubscriberKey, version: &SpecVersion) {
        self.roster.note_gone(key, version);
        self.roster.cell(key, &version.uid, |cell| {
            let is_suspended = cell.desired().conditions.iter().any(|c| c.reason == Reason::Suspended.as_str());
            if cell.desired().observed_generation == Some(version.generation) && !is_suspended {
                let findings = Findings { ready: Finding::gone(), token: None, validated: None, tested: None };
                cell.amend(|status| findings.put_into(status, Some(version.generation), Timestamp::now()));
            }
        });
    }

    /// Starts the writes of delivery health that are due.
    fn write_due(&mut self) {
        let clock = full_seconds(Timestamp::now());
        for (key, health) in self.due(clock, WRITING.saturating_sub(self.writing.len())) {
            let statuses = self.statuses.clone();
            self.writing.spawn(async move {
                let stored = statuses.update(&key, health.uid(), |status| health.put_into(status, clock)).await;
                if let Err(error) = stored {
                    debug!(namespace = %key.namespace, subscriber = %key.name, error = %plain(&error), "cannot write the delivery health yet; retrying");
                }
            });
        }
    }

    /// The Subscribers whose status is to be written now, up to `at_most`.
    fn due(&mut self, clock: Timestamp, at_most: usize) -> Vec<(SubscriberKey, SubscriberHealth)> {
        let now = Instant::now();
        let (overwritten, removed) = self.roster.take_disturbed();
        removed.iter().for_each(|key| self.health_board.forget(key));
        self.health_board.disturb(overwritten);
        let unsettled = self.health_board.unsettled(now);
        let statuses = self.roster.stored_statuses(&unsettled);
        // An attempt may end after its Subscriber was deleted.
        let known: HashSet<_> = statuses.iter().map(|status| &status.key).collect();
        unsettled.iter().filter(|(key, _)| !known.contains(key)).for_each(|(key, _)| self.health_board.forget(key));
        self.health_board.due(now, clock, statuses, at_most)
    }
}

/// Writes the status, then notifies the attempt that waits for the write.
async fn store(statuses: &StatusStore, of: &SubscriberKey, version: &SpecVersion, stored: oneshot::Sender<()>) {
    statuses.write_until_taken(of, &version.uid).await;
    // The attempt may no longer be waiting.
    let _ = stored.send(());
}
