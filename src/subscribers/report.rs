//! Takes in what the engine reports of each Subscriber, and writes it into the Subscriber's status.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tidings_api::{AttemptReason, LastFailure};
use tidings_queue::{SpecVersion, SubscriberKey};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tracing::debug;

use super::{
    Subscribers,
    examine::seconds_of,
    marks::Cause,
    vitals::{Vital, Vitals},
};
use crate::contract::{LANES_EVERY, Report};

/// The most statuses written at once for how deliveries go: a slow API server slows these writes down.
const WRITING: usize = 32;

impl Subscribers {
    /// Takes in `reports` until the engine ends. What a report says counts at once; writing it is a task of its own, so that a
    /// Subscriber whose status cannot be written delays no other.
    pub async fn report(self: Arc<Self>, mut reports: mpsc::UnboundedReceiver<Report>) {
        let (mut storing, mut writing) = (JoinSet::new(), JoinSet::new());
        let mut ticks = tokio::time::interval(LANES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => self.take_in(report, &mut storing),
                    None => return,
                },
                Some(_) = storing.join_next() => {}
                Some(_) = writing.join_next() => {}
                _ = ticks.tick() => {
                    let clock = seconds_of(Timestamp::now());
                    for (key, vital) in self.due(clock, WRITING.saturating_sub(writing.len())) {
                        let subscribers = self.clone();
                        writing.spawn(async move { subscribers.write_vital(&key, &vital, clock).await });
                    }
                }
            }
        }
    }

    fn take_in(self: &Arc<Self>, report: Report, storing: &mut JoinSet<()>) {
        match report {
            Report::Attempted { of, version, failure } => self.attempted(&of, &version.uid, failure),
            Report::Paused { of, version, until, wait, stored } => {
                self.registry.pause(&of, &version, until, wait);
                storing.spawn(self.clone().store_pause(of, version, stored));
            }
            Report::Gone { of, version, stored } => {
                self.note_gone(&of, &version);
                storing.spawn(self.clone().store_gone(of, version, stored));
            }
            Report::Reconcile { of, why } => {
                debug!(subscriber = %of, ?why, "deliveries cannot go on: the Subscriber is reconciled");
                self.registry.look_again(&of);
            }
            Report::Lanes(lanes) => self.vitals().count(lanes),
        }
    }

    async fn store_pause(self: Arc<Self>, of: SubscriberKey, version: SpecVersion, stored: oneshot::Sender<()>) {
        self.write_until_taken(&of, &version.uid).await;
        // An attempt that does not wait any more needs no answer.
        let _ = stored.send(());
    }

    async fn store_gone(self: Arc<Self>, of: SubscriberKey, version: SpecVersion, stored: oneshot::Sender<()>) {
        self.write_until_taken(&of, &version.uid).await;
        let _ = stored.send(());
        self.registry.mark(&of, Cause::Change);
    }

    /// The Subscribers whose status is to be written now, up to a limit. Neither lock is held while the other is taken.
    fn due(&self, clock: Timestamp, at_most: usize) -> Vec<(SubscriberKey, Vital)> {
        let now = Instant::now();
        let overwritten = self.registry.overwritten();
        let unsettled = {
            let mut vitals = self.vitals();
            vitals.disturb(overwritten);
            vitals.unsettled(now)
        };
        let pages = self.registry.pages(&unsettled);
        let mut vitals = self.vitals();
        // An attempt may end after its Subscriber was deleted.
        let known: HashSet<_> = pages.iter().map(|page| &page.key).collect();
        unsettled.iter().filter(|(key, _)| !known.contains(key)).for_each(|(key, _)| vitals.forget(key));
        vitals.due(now, clock, pages, at_most)
    }

    async fn write_vital(&self, key: &SubscriberKey, vital: &Vital, clock: Timestamp) {
        if let Err(error) = self.update(key, vital.uid(), |status| vital.put_into(status, clock)).await {
            debug!(subscriber = %key, %error, "how deliveries go could not be written yet");
        }
    }

    /// An attempt for the Subscriber with this uid ended; `failure` says how, if it did not deliver.
    fn attempted(&self, key: &SubscriberKey, uid: &str, failure: Option<(AttemptReason, Option<u16>)>) {
        let at = seconds_of(Timestamp::now());
        let failure = failure.map(|(reason, status_code)| LastFailure {
            time: Time(at),
            status_code,
            reason: reason.to_string(),
        });
        self.vitals().attempted(key, uid, at, failure);
    }

    pub(super) fn vitals(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
