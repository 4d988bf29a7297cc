//! Takes in what the engine reports of each Subscriber, and writes it into the Subscriber's status.

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
use crate::contract::{LANES_EVERY, Report};

/// The most statuses written at once for how deliveries go: a slow API server slows these writes down.
const WRITING: usize = 32;

/// The receiver of the engine's reports.
pub(super) struct Reports {
    roster: Arc<Roster>,
    statuses: Arc<StatusStore>,
    health_board: HealthBoard,
    /// Writes of pauses and 410s, which outcomes wait for.
    storing: JoinSet<()>,
    /// Writes of how deliveries go.
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

    /// Takes in `reports` until the engine ends. What a report says counts at once; writing it is a task of its own, so that a
    /// Subscriber whose status cannot be written delays no other.
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
                    // An outcome must not be written as though what it depends on were stored.
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
                debug!(subscriber = %of, ?why, "deliveries cannot go on: the Subscriber is reconciled");
                self.roster.mark(&of, ReconcileCause::Trouble);
            }
            Report::Lanes(lanes) => self.health_board.count(lanes),
        }
    }

    /// An attempt for the Subscriber with this uid ended; `failure` says how, if it did not deliver.
    fn attempted(&mut self, key: &SubscriberKey, uid: &str, failure: Option<(AttemptReason, Option<u16>)>) {
        let at = full_seconds(Timestamp::now());
        let failure = failure.map(|(reason, status_code)| LastFailure {
            time: Time(at),
            status_code,
            reason: reason.to_string(),
        });
        self.health_board.attempted(key, uid, at, failure);
    }

    /// The webhook of this version answered 410.
    fn note_gone(&self, key: &SubscriberKey, version: &SpecVersion) {
        self.roster.note_gone(key, version);
        self.roster.cell(key, &version.uid, |cell| {
            let is_held = cell.desired().conditions.iter().any(|c| c.reason == Reason::Suspended.as_str());
            if cell.desired().observed_generation == Some(version.generation) && !is_held {
                let findings = Findings { ready: Finding::gone(), token: None, validated: None, tested: None };
                cell.amend(|status| findings.put_into(status, Some(version.generation), Timestamp::now()));
            }
        });
    }

    /// Begins to write how deliveries go, where that is due.
    fn write_due(&mut self) {
        let clock = full_seconds(Timestamp::now());
        for (key, health) in self.due(clock, WRITING.saturating_sub(self.writing.len())) {
            let statuses = self.statuses.clone();
            self.writing.spawn(async move {
                let stored = statuses.update(&key, health.uid(), |status| health.put_into(status, clock)).await;
                if let Err(error) = stored {
                    debug!(subscriber = %key, %error, "how deliveries go could not be written yet");
                }
            });
        }
    }

    /// The Subscribers whose status is to be written now, up to a limit.
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

/// Writes the status, and says so to the attempt that waits for that.
async fn store(statuses: &StatusStore, of: &SubscriberKey, version: &SpecVersion, stored: oneshot::Sender<()>) {
    statuses.write_until_taken(of, &version.uid).await;
    // The attempt may not wait any more.
    let _ = stored.send(());
}
